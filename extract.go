package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// Extractor is a place where access tokens come from. All places are looked
// at; if they hold different tokens, those that do not verify do not count, and
// tokens of two sessions are refused.
type Extractor struct {
	source source
	name   string
}

type source int

const (
	inBearer source = iota + 1
	inCookie
	inHeader
	inQuery
)

// FromBearer takes the token from "Authorization: Bearer" (RFC 6750 section
// 2.1). The scheme is matched without case; other schemes are not ours.
func FromBearer() Extractor { return Extractor{inBearer, "Authorization"} }

// FromCookie takes the token from the access cookie, see [Cookies]. Requests
// with it are checked for their origin.
func FromCookie() Extractor { return Extractor{inCookie, "Cookie"} }

// FromHeader takes the token from a header of that name, such as
// X-Access-Token, where it stands alone.
func FromHeader(name string) Extractor {
	return Extractor{inHeader, textproto.CanonicalMIMEHeaderKey(name)}
}

// FromQuery takes the token from a parameter of the URL, on every route. URLs
// end up in access logs, browser histories and Referer headers, and whoever
// reads them there has the token until it expires (RFC 6750 section 5.3): use
// it only if there are clients that can do nothing else.
func FromQuery(name string) Extractor { return Extractor{inQuery, name} }

// checkExtractors returns the extractors to use.
func checkExtractors(field string, es []Extractor, jar *cookieJar) ([]Extractor, error) {
	if len(es) == 0 {
		es = []Extractor{FromBearer()}
		if jar != nil {
			es = append(es, FromCookie())
		}
		return es, nil
	}
	var errs []error
	for i, e := range es {
		switch {
		case e.source == 0:
			errs = append(errs, fmt.Errorf("auth: %s[%d] is the zero Extractor", field, i))
		case e.name == "" || e.source == inHeader && !isToken(e.name):
			errs = append(errs, fmt.Errorf("auth: %s[%d] has no usable name", field, i))
		case e.source == inHeader && slices.Contains([]string{"Authorization", "Cookie", "Host", "Refresh-Token"}, e.name):
			errs = append(errs, fmt.Errorf("auth: %s[%d]: header %s carries something else", field, i, e.name))
		case e.source == inCookie && jar == nil:
			errs = append(errs, fmt.Errorf("auth: %s[%d] reads a cookie, but Cookies is nil", field, i))
		case slices.Contains(es[:i], e):
			errs = append(errs, fmt.Errorf("auth: %s[%d] is there twice", field, i))
		}
	}
	return slices.Clone(es), errors.Join(errs...)
}

// varyOf returns the request headers that decide an answer.
func varyOf(es []Extractor) []string {
	var names []string
	for _, e := range es {
		if e.source != inQuery {
			names = append(names, e.name)
		}
	}
	if names == nil {
		return nil
	}
	return []string{strings.Join(names, ", ")}
}

// isToken reports whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// find returns what stands in a place other than a cookie, or nothing.
func (e Extractor) find(r *http.Request) (string, error) {
	switch e.source {
	case inBearer:
		return bearer(r.Header["Authorization"])
	case inHeader:
		return onlyOne(r.Header[e.name])
	case inQuery:
		values, ok := queryValues(r, e.name)
		if !ok {
			return "", requestError("a token in the query cannot be read")
		}
		return onlyOne(values)
	}
	return "", nil
}

// findAll returns everything in a place other than a cookie that could be a
// token, also where find refuses it. A logout looks so.
func (e Extractor) findAll(r *http.Request) []string {
	var values []string
	switch e.source {
	case inBearer:
		for _, h := range r.Header["Authorization"] {
			if rest, ok := cutBearer(h); ok {
				values = append(values, splitTokens(rest)...)
			}
		}
	case inHeader:
		for _, h := range r.Header[e.name] {
			values = append(values, splitTokens(h)...)
		}
	case inQuery:
		values, _ = queryValues(r, e.name)
	}
	return values
}

// splitTokens takes apart what stands in one header, which is nearly always
// one token.
func splitTokens(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ' ' || c == ',' || c == '\t' })
}

// queryValues returns the values of a parameter of the URL that can be read,
// and whether all of that name can. Other parameters do not matter.
func queryValues(r *http.Request, name string) (values []string, ok bool) {
	raw := r.URL.RawQuery
	if !strings.Contains(raw, name) && !strings.ContainsAny(raw, "%+") { // most requests
		return nil, true
	}
	ok = true
	readPairs(raw, func(key, value string, readable bool) {
		switch {
		case key != name:
		case readable:
			values = append(values, value)
		default:
			ok = false
		}
	})
	return values, ok
}

// readPairs calls pair for each field of a query or a form, as url.ParseQuery
// takes it apart, and says of each whether it can be read. The key of one that
// cannot is empty where it is the key that cannot be read.
func readPairs(raw string, pair func(key, value string, readable bool)) {
	for raw != "" {
		var one string
		if one, raw, _ = strings.Cut(raw, "&"); one == "" {
			continue
		}
		key, value, _ := strings.Cut(one, "=")
		key, err := url.QueryUnescape(key)
		if err != nil {
			pair("", "", false)
			continue
		}
		value, err = url.QueryUnescape(value)
		pair(key, value, err == nil && !strings.Contains(one, ";"))
	}
}

// cutBearer returns what follows the scheme, and whether it is Bearer.
func cutBearer(header string) (rest string, ok bool) {
	const scheme = "Bearer"
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return "", false
	}
	rest = header[len(scheme):]
	if rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return "", false // a longer name
	}
	return rest, true
}

// bearer returns the one bearer token among Authorization headers.
func bearer(headers []string) (token string, err error) {
	for _, h := range headers {
		rest, ok := cutBearer(h)
		if !ok {
			continue
		}
		rest = strings.Trim(rest, " ")
		switch {
		case rest == "", len(rest) <= maxToken && isSeveral(rest): // what is longer is refused for that
			return "", requestError("the Authorization header does not hold one bearer token")
		case token != "":
			return "", requestError("more than one bearer token")
		}
		token = rest
	}
	return token, nil
}

// isSeveral reports whether s has what separates tokens. Looking for one byte
// at a time is much faster than for any of several.
func isSeveral(s string) bool {
	return strings.IndexByte(s, ' ') >= 0 || strings.IndexByte(s, ',') >= 0 || strings.IndexByte(s, '\t') >= 0
}

func onlyOne(values []string) (string, error) {
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", requestError("more than one token in one place")
	}
	return values[0], nil
}
