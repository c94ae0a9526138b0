package auth

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// The same rule applies to access tokens and refresh tokens: a token counts
// only if it can be read and verifies. The tokens that count decide which
// session the request belongs to, whether its origin is checked, and whether
// the response sets cookies.
//
// If there is only one token, it is used, and verified later. Among several
// different tokens, choose selects the one to use.

// credential is a token in a request.
type credential struct {
	token string
	by    carrier // every way in which the request carries it

	// These are set before choose is called.
	err     error      // why the token does not count, or nil
	session sessionKey // the session, if the signature is valid, even if the token has expired or is revoked
	rank    int64      // among the tokens of a session, the one with the highest rank is used
}

// carrier is a set of ways in which a request carries a token.
type carrier uint8

const (
	byHeader carrier = 1 << iota // in a header or the body: the client sent it on purpose
	byQuery                      // in the URL: the author of a link may have chosen it
	byCookie                     // in a cookie: the browser added it
)

// maxVerified is the maximum number of tokens from one place that are verified,
// because verifying may be expensive.
const maxVerified = 16

// addCredential adds a token to list. If list contains the token already, it adds
// the carrier to it. If list has limit tokens, it does not add another.
func addCredential(list []credential, token string, by carrier, limit int) []credential {
	for i := range list {
		if list[i].token == token {
			list[i].by |= by
			return list
		}
	}
	if token == "" || len(list) >= limit {
		return list
	}
	return append(list, credential{token: token, by: by})
}

// accessCredentials adds the access tokens of a request to list. unreadable is
// the error of a place that cannot be read. It is nil if the request also has
// an access or refresh cookie, because the place then counts as empty.
func (v *Verifier) accessCredentials(r *http.Request, list []credential) (_ []credential, unreadable error) {
	cookies := false
	for _, e := range v.extractors {
		if e.source == inCookie {
			cookies = true
			continue
		}
		token, err := e.find(r)
		if err != nil && unreadable == nil {
			unreadable = err
		}
		by := byHeader
		if e.source == inQuery {
			by = byQuery
		}
		list = addCredential(list, token, by, len(list)+1)
	}
	if !cookies || len(r.Header["Cookie"]) == 0 {
		return list, unreadable
	}
	limit := len(list) + maxVerified
	for _, c := range r.CookiesNamed(v.cookies.access.Name) {
		list = addCredential(list, c.Value, byCookie, limit)
	}
	if unreadable != nil && (hasCookie(r, v.cookies.access.Name) || hasCookie(r, v.cookies.refresh.Name)) {
		unreadable = nil
	}
	return list, unreadable
}

// hasCookie reports whether the request has a cookie with this name that is not
// empty.
func hasCookie(r *http.Request, name string) bool {
	return slices.ContainsFunc(r.CookiesNamed(name), func(c *http.Cookie) bool { return c.Value != "" })
}

// AccessToken returns the access token of a request, and whether only a cookie
// carries it. If a cookie carries it, AccessToken checks the origin of the
// request ([Verifier.CheckOrigin]).
//
// If there is only one token, it is not verified. If there are several different
// tokens, AccessToken verifies them and ignores those that are not valid. If the
// others are of one session, it prefers a token in a header, then one in the
// URL, then one in a cookie. If none is valid, it returns one that has expired,
// or else the one in the header, and [Verifier.Verify] returns the error.
//
// The error is [ErrNoToken]; [ErrInvalidRequest] for tokens of two sessions, or
// for a malformed header or query in a request without a cookie;
// [ErrCrossOrigin]; or [ErrUnavailable] if it cannot be decided which of several
// tokens are valid.
func (v *Verifier) AccessToken(r *http.Request) (token string, byCookieOnly bool, err error) {
	chosen, err := v.accessToken(r)
	if err != nil {
		return "", chosen.by == byCookie, v.withResource(err)
	}
	return chosen.token, chosen.by == byCookie, nil
}

// accessToken returns the access token of a request and what carries it, as
// choose does.
func (v *Verifier) accessToken(r *http.Request) (chosen credential, err error) {
	var space [2]credential
	list, err := v.accessCredentials(r, space[:0])
	switch {
	case err != nil:
		return credential{}, err
	case len(list) == 0:
		return credential{}, v.missingToken(r)
	case len(list) == 1:
		chosen = list[0]
	default:
		if chosen, err = v.chooseAccess(r.Context(), list); err != nil {
			return credential{}, err
		}
	}
	switch {
	case chosen.by&byCookie != 0:
		err = v.CheckOrigin(r)
	case chosen.by == byQuery:
		err = v.checkLink(r, chosen.token)
	}
	return chosen, err
}

// checkLink refuses a valid token in the URL if the request has a refresh cookie
// of another session, even one that has ended. Otherwise a link could sign a
// user in to the account of another user when the access cookie is gone. A
// Verifier without an Authenticator cannot read refresh cookies.
func (v *Verifier) checkLink(r *http.Request, token string) error {
	if v.backend == nil && v.members == nil || v.cookies == nil || !hasCookie(r, v.cookies.refresh.Name) {
		return nil
	}
	c, err := v.Verify(r.Context(), token)
	if err != nil {
		return nil //nolint:nilerr // the caller verifies the token as well
	}
	own := sessionKey{c.Subject, c.SessionID}
	if slices.ContainsFunc(v.cookieSessions(r), func(s sessionKey) bool { return s != own }) {
		return errTwoSessions
	}
	return nil
}

// cookieSessions returns the sessions of those refresh tokens in r's cookies that
// an Authenticator of v signed.
func (v *Verifier) cookieSessions(r *http.Request) (sessions []sessionKey) {
	for _, m := range v.members {
		sessions = append(sessions, m.cookieSessions(r)...)
	}
	if v.backend != nil {
		sessions = append(sessions, v.backend.refreshSessions(r)...)
	}
	return sessions
}

// chooseAccess verifies several different access tokens and chooses one. Of
// those of one session, it prefers one in a header, then one in the URL, then
// the cookie that expires last.
func (v *Verifier) chooseAccess(ctx context.Context, list []credential) (credential, error) {
	for i := range list {
		t, c := &list[i], new(parsedClaims)
		t.err = v.verify(ctx, t.token, c)
		if t.err == nil || errors.Is(t.err, ErrTokenExpired) || errors.Is(t.err, ErrSessionRevoked) {
			t.session = sessionKey{c.Subject, c.SessionID}
		}
		switch {
		case t.by&byHeader != 0:
			t.rank = math.MaxInt64
		case t.by&byQuery != 0:
			t.rank = math.MaxInt64 - 1
		default:
			t.rank = c.ExpiresAt.Unix()
		}
	}
	return choose(list)
}

// errTwoSessions is the error for a request with tokens of two sessions. The
// client recovers by a logout, or by a login that sets cookies: both end the
// sessions of the cookies.
var errTwoSessions = fmt.Errorf("%w: tokens of two sessions", ErrInvalidRequest)

// choose selects one of several different tokens that were verified, by the
// rule at the top of this file. The result includes byCookie if a cookie
// carries any token that counts, so that the origin is checked. If no token
// counts, the result is that of mainRefusal.
func choose(list []credential) (credential, error) {
	var best *credential
	var by carrier
	for i := range list {
		t := &list[i]
		switch {
		case errors.Is(t.err, ErrUnavailable):
			return credential{}, t.err // the token may count
		case t.err != nil:
			continue
		case best != nil && t.session != best.session:
			return credential{}, errTwoSessions
		case best == nil || t.rank > best.rank:
			best = t
		}
		by |= t.by
	}
	if best == nil {
		return mainRefusal(list), nil
	}
	if by == byQuery { // a link must not sign a user in to another account
		for i := range list {
			if t := &list[i]; t.by&byCookie != 0 && t.session != (sessionKey{}) && t.session != best.session {
				return credential{}, errTwoSessions
			}
		}
	}
	chosen := *best
	chosen.by |= by & byCookie
	return chosen, nil
}

// mainRefusal returns the token whose error is the response if no token counts.
// It prefers one that has expired, because a refresh may help, then one in a
// header.
func mainRefusal(list []credential) credential {
	weight := func(t *credential) (w int) {
		if errors.Is(t.err, ErrTokenExpired) {
			w += 4
		}
		if t.by&byHeader != 0 {
			w += 2
		}
		if t.by&byQuery != 0 {
			w++
		}
		return w
	}
	chosen, by := list[0], list[0].by
	for i := range list[1:] {
		t := &list[i+1]
		if by |= t.by; weight(t) > weight(&chosen) {
			chosen = *t
		}
	}
	if by &^= byCookie; by != 0 {
		chosen.by = by // not byCookie, so that Optional refuses the request
	}
	return chosen
}

// isUpgrade reports whether the request asks to switch to another protocol, as a
// WebSocket handshake does.
func isUpgrade(r *http.Request) bool { return r.Header.Get("Upgrade") != "" }

// CheckOrigin returns [ErrCrossOrigin] if a browser sent the request from an
// origin that is neither this one nor trusted, and the request may have side
// effects: its method is not GET, HEAD or OPTIONS, or it opens a WebSocket or
// server-sent events (Accept: text/event-stream), which use the server for long. Call
// it in custom handlers that set cookies but read none, such as a login. The
// methods of this package that read cookies call it themselves. The text of the
// error contains the Origin and the Host of the request. CheckOrigin returns
// [ErrInvalidRequest] if the page was loaded over http, so that the browser would
// drop the Secure cookies. Without Config.Cookies, CheckOrigin returns nil.
func (v *Verifier) CheckOrigin(r *http.Request) error {
	if v.cookies == nil {
		return nil
	}
	if err := v.checkCrossOrigin(r); err != nil {
		return err
	}
	return v.checkTransport(r)
}

// checkCrossOrigin is CheckOrigin without checkTransport. It requires
// Config.Cookies.
func (v *Verifier) checkCrossOrigin(r *http.Request) error {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none": // trusted; reading a long Accept would be the largest part of the check
	default:
		if isUpgrade(r) || acceptsEvents(r) {
			r = r.WithContext(r.Context()) // a copy
			r.Method = http.MethodPost
		}
	}
	if v.cookies.origins.Check(r) == nil {
		return nil
	}
	return fmt.Errorf("%w: Origin %s is not in Cookies.TrustedOrigins (Host %s, Sec-Fetch-Site %s)",
		ErrCrossOrigin, quoted(r.Header.Get("Origin")), quoted(r.Host), quoted(r.Header.Get("Sec-Fetch-Site")))
}

// checkTransport returns an error if a browser has loaded the page of this host
// over http and would therefore drop the cookies, because they are Secure. It
// returns no error for a loopback host, from which browsers accept such cookies;
// for a request with Sec-Fetch-Site, which browsers send only over https and to
// a loopback host; or for a request with a cookie, which was not dropped. If the
// cookies are not Secure and the host is not a loopback host, checkTransport
// emits an event.
func (v *Verifier) checkTransport(r *http.Request) error {
	if v.cookies.access.Secure {
		origin := r.Header["Origin"]
		if len(origin) != 1 || r.Header["Sec-Fetch-Site"] != nil {
			return nil
		}
		host, ok := strings.CutPrefix(origin[0], "http://")
		if ok && host == r.Host && !isLoopback(hostname(r)) && !hasCookie(r, v.cookies.access.Name) && !hasCookie(r, v.cookies.refresh.Name) {
			return fmt.Errorf("%w: Origin %s", errInsecurePage, quoted(origin[0]))
		}
	} else if !isLoopback(hostname(r)) {
		v.emitLimited(r.Context(), "InsecureHTTP", Event{Type: EventFault, Err: fmt.Errorf(
			"auth: Cookies.InsecureHTTP is for development on a loopback address, but a request has the Host %s; anyone on the network can read its tokens", quoted(r.Host))})
	}
	return nil
}

// hostname returns the host of a request without its port.
func hostname(r *http.Request) string { return (&url.URL{Host: r.Host}).Hostname() }

// errInsecurePage is the error of checkTransport.
const errInsecurePage = requestError("the page was loaded over http, so browsers drop the Secure cookies; use https, or set Cookies.InsecureHTTP for development on a loopback address")
