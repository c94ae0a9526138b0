package auth

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// maxBody bounds the body of a request to an endpoint.
const maxBody = 16 << 10

// ReadFields returns the named fields of a request's body, JSON or a form, as
// far as they are there: at most 16 KiB, and each named field once, as text in
// UTF-8. Other fields are ignored. The body may be read again. It is for login
// handlers of one's own; [ResponseFor] knows its errors.
func ReadFields(r *http.Request, names ...string) (map[string]string, error) {
	kind := r.Header.Get("Content-Type")
	known := true
	if kind != typeJSON && kind != typeForm {
		parsed, params, err := mime.ParseMediaType(kind)
		charset := strings.ToLower(params["charset"])
		kind, known = parsed, err == nil && (charset == "" || charset == "utf-8" || charset == "utf8")
	}
	if len(r.PostForm) > 0 && known && kind == typeForm { // somebody outside has read the body
		return formFields(r.PostForm, names)
	}
	body, err := readBody(r)
	body = bytes.TrimPrefix(body, []byte("\ufeff")) // some clients begin with a byte order mark
	switch {
	case err != nil || len(body) == 0:
		return nil, err
	case known && kind == typeJSON:
		return jsonFields(body, names)
	case known && kind == typeForm:
		form, err := parseForm(string(body), names)
		if err != nil {
			return nil, err
		}
		return formFields(form, names)
	}
	return nil, errContentType
}

// Media types of bodies, as nearly everybody spells them.
const (
	typeJSON = "application/json"
	typeForm = "application/x-www-form-urlencoded"
)

// readBody reads the body and puts it back.
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

// readUpTo reads a body until it ends, or is over the limit. Its length is what
// the client said, which need not be true.
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

// maxBodyMembers bounds the members of an object that is not signed.
const maxBodyMembers = 64

func jsonFields(body []byte, names []string) (map[string]string, error) {
	fields := map[string]string{}
	err := strictjson.Object(string(body), maxBodyMembers, func(name, value string) error {
		if !slices.Contains(names, name) || value == "null" {
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
	if err != nil && !errors.As(err, &request) {
		err = requestError("the body: " + err.Error())
	}
	if err != nil {
		return nil, err
	}
	return fields, nil
}

// parseForm takes a form apart. Only what cannot be read of the named fields is
// an error, or if nothing can.
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
			err = requestError("field " + key + " of the form cannot be read")
		}
	})
	if !readable {
		err = requestError("the body is not a form")
	}
	return form, err
}

// formFields returns the named fields. What the others hold does not matter.
func formFields(form url.Values, names []string) (map[string]string, error) {
	fields := map[string]string{}
	for _, name := range names {
		values := form[name]
		switch {
		case len(values) == 0:
		case len(values) > 1 || !utf8.ValidString(values[0]):
			return nil, requestError("field " + name + " of the form is there twice or is not UTF-8")
		default:
			fields[name] = values[0]
		}
	}
	return fields, nil
}
