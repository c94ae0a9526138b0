package auth

import (
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// refreshRequest refreshes the tokens of a request whose access cookie is absent
// or has expired. cause is the error of the request. asked is the Verifier that has
// refused it: that of a, or one that AnyOf has returned, whose extractors, trusted
// origins and proxies then apply. refreshRequest does one of these:
//
//   - It sets the new cookies and redirects the client to the same URL. Then it
//     returns nil, "" and nil. It does this for GET and HEAD, once in
//     redirectInterval.
//   - It sets the new cookies, and returns the request with the new cookies, and
//     its new access token. The caller continues with them.
//   - It returns r and an error: cause if it does not apply to the request, or
//     the reason for which the refresh was refused.
//
// A GET is redirected so that the page itself, which a handler may allow caches
// to store, sets no cookies. Any other request continues, because a redirect
// with status 307 would make the browser send the body a second time, and the
// server would have to read the first one to its end: otherwise the browser sees
// a broken connection and not the redirect.
func (a *Authenticator) refreshRequest(asked *Verifier, w http.ResponseWriter, r *http.Request, cause error) (_ *http.Request, access string, _ error) {
	if a.redirects == nil || !errors.Is(cause, ErrNoToken) && !errors.Is(cause, ErrTokenExpired) ||
		r.Method == http.MethodOptions || isUpgrade(r) {
		return r, "", cause
	}
	inHeader := func(t credential) bool { return t.by&byHeader != 0 }
	if list, unreadable := asked.accessCredentials(r, nil); unreadable != nil || slices.ContainsFunc(list, inHeader) {
		return r, "", cause // a client that sets the header refreshes itself
	}
	token, _, err := a.refreshTokenOf(asked, r, a.refreshCookieCredentials(r)) // checks the origin
	if errors.Is(err, ErrNoToken) {
		return r, "", cause
	}
	redirect := false
	var key uint64
	if err == nil && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		c, _ := a.openRefresh(r.Context(), token) // Refresh returns the error
		key = a.redirects.key(c.sid, r.Host, requestURL(r).String())
		redirect = !a.redirects.has(key, a.now())
	}
	var t Tokens
	if err == nil {
		// The response to a request that continues may come minutes later, after
		// an upload, or never. By then, the refresh token in the browser would be
		// spent, and the next request with it would end the session. So such a
		// request rotates the session only if that is necessary to keep it alive.
		t, err = a.refreshWithin(r.Context(), token, RefreshOptions{Device: asked.Device(r)}, !redirect)
	}
	if err != nil {
		return r, "", pageError(err)
	}
	a.SetCookies(w, t)
	if !redirect {
		return a.withTokens(r, t), t.Access, nil
	}
	a.redirects.add(key, a.now())
	w.Header().Set("Location", selfURL(r))
	w.WriteHeader(http.StatusTemporaryRedirect)
	return nil, "", nil
}

// pageError returns the error for a request whose refresh was refused with err.
func pageError(err error) error {
	var grant grantError
	if !errors.As(err, &grant) || ResponseFor(err).Status >= 500 {
		return err
	}
	if errors.Is(err, ErrTokenExpired) {
		// The refresh token has expired, so the client must sign in.
		return fmt.Errorf("%w: not refreshed in time", ErrSessionRevoked)
	}
	return grant.error // the client has requested a page, not a grant
}

// withTokens returns a copy of r in which the cookies contain t, as if the
// client had stored it before it sent the request. So a second middleware, and a
// handler that passes the token on, find the new one.
func (a *Authenticator) withTokens(r *http.Request, t Tokens) *http.Request {
	access, refresh := a.cookies.access.Name, a.cookies.refresh.Name
	var kept []string
	for _, line := range r.Header["Cookie"] {
		for part := range strings.SplitSeq(line, ";") {
			part = strings.TrimSpace(part)
			if name, _, _ := strings.Cut(part, "="); part != "" && strings.TrimSpace(name) != access && strings.TrimSpace(name) != refresh {
				kept = append(kept, part)
			}
		}
	}
	kept = append(kept, access+"="+t.Access, refresh+"="+t.Refresh)
	r = r.WithContext(r.Context()) // a copy
	r.Header = r.Header.Clone()
	r.Header["Cookie"] = []string{strings.Join(kept, "; ")}
	return r
}

// requestURL returns the URL that the client requested, even if a proxy has
// removed a prefix of the path, or a handler has rewritten r.URL.
func requestURL(r *http.Request) *url.URL {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil { // a request that was not read from a connection
		return r.URL
	}
	return u
}

// selfURL returns a relative reference to the URL that the client requested. It
// begins with "./", so that it can only be a path.
func selfURL(r *http.Request) string {
	u := requestURL(r)
	path := u.EscapedPath()
	location := "./" + path[strings.LastIndexByte(path, '/')+1:]
	if u.RawQuery != "" {
		location += "?" + u.RawQuery
	}
	return location
}

// redirectInterval is how long a session is not redirected again to a URL to
// which it was redirected. A client that does not store cookies would otherwise
// be redirected endlessly.
const redirectInterval = time.Minute

// redirectTable has the recent redirects of this process. Each slot has the
// upper half of a key and a time. A redirect may replace that of another key,
// which then may be repeated.
type redirectTable struct {
	seed  maphash.Seed
	slots [4096]atomic.Uint64
}

func newRedirectTable() *redirectTable { return &redirectTable{seed: maphash.MakeSeed()} }

// key returns the key for a session and a URL.
func (t *redirectTable) key(sid, host, url string) uint64 {
	return maphash.String(t.seed, sid+" "+host+" "+url)
}

func (t *redirectTable) slot(key uint64) *atomic.Uint64 { return &t.slots[key%uint64(len(t.slots))] }

// has reports whether there was a redirect within redirectInterval.
func (t *redirectTable) has(key uint64, now time.Time) bool {
	value := t.slot(key).Load()
	age := uint32(now.Unix()) - uint32(value) // large for a time in the future
	return value>>32 == key>>32 && age < uint32(redirectInterval/time.Second)
}

func (t *redirectTable) add(key uint64, now time.Time) {
	t.slot(key).Store(key&^(1<<32-1) | uint64(uint32(now.Unix())))
}
