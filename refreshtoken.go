package auth

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
)

// RefreshToken returns the refresh token that the request carries, and whether
// the answer goes by cookie: from the refresh cookie, the header
// Refresh-Token, or "refresh_token" or "refreshToken" in the body, which may be
// read again afterwards. It is never taken from the URL.
//
// One token is not verified. Of several that differ, those that do not verify
// do not count, and of those of one session the one of the highest generation
// is returned. If a cookie that counts came along, its origin is checked here,
// and the answer goes by cookie.
//
// The error is [ErrNoToken], [ErrInvalidRequest] for tokens of two sessions or
// a body that cannot be read and stands alone, [ErrCrossOrigin], or
// [ErrUnavailable] if it cannot be said which of several counts.
func (a *Authenticator) RefreshToken(r *http.Request) (token string, byCookie bool, err error) {
	list := a.carriedRefreshCookies(r)
	room := len(list) + maxVerified
	for _, value := range r.Header["Refresh-Token"] {
		list = addCarried(list, value, byHeader, room)
	}
	fromBody, err := bodyTokens(r)
	if errors.Is(err, errTooLarge) || err != nil && len(list) == 0 {
		return "", false, err
	}
	for _, value := range fromBody {
		list = addCarried(list, value, byHeader, len(list)+1)
	}
	return a.refreshTokenOf(r, list)
}

// refreshTokenOf returns the token that counts.
func (a *Authenticator) refreshTokenOf(r *http.Request, list []credential) (token string, cookie bool, err error) {
	var chosen credential
	switch len(list) {
	case 0:
		return "", false, grantError{ErrNoToken}
	case 1:
		chosen = list[0]
	default:
		if chosen, err = a.chooseRefresh(r.Context(), list); err != nil {
			return "", false, err
		}
	}
	if cookie = chosen.by&byCookie != 0; cookie {
		if err := a.CheckOrigin(r); err != nil {
			return "", true, err
		}
	}
	return chosen.token, cookie, nil
}

// carriedRefreshCookies returns the tokens in the cookies of that name: all
// that were signed here, since an HMAC is cheap to check, or else one that was
// not.
func (a *Authenticator) carriedRefreshCookies(r *http.Request) (list []credential) {
	values := a.refreshCookies(r)
	if len(values) < 2 {
		for _, value := range values {
			list = append(list, credential{token: value, by: byCookie})
		}
		return list
	}
	for _, value := range values {
		if a.isRefreshToken(r.Context(), value) {
			list = addCarried(list, value, byCookie, len(list)+1)
		}
	}
	if list == nil {
		list = append(list, credential{token: values[0], by: byCookie})
	}
	return list
}

// isRefreshToken reports whether a token was signed here as a refresh token, or
// that cannot be said.
func (a *Authenticator) isRefreshToken(ctx context.Context, token string) bool {
	c, err := a.openRefresh(ctx, token)
	return c.sid != "" || errors.Is(err, ErrUnavailable)
}

// refreshSessions returns the sessions of the refresh cookies that were signed
// here, dead or not.
func (a *Authenticator) refreshSessions(r *http.Request) (sessions []sessionKey) {
	for _, value := range a.refreshCookies(r) {
		if c, _ := a.openRefresh(r.Context(), value); c.sid != "" {
			sessions = append(sessions, sessionKey{c.subject, c.sid})
		}
	}
	return sessions
}

// refreshCookies returns the values of the cookies of that name.
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

// chooseRefresh verifies refresh tokens that differ, and chooses among them.
func (a *Authenticator) chooseRefresh(ctx context.Context, list []credential) (credential, error) {
	now := a.now()
	sessions := map[sessionKey]bool{}
	for i := range list {
		t := &list[i]
		var c refreshClaims
		c, t.err = a.openRefresh(ctx, t.token)
		if c.sid == "" {
			continue
		}
		t.whose, t.rank = sessionKey{c.subject, c.sid}, c.generation
		if errors.As(t.err, new(newerToken)) {
			t.err = nil // it verifies; another process will refresh it
		}
		if t.err == nil && !now.Before(a.refreshEnd(&c)) {
			t.err = ErrTokenExpired
		}
		if t.err == nil {
			_, t.err = a.revoked.find(c.times(), now)
		}
		if t.err == nil {
			sessions[t.whose] = true
		}
	}
	if len(sessions) > 1 {
		if err := a.leaveOutEnded(ctx, list, sessions); err != nil {
			return credential{}, err
		}
	}
	return choose(list)
}

// leaveOutEnded asks the store which sessions are there: that a session was
// revoked is known here only for as long as its access tokens might live, which
// is less than its refresh tokens do.
func (a *Authenticator) leaveOutEnded(ctx context.Context, list []credential, sessions map[sessionKey]bool) error {
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
		if t := &list[i]; t.err == nil && !sessions[t.whose] {
			t.err = ErrSessionRevoked
		}
	}
	return nil
}

// bodyTokens returns the refresh tokens in the body.
func bodyTokens(r *http.Request) ([]string, error) {
	f, err := ReadFields(r, "refresh_token", "refreshToken")
	return []string{f["refresh_token"], f["refreshToken"]}, err
}

// CookieTokens returns the tokens in the access and refresh cookies,
// unverified, for SessionOptions.Replaces of a login whose tokens go into cookies.
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
		// The good one must not be hidden behind others.
		if len(values) > maxVerified && a.isRefreshToken(r.Context(), value) {
			refresh = append(refresh, value)
		} else {
			other.add(value)
		}
	}
	return slices.Concat(access, other, refresh)
}

// tokenList holds tokens of one place whose check may be dear: a few that
// differ.
type tokenList []string

func (l *tokenList) add(token string) {
	if token != "" && len(*l) < maxVerified && !slices.Contains(*l, token) {
		*l = append(*l, token)
	}
}

// RequestTokens returns every token in the request, of either kind and
// unverified, for [Authenticator.Logout], and whether a cookie came along. What
// cannot be read does not hide the others: a body without the fields of
// [Authenticator.RefreshToken], whatever it says that it is, is searched for what
// has the shape of a token.
//
// A request from an origin that is not trusted is refused if it carries a
// cookie that was signed here, expired or not, or nothing else at all.
// Otherwise its cookies do not count, and are not to be cleared.
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
	if refused := a.CheckOrigin(r); refused != nil {
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

// searchTokens returns what has the shape of a token in a body that cannot be
// read or is not what it says, such as JSON that is sent as a form, or in the
// form that somebody outside made of it. What begins as every token of ours does
// is one; names of hosts and files, which may have two dots as well, are not.
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

// oneOf returns the field that is there under one of the names.
func oneOf(fields map[string]string, names ...string) (string, error) {
	value := ""
	for _, name := range names {
		switch {
		case fields[name] == "":
		case value != "":
			return "", requestError("give one of " + strings.Join(names, ", "))
		default:
			value = fields[name]
		}
	}
	if value == "" {
		return "", requestError(names[0] + " is missing")
	}
	return value, nil
}
