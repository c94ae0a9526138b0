package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// refreshPage refreshes the tokens of a page load whose access cookie is absent
// or has expired, sets the new cookies, and redirects to the same URL. It
// reports whether it has responded. If not, reason is the error of a refresh
// that was refused, or nil.
func (a *Authenticator) refreshPage(w http.ResponseWriter, r *http.Request, err error) (done bool, reason error) {
	if !a.autoRefresh || !errors.Is(err, ErrNoToken) && !errors.Is(err, ErrTokenExpired) ||
		r.Method != http.MethodGet && r.Method != http.MethodHead || isUpgrade(r) {
		return false, nil
	}
	inHeader := func(t credential) bool { return t.by&byHeader != 0 }
	if list, unreadable := a.accessCredentials(r, nil); unreadable != nil || slices.ContainsFunc(list, inHeader) {
		return false, nil // a client that sets the header refreshes itself
	}
	token, _, err := a.refreshTokenOf(r, a.refreshCookieCredentials(r))
	if errors.Is(err, ErrNoToken) {
		return false, nil
	}
	var t Tokens
	if err == nil {
		t, err = a.Refresh(r.Context(), token, RefreshOptions{Device: a.Device(r)})
	}
	switch {
	case err == nil:
		a.SetCookies(w, t)
		w.Header().Set("Location", selfURL(r))
		w.WriteHeader(http.StatusTemporaryRedirect)
		return true, nil
	case ResponseFor(err).Status >= 500:
		a.WriteError(w, r, err)
		return true, nil
	}
	var grant grantError
	if errors.As(err, &grant) {
		err = grant.error // the client has requested a page, not a grant
		if errors.Is(err, ErrTokenExpired) {
			// The refresh token has expired, so the client must sign in.
			err = fmt.Errorf("%w: not refreshed in time", ErrSessionRevoked)
		}
	}
	return false, err
}

// selfURL returns a relative reference to the URL that the client requested. It
// is correct even if a proxy has removed a prefix of the path, or a handler has
// rewritten r.URL. It begins with "./", so that it can only be a path.
func selfURL(r *http.Request) string {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil { // a request that was not read from a connection
		u = r.URL
	}
	path := u.EscapedPath()
	location := "./" + path[strings.LastIndexByte(path, '/')+1:]
	if u.RawQuery != "" {
		location += "?" + u.RawQuery
	}
	return location
}
