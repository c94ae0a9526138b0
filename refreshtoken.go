package auth

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

// RefreshRequest returns the refresh token of a request, and the options for
// [Authenticator.Refresh]: the device, the value of the header Refresh-Key, and
// whether the tokens are returned in the body. So a refresh handler is:
//
//	token, o, err := a.RefreshRequest(r)
//	t, err := a.Refresh(r.Context(), token, o) // if err is nil
//	a.WriteTokens(w, t, !o.InBody)             // if err is nil
//
// It looks for the token in the refresh cookie, in the header Refresh-Token, and
// in the fields "refresh_token" and "refreshToken" of the body. It does not look
// in the URL. The body can be read again afterward.
//
// If there is only one token, it is not verified. If there are several different
// tokens, RefreshRequest verifies them and ignores those that are not valid. If
// the others are of one session, it returns the one with the highest generation.
// If a cookie carries any token that was not ignored, RefreshRequest checks the
// origin of the request ([Verifier.CheckOrigin]), and InBody is false.
//
// The error is [ErrNoToken]; [ErrInvalidRequest] for tokens of two sessions, for
// a malformed Refresh-Key, or for a malformed body in a request without another
// refresh token; [ErrCrossOrigin]; or [ErrUnavailable] if it cannot be decided
// which of several tokens are valid. For a body that is too large, [ResponseFor]
// maps the error to status 413. For an unsupported content type, in a request
// without another refresh token, it maps it to 415.
func (a *Authenticator) RefreshRequest(r *http.Request) (token string, o RefreshOptions, err error) {
	key, err := retryKeyOf(r)
	if err != nil {
		return "", o, err
	}
	list := a.refreshCookieCredentials(r)
	limit := len(list) + maxVerified
	for _, value := range r.Header["Refresh-Token"] {
		list = addCredential(list, value, byHeader, limit)
	}
	fromBody, err := bodyTokens(r)
	if errors.Is(err, errTooLarge) || err != nil && len(list) == 0 {
		return "", o, err
	}
	for _, value := range fromBody {
		list = addCredential(list, value, byHeader, len(list)+1)
	}
	token, cookie, err := a.refreshTokenOf(a.Verifier, r, list)
	if err != nil {
		return "", o, err
	}
	o = RefreshOptions{Device: a.Device(r), InBody: !cookie, RetryKey: key}
	o.olderCookie = cookie && !slices.ContainsFunc(list, func(t credential) bool { return t.token == token && t.by&byCookie != 0 })
	return token, o, nil
}

// refreshTokenOf returns the token of list to use, and whether a cookie carries
// a token that counts. If so, v checks the origin of the request.
func (a *Authenticator) refreshTokenOf(v *Verifier, r *http.Request, list []credential) (token string, cookie bool, err error) {
	var chosen credential
	switch len(list) {
	case 0:
		return "", false, grantError{a.noRefreshToken.forRequest(r)}
	case 1:
		chosen = list[0]
	default:
		if chosen, err = a.chooseRefresh(r.Context(), list); err != nil {
			return "", false, err
		}
	}
	if cookie = chosen.by&byCookie != 0; cookie {
		if err := v.CheckOrigin(r); err != nil {
			return "", true, err
		}
	}
	return chosen.token, cookie, nil
}

// refreshCookieCredentials returns the tokens in the refresh cookies. If there
// are several, it returns only those that this service signed, or the first one
// if there are none. It verifies all of them, because an HMAC is cheap.
func (a *Authenticator) refreshCookieCredentials(r *http.Request) (list []credential) {
	values := a.refreshCookies(r)
	if len(values) < 2 {
		for _, value := range values {
			list = append(list, credential{token: value, by: byCookie})
		}
		return list
	}
	for _, value := range values {
		if a.isRefreshToken(r.Context(), value) {
			list = addCredential(list, value, byCookie, len(list)+1)
		}
	}
	if list == nil {
		list = append(list, credential{token: values[0], by: byCookie})
	}
	return list
}

// isRefreshToken reports whether a token was signed here as a refresh token. It
// also returns true if that cannot be decided.
func (a *Authenticator) isRefreshToken(ctx context.Context, token string) bool {
	c, err := a.openRefresh(ctx, token)
	return c.sid != "" || errors.Is(err, ErrUnavailable)
}

// refreshSessions returns the sessions of the refresh cookies that were signed
// here, even those that have ended.
func (a *Authenticator) refreshSessions(r *http.Request) (sessions []sessionKey) {
	for _, value := range a.refreshCookies(r) {
		if c, _ := a.openRefresh(r.Context(), value); c.sid != "" {
			sessions = append(sessions, sessionKey{c.subject, c.sid})
		}
	}
	return sessions
}

// refreshCookies returns the values of the refresh cookies that are not empty.
func (a *Authenticator) refreshCookies(r *http.Request) (values []string) {
	if a.cookies == nil || len(r.Header["Cookie"]) == 0 {
		return nil
	}
	for _, c := range r.CookiesNamed(a.cookies.refresh.Name) {
		if c.Value != "" {
			values = append(values, c.Value)
		}
	}
	return values
}

// chooseRefresh verifies several different refresh tokens and chooses one.
func (a *Authenticator) chooseRefresh(ctx context.Context, list []credential) (credential, error) {
	now := a.now()
	sessions := map[sessionKey]bool{}
	for i := range list {
		t := &list[i]
		if a.examineRefresh(ctx, t, now); t.err == nil {
			sessions[t.session] = true
		}
	}
	if len(sessions) > 1 {
		if err := a.excludeEnded(ctx, list, sessions); err != nil {
			return credential{}, err
		}
	}
	return choose(list)
}

// examineRefresh verifies a refresh token, and sets the other fields of t.
func (a *Authenticator) examineRefresh(ctx context.Context, t *credential, now time.Time) {
	var c refreshClaims
	if c, t.err = a.openRefresh(ctx, t.token); c.sid == "" {
		return
	}
	t.session, t.rank = sessionKey{c.subject, c.sid}, c.generation
	if errors.As(t.err, new(newerToken)) {
		t.err = nil // it counts, because a process of the newer version can refresh it
	}
	if t.err == nil && !now.Before(a.refreshEnd(&c)) {
		t.err = ErrTokenExpired
	}
	if t.err == nil {
		_, t.err = a.revoked.find(c.times(), now)
	}
}

// refreshCookieRank implements backend.
func (a *Authenticator) refreshCookieRank(r *http.Request) (rank int) {
	if a.redirects == nil {
		return 0
	}
	for _, t := range a.refreshCookieCredentials(r) {
		switch a.examineRefresh(r.Context(), &t, a.now()); {
		case t.err == nil:
			return 2
		case t.session != (sessionKey{}) || errors.Is(t.err, ErrUnavailable):
			rank = 1
		}
	}
	return rank
}

// excludeEnded asks the store which of the sessions exist, and sets the errors
// of the other tokens. The revocations in this process do not suffice: it keeps
// them only for the lifetime of an access token, and refresh tokens live longer.
func (a *Authenticator) excludeEnded(ctx context.Context, list []credential, sessions map[sessionKey]bool) error {
	if len(sessions) > maxVerified {
		return errTwoSessions
	}
	for s := range sessions {
		alive, err := a.sessionExists(ctx, s.subject, s.id)
		if err != nil {
			return err
		}
		sessions[s] = alive
	}
	for i := range list {
		if t := &list[i]; t.err == nil && !sessions[t.session] {
			t.err = ErrSessionRevoked
		}
	}
	return nil
}

// CookieTokens returns the tokens in the access and refresh cookies. They are
// not verified. A login that sets cookies passes them in
// [SessionOptions].Replaces.
func (a *Authenticator) CookieTokens(r *http.Request) []string {
	if a.cookies == nil || len(r.Header["Cookie"]) == 0 {
		return nil
	}
	var access, other, refresh tokenList
	for _, c := range r.CookiesNamed(a.cookies.access.Name) {
		access.add(c.Value)
	}
	values := a.refreshCookies(r)
	for _, value := range values {
		// Many other cookies must not displace the valid one.
		if len(values) > maxVerified && a.isRefreshToken(r.Context(), value) {
			refresh = append(refresh, value)
		} else {
			other.add(value)
		}
	}
	return slices.Concat(access, other, refresh)
}

// tokenList is a list of different tokens from one place. It has at most
// maxVerified of them, because verifying a token may be expensive.
type tokenList []string

// add adds a token, unless it is "" or in the list, or the list is full.
func (l *tokenList) add(token string) {
	if token != "" && len(*l) < maxVerified && !slices.Contains(*l, token) {
		*l = append(*l, token)
	}
}

// RequestTokens returns every token found in a request, for
// [Authenticator.Logout], and whether the request has one of the cookies. The
// tokens are of both kinds, and are not verified. A part of the request that
// cannot be read does not hide the tokens in other parts. A body without the
// fields of [Authenticator.RefreshRequest] is searched for anything that
// looks like a token, whatever its content type.
//
// If the origin of the request is not trusted ([Verifier.CheckOrigin]) and a
// cookie contains a token that this service signed, even an expired one,
// RequestTokens returns [ErrCrossOrigin]. It also does if there are no other
// tokens. Otherwise it ignores the cookies, and byCookie is false, so that they
// are not cleared.
func (a *Authenticator) RequestTokens(r *http.Request) (tokens []string, byCookie bool, err error) {
	fromBody, err := bodyTokens(r)
	if errors.Is(err, errTooLarge) {
		return nil, false, err
	}
	var list tokenList
	for _, value := range fromBody {
		list.add(value)
	}
	if err != nil || list == nil {
		list = searchTokens(r)
	}
	tokens = list
	places := slices.Clone(a.extractors)
	places = append(places, Extractor{inHeader, "Refresh-Token"})
	for _, e := range places {
		list = nil
		for _, value := range e.findAll(r) {
			list.add(value)
		}
		tokens = append(tokens, list...)
	}
	if a.cookies == nil {
		return tokens, false, nil
	}
	fromCookies := a.CookieTokens(r)
	if refused := a.checkCrossOrigin(r); refused != nil {
		for _, value := range fromCookies {
			switch _, _, err := a.sessionOf(r.Context(), value); {
			case err == nil:
				return nil, true, refused
			case errors.Is(err, ErrUnavailable):
				return nil, true, err
			}
		}
		if len(tokens) == 0 {
			return nil, false, refused
		}
		return tokens, false, nil
	}
	byCookie = len(r.CookiesNamed(a.cookies.access.Name)) > 0 || len(r.CookiesNamed(a.cookies.refresh.Name)) > 0
	return append(tokens, fromCookies...), byCookie, nil
}

// searchTokens returns everything that looks like a token in a body without the
// expected fields, for example because it is malformed or does not match its
// Content-Type. If an earlier handler has parsed the body, it returns the
// fields of the form as well. Every token of this package begins with "eyJ",
// the start of a JSON object in base64. Names of hosts and files may also have
// two dots, but do not begin like that.
func searchTokens(r *http.Request) (list tokenList) {
	for _, name := range []string{"refresh_token", "refreshToken"} {
		for _, value := range r.PostForm[name] {
			list.add(value)
		}
	}
	body, _ := readBody(r)
	for _, word := range strings.FieldsFunc(string(body), func(c rune) bool {
		return c != '.' && c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	}) {
		if strings.HasPrefix(word, "eyJ") && strings.Count(word, ".") == 2 {
			list.add(word)
		}
	}
	return list
}
