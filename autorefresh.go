package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// refreshPage answers a page load whose access cookie is absent or expired by
// a redirect to itself with new cookies. It reports whether it answered; if
// not, and a refresh was refused, it says why.
func (a *Authenticator) refreshPage(w http.ResponseWriter, r *http.Request, err error) (done bool, reason error) {
	if !a.autoRefresh || !errors.Is(err, ErrNoToken) && !errors.Is(err, ErrTokenExpired) ||
		r.Method != http.MethodGet && r.Method != http.MethodHead || isUpgrade(r) {
		return false, nil
	}
	inHeader := func(t credential) bool { return t.by&byHeader != 0 }
	if list, unreadable := a.carriedAccess(r, nil); unreadable != nil || slices.ContainsFunc(list, inHeader) {
		return false, nil // a token in a header: a program, that does this itself
	}
	token, _, err := a.refreshTokenOf(r, a.carriedRefreshCookies(r))
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
		err = grant.error // a page was asked for, not a grant
		if errors.Is(err, ErrTokenExpired) {
			// It was the refresh token: there is nothing left to refresh.
			err = fmt.Errorf("%w: it was not refreshed in time", ErrSessionRevoked)
		}
	}
	return false, err
}

// selfURL returns a reference to the URL of r that is relative to the one that
// the client used, whatever was stripped or rewritten here; "./" before it, so
// that it can be nothing but a path.
func selfURL(r *http.Request) string {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil { // a request that came over no wire
		u = r.URL
	}
	path := u.EscapedPath()
	location := "./" + path[strings.LastIndexByte(path, '/')+1:]
	if u.RawQuery != "" {
		location += "?" + u.RawQuery
	}
	return location
}
