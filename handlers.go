package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxListed is how many sessions the endpoint lists.
const maxListed = 100

// Handler returns all endpoints, for mounting under a prefix:
//
//	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
//
// They are POST /login, /refresh, /logout and /logout/all, GET /sessions,
// DELETE /sessions/{id} and GET /jwks.json; each is a handler by itself too.
func (a *Authenticator) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/login", a.LoginHandler())
	mux.Handle("/refresh", a.RefreshHandler())
	mux.Handle("/logout", a.LogoutHandler())
	mux.Handle("/logout/all", a.LogoutAllHandler())
	mux.Handle("/sessions", a.SessionsHandler())
	mux.Handle("/sessions/{id}", a.SessionsHandler())
	mux.Handle("/jwks.json", a.JWKSHandler())
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { a.WriteError(w, r, errEndpoint) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = rooted(r)
		if path.Clean(r.URL.Path) != r.URL.Path {
			a.WriteError(w, r, errEndpoint)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// rooted returns a request whose path begins with a slash, which a prefix that
// ends in one has taken away, and is spelled in one way only. ServeMux redirects
// from every path that is not rooted and clean, as it is escaped: out of the
// prefix that was stripped, and the body with the password along with it.
func rooted(r *http.Request) *http.Request {
	p := r.URL.Path
	if strings.HasPrefix(p, "/") && r.URL.RawPath == "" {
		return r
	}
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	r2, u := *r, *r.URL
	u.Path, u.RawPath = p, ""
	r2.URL = &u
	return &r2
}

// methods answers requests of other methods than those named.
func (a *Authenticator) methods(h http.HandlerFunc, methods ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(methods, r.Method) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			a.WriteError(w, r, errMethod)
			return
		}
		if a.cookies != nil {
			w.Header().Add("Vary", "Cookie")
		}
		h(w, r)
	})
}

// LoginHandler answers POST with "login" (or "username", "email" or
// "login_id"), "password", and if wanted "device", the name that the user gives
// it, and "delivery", "cookie" or "body", as JSON or as a form. Tokens go as
// Config.Cookies says.
func (a *Authenticator) LoginHandler() http.Handler {
	return a.methods(func(w http.ResponseWriter, r *http.Request) {
		f, err := ReadFields(r, "login", "username", "email", "login_id", "password", "device", "delivery")
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		login, err1 := oneOf(f, "login", "username", "email", "login_id")
		pass, err2 := oneOf(f, "password")
		byCookie, err3 := a.delivery(f["delivery"])
		if err := errors.Join(err1, err2, err3); err != nil {
			a.WriteError(w, r, err)
			return
		}
		in := SessionOptions{Device: a.Device(r), Name: f["device"], InBody: !byCookie}
		if byCookie {
			if err := a.CheckOrigin(r); err != nil {
				a.WriteError(w, r, err)
				return
			}
			in.Replaces = a.CookieTokens(r)
		}
		t, err := a.Login(r.Context(), login, pass, in)
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		a.WriteTokens(w, t, byCookie)
	}, http.MethodPost)
}

// delivery reports whether the tokens of a login go into cookies.
func (a *Authenticator) delivery(wish string) (byCookie bool, err error) {
	switch {
	case wish == "":
		return a.cookies != nil, nil
	case wish == "cookie" && a.cookies != nil:
		return true, nil
	case wish == "body" && (a.cookies == nil || a.cookies.allowBody):
		return false, nil
	}
	return false, requestError("this delivery is not offered")
}

// RefreshHandler answers POST with a refresh token; see
// [Authenticator.RefreshToken] for where it is looked for. Tokens leave by the
// door they came in.
func (a *Authenticator) RefreshHandler() http.Handler {
	return a.methods(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Refresh-Token")
		token, byCookie, err := a.RefreshToken(r)
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		t, err := a.Refresh(r.Context(), token, RefreshOptions{Device: a.Device(r), InBody: !byCookie})
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		if t.presented && !slices.Contains(a.refreshCookies(r), token) {
			t.presented = false // the cookie that came along is of an earlier generation
		}
		a.WriteTokens(w, t, byCookie)
	}, http.MethodPost)
}

// LogoutHandler answers POST by ending the session of every token that the
// request carries where this package looks, and clears the cookies. It succeeds
// also when the session is long gone or no token is valid.
func (a *Authenticator) LogoutHandler() http.Handler {
	return a.methods(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Refresh-Token")
		a.setVary(w.Header())
		tokens, byCookie, err := a.RequestTokens(r)
		if err == nil {
			err = a.Logout(r.Context(), tokens...)
		}
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		if byCookie || len(tokens) == 0 {
			a.ClearCookies(w)
		}
		writeNothing(w)
	}, http.MethodPost)
}

// LogoutAllHandler answers POST, with an access token, by ending all sessions
// of its user; with ?others=true, all but this one.
func (a *Authenticator) LogoutAllHandler() http.Handler {
	return a.methods(func(w http.ResponseWriter, r *http.Request) {
		a.setVary(w.Header())
		c, byCookie, err := a.claimsOf(r)
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		var except []string
		query, err := url.ParseQuery(r.URL.RawQuery)
		others := query["others"]
		switch {
		case err == nil && len(others) == 0, err == nil && len(others) == 1 && others[0] == "false":
		case err == nil && len(others) == 1 && others[0] == "true":
			except = []string{c.SessionID}
		default: // do not end more than was meant
			a.WriteError(w, r, requestError("others is neither true nor false"))
			return
		}
		if err := a.RevokeAll(r.Context(), c.Subject, except...); err != nil {
			a.WriteError(w, r, err)
			return
		}
		if byCookie && except == nil {
			a.ClearCookies(w)
		}
		writeNothing(w)
	}, http.MethodPost)
}

// SessionsHandler answers, with an access token, GET by listing its user's
// sessions, and DELETE by ending the one that the path value "id" names.
func (a *Authenticator) SessionsHandler() http.Handler {
	list := a.methods(a.writeSessions, http.MethodGet, http.MethodHead)
	end := a.methods(a.endSession, http.MethodDelete)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") == "" {
			list.ServeHTTP(w, r)
		} else {
			end.ServeHTTP(w, r)
		}
	})
}

// claimsOf is Authenticate for what ends the session. Afterwards it could not
// be told any more how the token came. cookie says that a cookie that counts
// came along, and is to be cleared.
func (a *Authenticator) claimsOf(r *http.Request) (c *Claims, cookie bool, err error) {
	chosen, err := a.accessToken(r)
	if err == nil {
		c, err = a.Verify(r.Context(), chosen.token)
	}
	return c, chosen.by&byCookie != 0, err
}

type listedSession struct {
	ID         string     `json:"id"`
	Name       string     `json:"name,omitempty"`
	UserAgent  string     `json:"user_agent,omitempty"`
	IP         netip.Addr `json:"ip,omitzero"`
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt time.Time  `json:"last_used_at"`
	ExpiresAt  time.Time  `json:"expires_at"`
	Current    bool       `json:"current"`
}

func (a *Authenticator) writeSessions(w http.ResponseWriter, r *http.Request) {
	a.setVary(w.Header())
	c, err := a.Authenticate(r)
	if err != nil {
		a.WriteError(w, r, err)
		return
	}
	sessions, err := a.Sessions(r.Context(), c.Subject)
	if err != nil {
		a.WriteError(w, r, err)
		return
	}
	list := []listedSession{}
	for _, s := range sessions[:min(len(sessions), maxListed)] {
		list = append(list, listedSession{
			s.ID, s.Name(), s.Device.UserAgent, s.Device.IP, s.CreatedAt, s.RotatedAt, s.ExpiresAt, s.ID == c.SessionID,
		})
	}
	writeJSON(w, http.StatusOK, map[string]any{"sessions": list})
}

func (a *Authenticator) endSession(w http.ResponseWriter, r *http.Request) {
	a.setVary(w.Header())
	c, byCookie, err := a.claimsOf(r)
	if err != nil {
		a.WriteError(w, r, err)
		return
	}
	sessions, err := a.Sessions(r.Context(), c.Subject)
	id := r.PathValue("id")
	if err == nil && !slices.ContainsFunc(sessions, func(s Session) bool { return s.ID == id }) {
		err = ErrSessionNotFound
	}
	if err == nil {
		err = a.Revoke(r.Context(), c.Subject, id)
	}
	if err != nil {
		a.WriteError(w, r, err)
		return
	}
	if byCookie && id == c.SessionID {
		a.ClearCookies(w)
	}
	writeNothing(w)
}

// WriteTokens answers a request with t: by cookies, and a body with all but
// the tokens, or in the body alone. The body is JSON with "access_token",
// "token_type", "expires_in", "refresh_token", "refresh_expires_in" (seconds,
// RFC 6749 section 5.1) and "session_id".
func (a *Authenticator) WriteTokens(w http.ResponseWriter, t Tokens, byCookie bool) {
	now := a.now()
	if byCookie {
		a.SetCookies(w, t)
		t.Access, t.Refresh = "", ""
	}
	b := make([]byte, 0, 192+len(t.Access)+len(t.Refresh)+len(t.SessionID))
	b = append(b, '{')
	if t.Access != "" {
		b = appendJSONString(append(b, `"access_token":`...), t.Access)
		b = append(b, ',')
	}
	b = append(b, `"token_type":"Bearer","expires_in":`...)
	b = strconv.AppendInt(b, secondsLeft(t.AccessExpiresAt, now), 10)
	if t.Refresh != "" {
		b = appendJSONString(append(b, `,"refresh_token":`...), t.Refresh)
	}
	b = append(b, `,"refresh_expires_in":`...)
	b = strconv.AppendInt(b, secondsLeft(t.RefreshExpiresAt, now), 10)
	b = appendJSONString(append(b, `,"session_id":`...), t.SessionID)
	writeBody(w, &headerSetter{h: w.Header()}, http.StatusOK, append(b, '}'))
}

// secondsLeft counts from the second that has begun, as tokens do.
func secondsLeft(until, now time.Time) int64 {
	return max(0, until.Unix()-now.Unix())
}

func writeNothing(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// JWKSHandler answers GET with the public keys that access tokens may be
// signed by, now or as soon as a cache of this answer has run out (RFC 7517
// section 5). Secrets never appear. It is in [Authenticator.Handler] as
// /jwks.json; other services also look for it at /.well-known/jwks.json.
func (a *Authenticator) JWKSHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			a.WriteError(w, r, errMethod)
			return
		}
		set := struct {
			Keys []jwk `json:"keys"`
		}{[]jwk{}}
		for _, k := range a.accessKeys.ring.Load().usable() {
			if k.public != nil {
				entry := publicJWK(k.public)
				entry.Alg, entry.Kid, entry.Use = k.alg, k.ID(), "sig"
				set.Keys = append(set.Keys, entry)
			}
		}
		body, _ := json.Marshal(set) // strings cannot fail
		sum := sha256.Sum256(body)
		tag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
		h := w.Header()
		h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(a.jwksMaxAge/time.Second)))
		h.Set("ETag", tag)
		h.Set("X-Content-Type-Options", "nosniff")
		if matches(r.Header.Values("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", "application/json; charset=utf-8")
		_, _ = w.Write(append(body, '\n')) // the client may be gone: there is nobody to tell
	})
}

// matches reports whether an If-None-Match names the tag (RFC 9110 section
// 13.1.2).
func matches(headers []string, tag string) bool {
	for _, header := range headers {
		for t := range strings.SplitSeq(header, ",") {
			if t = strings.TrimPrefix(strings.TrimSpace(t), "W/"); t == tag || t == "*" {
				return true
			}
		}
	}
	return false
}
