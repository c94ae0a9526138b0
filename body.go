package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// maxBody is the size limit of a request body, in bytes.
const maxBody = 16 << 10

// ReadFields returns those of the named fields that the request's body contains.
// The body is JSON or a form of at most 16 KiB. A named field must occur at most
// once, and be a string in UTF-8. Other fields are ignored. A field that is
// missing is no error, so the caller checks that. The body can be read again
// afterward. ReadFields is for login handlers of the application;
// [ResponseFor] maps its errors to 4xx responses.
func ReadFields(r *http.Request, names ...string) (map[string]string, error) {
	return readFields(r, "", names...)
}

// readFields is ReadFields for a body that may also have a field named option, if
// that is not empty: true or false in JSON, or the checkbox of a form. Its value is
// then "true" or "false".
//
// A browser sends the value of a checkbox that is ticked, which is "on" by default,
// and nothing for one that is not. So a form has a hidden field of the same name
// before it, with the value false or 0, and the option is true if any value is.
func readFields(r *http.Request, option string, names ...string) (map[string]string, error) {
	kind := r.Header.Get("Content-Type")
	known := true
	if kind != typeJSON && kind != typeForm {
		parsed, params, err := mime.ParseMediaType(kind)
		charset := strings.ToLower(params["charset"])
		kind, known = parsed, err == nil && (charset == "" || charset == "utf-8" || charset == "utf8")
	}
	if len(r.PostForm) > 0 && known && kind == typeForm { // a middleware has read the body
		return formFields(r.PostForm, option, names)
	}
	body, err := readBody(r)
	body = bytes.TrimPrefix(body, []byte("\ufeff")) // some clients send a byte order mark
	switch {
	case err != nil || len(body) == 0:
		return nil, err
	case known && kind == typeJSON:
		return jsonFields(body, option, names)
	case known && kind == typeForm:
		if looksLikeJSON(body) {
			return nil, requestError("the body is JSON, but its Content-Type is " + typeForm + "; send " + typeJSON)
		}
		form, err := parseForm(string(body), append([]string{option}, names...))
		if err != nil {
			return nil, err
		}
		return formFields(form, option, names)
	}
	return nil, fmt.Errorf("%w: %s", errContentType, quoted(r.Header.Get("Content-Type")))
}

// Media types of bodies, in their usual spelling.
const (
	typeJSON = "application/json"
	typeForm = "application/x-www-form-urlencoded"
)

// looksLikeJSON reports whether a body is a JSON object. In a form, the brace at
// its beginning would be encoded.
func looksLikeJSON(body []byte) bool { return beginsWithBrace(body) && json.Valid(body) }

// looksLikeForm reports whether a body that is not a JSON object may be a form.
func looksLikeForm(body []byte) bool { return !beginsWithBrace(body) && bytes.IndexByte(body, '=') > 0 }

func beginsWithBrace(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{"))
}

// readBody reads the body, and replaces it so that it can be read again.
func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > maxBody {
		return nil, errTooLarge
	}
	body, err := readUpTo(r.Body, r.ContentLength)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) || len(body) > maxBody {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, requestError("the body cannot be read")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body, nil
}

// readUpTo reads until the end, or until it has read more than maxBody bytes.
// length is the Content-Length, and may be wrong.
func readUpTo(r io.Reader, length int64) ([]byte, error) {
	b := make([]byte, 0, max(length, 255)+1)
	for len(b) <= maxBody {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return b, err
		}
		if len(b) == cap(b) {
			b = slices.Grow(b, len(b))
		}
	}
	return b, nil
}

// maxBodyMembers is the largest number of members of an object that is not
// signed.
const maxBodyMembers = 64

func jsonFields(body []byte, option string, names []string) (map[string]string, error) {
	fields := map[string]string{}
	err := strictjson.Object(string(body), maxBodyMembers, func(name, value string) error {
		switch {
		case value == "null":
			return nil
		case name == option && option != "":
			if value != "true" && value != "false" {
				return requestError(name + " is neither true nor false")
			}
			fields[name] = value
			return nil
		case !slices.Contains(names, name):
			return nil
		}
		text, ok := strictjson.String(value)
		if !ok {
			return requestError(name + " is not a string")
		}
		fields[name] = text
		return nil
	})
	var request requestError
	if err != nil && !errors.As(err, &request) && looksLikeForm(body) {
		err = requestError("the body is not JSON; a form needs the Content-Type " + typeForm)
	} else if err != nil && !errors.As(err, &request) {
		err = requestError("body: " + err.Error())
	}
	if err != nil {
		return nil, err
	}
	return fields, nil
}

// parseForm parses a form. It returns an error if a named field cannot be
// decoded, or if no field can.
func parseForm(body string, names []string) (url.Values, error) {
	form := url.Values{}
	readable := false
	var err error
	readPairs(body, func(key, value string, ok bool) {
		readable = readable || ok
		if !slices.Contains(names, key) {
			return
		}
		if form.Add(key, value); !ok {
			err = requestError("form field " + key + " cannot be decoded")
		}
	})
	if !readable {
		err = requestError("the body is not a form")
	}
	return form, err
}

// formFields returns the named fields of a form.
func formFields(form url.Values, option string, names []string) (map[string]string, error) {
	fields := map[string]string{}
	for _, value := range form[option] {
		switch {
		case option == "":
		case value == "on" || value == "true" || value == "1":
			fields[option] = "true"
		case value != "false" && value != "0":
			return nil, requestError("form field " + option + ` is not "on", "true", "1", "false" or "0"`)
		case fields[option] == "":
			fields[option] = "false"
		}
	}
	for _, name := range names {
		values := form[name]
		switch {
		case len(values) == 0:
		case len(values) > 1 || !utf8.ValidString(values[0]):
			return nil, requestError("form field " + name + " occurs twice or is not UTF-8")
		default:
			fields[name] = values[0]
		}
	}
	return fields, nil
}

// bodyTokens returns the refresh tokens in the body. Some of them may be "".
func bodyTokens(r *http.Request) ([]string, error) {
	f, err := ReadFields(r, "refresh_token", "refreshToken")
	return []string{f["refresh_token"], f["refreshToken"]}, err
}

// oneOf returns the one field among names that is not empty. It returns an
// error if there is none or more than one.
func oneOf(fields map[string]string, names ...string) (string, error) {
	value := ""
	for _, name := range names {
		switch {
		case fields[name] == "":
		case value != "":
			return "", requestError("exactly one of " + strings.Join(names, ", ") + " is required")
		default:
			value = fields[name]
		}
	}
	if value == "" {
		return "", requestError(names[0] + " is missing in the body")
	}
	return value, nil
}
