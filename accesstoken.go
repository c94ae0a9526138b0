package auth

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
)

// What a request carries is judged by one rule, for both kinds of tokens: what
// cannot be read, or does not verify, does not count. What counts decides who
// it is, whether the origin is checked, and how the answer travels.
//
// One token, wherever it stands, needs no judgment: whoever uses it verifies
// it. Of several that differ, choose says which one counts.

// credential is a token that a request carries.
type credential struct {
	token string
	by    carrier // all that carry it

	// What choose learns of it.
	err   error      // why it does not count
	whose sessionKey // its session, also of a token that is dead; empty if it was not signed here
	rank  int64      // the highest of those of one session is used
}

// carrier is a set of ways in which a token comes along.
type carrier uint8

const (
	byHeader carrier = 1 << iota // or the body: the client sent it on purpose
	byQuery                      // whoever made the link chose it
	byCookie                     // the browser added it
)

// maxVerified is how many tokens of one place are verified, where a check may
// cost a signature.
const maxVerified = 16

// addCarried adds a token, unless there are as many as room allows already. A
// token that is there is not added, but carried by one more.
func addCarried(list []credential, token string, by carrier, room int) []credential {
	for i := range list {
		if list[i].token == token {
			list[i].by |= by
			return list
		}
	}
	if token == "" || len(list) >= room {
		return list
	}
	return append(list, credential{token: token, by: by})
}

// carriedAccess adds the access tokens that the request carries to list. The
// error says why a place cannot be read.
func (v *Verifier) carriedAccess(r *http.Request, list []credential) (_ []credential, unreadable error) {
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
		list = addCarried(list, token, by, len(list)+1)
	}
	if !cookies || len(r.Header["Cookie"]) == 0 {
		return list, unreadable
	}
	room := len(list) + maxVerified
	for _, c := range r.CookiesNamed(v.cookies.access.Name) {
		list = addCarried(list, c.Value, byCookie, room)
	}
	if unreadable != nil && (hasCookie(r, v.cookies.access.Name) || hasCookie(r, v.cookies.refresh.Name)) {
		unreadable = nil // beside a cookie it counts as absent
	}
	return list, unreadable
}

func hasCookie(r *http.Request, name string) bool {
	return slices.ContainsFunc(r.CookiesNamed(name), func(c *http.Cookie) bool { return c.Value != "" })
}

// AccessToken returns the access token that the request carries, and whether
// it came by cookie only; a cookie from an origin that is not trusted is
// refused here. One token is not verified. Of several that differ, those that
// do not verify do not count, and of those of one session that in a header is
// returned before that in a cookie. If none counts, it is one that has merely
// expired, or else the header's, which [Verifier.Verify] then refuses.
//
// The error is [ErrNoToken], [ErrInvalidRequest] for credentials of two
// sessions or a header that cannot be read and stands without a cookie,
// [ErrCrossOrigin], or [ErrUnavailable] if it cannot be said which of several
// counts.
func (v *Verifier) AccessToken(r *http.Request) (token string, byCookieOnly bool, err error) {
	chosen, err := v.accessToken(r)
	if err != nil {
		return "", chosen.by == byCookie, err
	}
	return chosen.token, chosen.by == byCookie, nil
}

// accessToken returns the token, and everything that carries it and counts.
func (v *Verifier) accessToken(r *http.Request) (chosen credential, err error) {
	var space [2]credential
	list, err := v.carriedAccess(r, space[:0])
	switch {
	case err != nil:
		return credential{}, err
	case len(list) == 0:
		return credential{}, ErrNoToken
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

// checkLink refuses a good token in the query beside the refresh cookie of
// another session, dead or not: such a link must not sign anybody into another's
// account, also where the access cookie is gone. A Verifier alone cannot read
// refresh cookies.
func (v *Verifier) checkLink(r *http.Request, token string) error {
	if v.backend == nil || v.cookies == nil || !hasCookie(r, v.cookies.refresh.Name) {
		return nil
	}
	c, err := v.Verify(r.Context(), token)
	if err != nil {
		return nil //nolint:nilerr // whoever uses the token is told
	}
	own := sessionKey{c.Subject, c.SessionID}
	if slices.ContainsFunc(v.backend.refreshSessions(r), func(s sessionKey) bool { return s != own }) {
		return errTwoSessions
	}
	return nil
}

// chooseAccess verifies access tokens that differ, and chooses among them. Of
// one session, a header's comes before one in the query, and then the newest
// cookie.
func (v *Verifier) chooseAccess(ctx context.Context, list []credential) (credential, error) {
	for i := range list {
		t, c := &list[i], new(parsedClaims)
		t.err = v.verify(ctx, t.token, c)
		if t.err == nil || errors.Is(t.err, ErrTokenExpired) || errors.Is(t.err, ErrSessionRevoked) {
			t.whose = sessionKey{c.Subject, c.SessionID}
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

// errTwoSessions is for a request whose credentials name two sessions. A login
// by cookie, or a logout, ends the sessions of the cookies.
var errTwoSessions = fmt.Errorf("%w: credentials of two sessions", ErrInvalidRequest)

// choose applies the rule to tokens that differ and were verified. The one that
// it returns is carried by a cookie if any that counts is, so that its origin
// is checked. If none counts, it returns the one whose error is the answer.
func choose(list []credential) (credential, error) {
	var best *credential
	var by carrier
	for i := range list {
		t := &list[i]
		switch {
		case errors.Is(t.err, ErrUnavailable):
			return credential{}, t.err // unknown is not worthless
		case t.err != nil:
			continue
		case best != nil && t.whose != best.whose:
			return credential{}, errTwoSessions
		case best == nil || t.rank > best.rank:
			best = t
		}
		by |= t.by
	}
	if best == nil {
		return mainRefusal(list), nil
	}
	if by == byQuery { // such a link must not sign anybody into another's account
		for i := range list {
			if t := &list[i]; t.by&byCookie != 0 && t.whose != (sessionKey{}) && t.whose != best.whose {
				return credential{}, errTwoSessions
			}
		}
	}
	chosen := *best
	chosen.by |= by & byCookie
	return chosen, nil
}

// mainRefusal returns, of tokens of which none counts, the one whose refusal
// the client is told: one that has merely expired, since a refresh may help,
// else what came in a header.
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
		chosen.by = by // a bad token in a header is refused, whatever stands beside it
	}
	return chosen
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
