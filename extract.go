package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Extractor is a place where access tokens come from. All places are looked
// at; a request in which two of them differ is refused.
type Extractor struct {
	place place
	name  string
}

type place int

const (
	inBearer place = iota + 1
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
		case e.place == 0:
			errs = append(errs, fmt.Errorf("auth: %s[%d] is the zero Extractor", field, i))
		case e.name == "" || e.place == inHeader && !isToken(e.name):
			errs = append(errs, fmt.Errorf("auth: %s[%d] has no usable name", field, i))
		case e.place == inHeader && slices.Contains([]string{"Authorization", "Cookie", "Host", "Refresh-Token"}, e.name):
			errs = append(errs, fmt.Errorf("auth: %s[%d]: header %s carries something else", field, i, e.name))
		case e.place == inCookie && jar == nil:
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
		if e.place != inQuery {
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

// find returns what stands in the place, or nothing.
func (e Extractor) find(v *Verifier, r *http.Request) (string, error) {
	switch e.place {
	case inBearer:
		return bearer(r.Header["Authorization"])
	case inHeader:
		return onlyOne(r.Header[e.name])
	case inCookie:
		return v.accessCookie(r)
	case inQuery:
		if !strings.Contains(r.URL.RawQuery, e.name) { // most requests
			if !strings.ContainsAny(r.URL.RawQuery, "%+") {
				return "", nil
			}
		}
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return "", requestError("the query cannot be read")
		}
		return onlyOne(query[e.name])
	}
	return "", nil
}

// bearer returns the one bearer token among Authorization headers.
func bearer(headers []string) (token string, err error) {
	for _, h := range headers {
		const scheme = "Bearer"
		if len(h) < len(scheme) || !strings.EqualFold(h[:len(scheme)], scheme) {
			continue
		}
		rest := h[len(scheme):]
		if rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			continue // a longer name
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

// AccessToken returns the access token that the request carries, unverified,
// and whether it came by cookie; a cookie from an origin that is not trusted is
// refused here.
//
// The error is [ErrNoToken], [ErrInvalidRequest] for credentials that differ
// or are malformed, or [ErrCrossOrigin].
func (v *Verifier) AccessToken(r *http.Request) (token string, byCookie bool, err error) {
	for _, e := range v.extractors {
		found, err := e.find(v, r)
		switch {
		case err != nil:
			return "", false, err
		case found == "":
		case token == "":
			token, byCookie = found, e.place == inCookie
		case token != found:
			return "", false, requestError("two credentials that differ")
		default:
			byCookie = byCookie && e.place == inCookie
		}
	}
	switch {
	case token == "":
		return "", false, ErrNoToken
	case byCookie:
		if err := v.CheckOrigin(r); err != nil {
			return "", true, err
		}
	}
	return token, byCookie, nil
}

// maxSameCookies is how many cookies of one name are verified: a browser sends
// several when they were set for other paths or domains.
const maxSameCookies = 4

// accessCookie returns the access cookie; of several of one session the
// newest.
func (v *Verifier) accessCookie(r *http.Request) (string, error) {
	return pickCookie(r, v.cookies.access.Name, func(token string) (sessionKey, int64, error) {
		c, err := v.open(r.Context(), token)
		if err != nil {
			return sessionKey{}, 0, err
		}
		return sessionKey{c.Subject, c.SessionID}, c.ExpiresAt.Unix(), v.lives(c.times(), c.ExpiresAt)
	})
}

// lives returns why a token does not count beside another: one that has
// expired or was revoked must not stand in the way of one that is good.
func (v *Verifier) lives(t subjectTimes, until time.Time) error {
	now := v.now()
	if !now.Before(until) {
		return ErrTokenExpired
	}
	_, err := v.revoked.check(t, now)
	return err
}

// pickCookie returns the value of the cookie of that name. Where there are
// several, open tells of each whose it is and how new; those that are not
// valid do not count.
func pickCookie(r *http.Request, name string, open func(string) (sessionKey, int64, error)) (string, error) {
	if len(r.Header["Cookie"]) == 0 {
		return "", nil
	}
	var values []string
	for _, c := range r.CookiesNamed(name) {
		if c.Value != "" && !slices.Contains(values, c.Value) {
			if values = append(values, c.Value); len(values) == maxSameCookies {
				break
			}
		}
	}
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	}
	var best, expired string
	var whose sessionKey
	var newest int64
	for _, value := range values {
		key, age, err := open(value)
		switch {
		case errors.Is(err, ErrUnavailable):
			return "", err
		case errors.Is(err, ErrTokenExpired):
			expired = value
		case err != nil:
		case best == "":
			best, whose, newest = value, key, age
		case key != whose:
			return "", requestError("cookies of two sessions")
		case age > newest:
			best, newest = value, age
		}
	}
	switch { // what is not good will be refused for what it is
	case best != "":
		return best, nil
	case expired != "":
		return expired, nil
	}
	return values[0], nil
}

// isUpgrade reports whether the request asks for another protocol, as a
// WebSocket handshake does.
func isUpgrade(r *http.Request) bool { return r.Header.Get("Upgrade") != "" }

// CheckOrigin returns [ErrCrossOrigin] if a browser sent the request from an
// origin that is neither this one nor trusted, and the request may change
// something: its method is not GET, HEAD or OPTIONS, or it opens a WebSocket.
// It is for handlers of one's own that set cookies without reading one, as a
// login does; what reads cookies here checks already. Without Config.Cookies
// it returns nil.
func (v *Verifier) CheckOrigin(r *http.Request) error {
	if v.cookies == nil {
		return nil
	}
	if isUpgrade(r) {
		r = r.WithContext(r.Context()) // a copy
		r.Method = http.MethodPost
	}
	if err := v.cookies.origins.Check(r); err != nil {
		return fmt.Errorf("%w: %w", ErrCrossOrigin, err)
	}
	return nil
}
