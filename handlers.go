package auth

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// maxBody bounds the body of a request to an endpoint.
const maxBody = 16 << 10

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
	return mux
}

// only answers requests of other methods than those named.
func (a *Authenticator) only(h http.HandlerFunc, methods ...string) http.Handler {
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
	return a.only(func(w http.ResponseWriter, r *http.Request) {
		f, err := readFields(r)
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		login, err1 := f.oneOf("login", "username", "email", "login_id")
		pass, err2 := f.oneOf("password")
		name, err3 := f.text("device")
		byCookie, err4 := a.delivery(f)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			a.WriteError(w, r, err)
			return
		}
		in := SignIn{Device: a.Device(r), Name: name}
		if byCookie {
			if err := a.CheckOrigin(r); err != nil {
				a.WriteError(w, r, err)
				return
			}
			in.Replaces, _, _ = a.RefreshToken(r) // none, or none that counts
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
func (a *Authenticator) delivery(f fields) (byCookie bool, err error) {
	wish, err := f.text("delivery")
	switch {
	case err != nil:
		return false, err
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
	return a.only(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Refresh-Token")
		token, byCookie, err := a.RefreshToken(r)
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		t, err := a.Refresh(r.Context(), token, a.Device(r))
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		a.WriteTokens(w, t, byCookie)
	}, http.MethodPost)
}

// LogoutHandler answers POST by ending the session of every token that the
// request carries where this package looks, and clears the cookies. It succeeds
// also when the session is long gone or no token is valid.
func (a *Authenticator) LogoutHandler() http.Handler {
	return a.only(func(w http.ResponseWriter, r *http.Request) {
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
	return a.only(func(w http.ResponseWriter, r *http.Request) {
		a.setVary(w.Header())
		c, err := a.Authenticate(r)
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
		if except == nil && a.cookies.sends(r) {
			a.ClearCookies(w)
		}
		writeNothing(w)
	}, http.MethodPost)
}

// SessionsHandler answers, with an access token, GET by listing its user's
// sessions, and DELETE by ending the one that the path value "id" names.
func (a *Authenticator) SessionsHandler() http.Handler {
	list := a.only(a.listSessions, http.MethodGet, http.MethodHead)
	end := a.only(a.endSession, http.MethodDelete)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") == "" {
			list.ServeHTTP(w, r)
		} else {
			end.ServeHTTP(w, r)
		}
	})
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

func (a *Authenticator) listSessions(w http.ResponseWriter, r *http.Request) {
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
	c, err := a.Authenticate(r)
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
	if id == c.SessionID && a.cookies.sends(r) {
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
	body := struct {
		Access           string `json:"access_token,omitempty"`
		Type             string `json:"token_type"`
		ExpiresIn        int64  `json:"expires_in"`
		Refresh          string `json:"refresh_token,omitempty"`
		RefreshExpiresIn int64  `json:"refresh_expires_in"`
		SessionID        string `json:"session_id"`
	}{t.Access, "Bearer", secondsLeft(t.AccessExpiresAt, now), t.Refresh, secondsLeft(t.RefreshExpiresAt, now), t.SessionID}
	if byCookie {
		a.SetCookies(w, t)
		body.Access, body.Refresh = "", ""
	}
	writeJSON(w, http.StatusOK, body)
}

// secondsLeft counts from the second that has begun, as tokens do.
func secondsLeft(until, now time.Time) int64 {
	return max(0, until.Unix()-now.Unix())
}

func writeNothing(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// RefreshToken returns the refresh token that the request carries, unverified,
// and whether it came by cookie: from the refresh cookie, the header
// Refresh-Token, or "refresh_token" or "refreshToken" in the body, which may be
// read again afterwards. It is never taken from the URL. A cookie from an
// origin that is not trusted is refused here.
//
// The error is [ErrNoToken], [ErrInvalidRequest] for tokens that differ or a
// body that cannot be read, or [ErrCrossOrigin].
func (a *Authenticator) RefreshToken(r *http.Request) (token string, byCookie bool, err error) {
	fromCookie, err := a.refreshCookie(r)
	if err != nil {
		return "", false, err
	}
	fromHeader, err := onlyOne(r.Header["Refresh-Token"])
	if err != nil {
		return "", false, err
	}
	fromBody, err := bodyTokens(r)
	if err != nil {
		return "", false, err
	}
	for _, found := range append([]string{fromCookie, fromHeader}, fromBody...) {
		switch {
		case found == "":
		case token == "":
			token = found
		case found != token:
			return "", false, requestError("two refresh tokens that differ")
		}
	}
	if token == "" {
		return "", false, grantError{ErrNoToken}
	}
	if fromCookie != "" {
		if err := a.CheckOrigin(r); err != nil {
			return "", true, err
		}
	}
	return token, fromCookie != "", nil
}

// refreshCookie returns the refresh cookie; of several of one session the
// newest.
func (a *Authenticator) refreshCookie(r *http.Request) (string, error) {
	if a.cookies == nil {
		return "", nil
	}
	return pickCookie(r, a.cookies.refresh.Name, func(token string) (sessionKey, int64, error) {
		c, err := a.openRefresh(r.Context(), token)
		if err == nil {
			err = a.lives(c.times(), c.expiresAt)
		}
		return sessionKey{c.subject, c.sid}, c.generation, err
	})
}

// bodyTokens returns the refresh tokens in the body.
func bodyTokens(r *http.Request) ([]string, error) {
	f, err := readFields(r)
	if err != nil {
		return nil, err
	}
	snake, err1 := f.text("refresh_token")
	camel, err2 := f.text("refreshToken")
	return []string{snake, camel}, errors.Join(err1, err2)
}

// RequestTokens returns every token in the request, of either kind and
// unverified, for [Authenticator.Logout], and whether one came by cookie. A
// request from an origin that is not trusted is refused if it carries a cookie
// or nothing at all.
func (a *Authenticator) RequestTokens(r *http.Request) (tokens []string, byCookie bool, err error) {
	tokens, err = bodyTokens(r)
	if err != nil {
		return nil, false, err
	}
	headers := r.Header["Refresh-Token"]
	tokens = append(tokens, headers[:min(len(headers), maxSameCookies)]...)
	for _, e := range a.extractors {
		if e.place == inCookie {
			continue
		}
		found, err := e.find(a.Verifier, r)
		if err != nil {
			return nil, false, err
		}
		tokens = append(tokens, found)
	}
	if a.cookies != nil {
		for _, name := range []string{a.cookies.access.Name, a.cookies.refresh.Name} {
			same := r.CookiesNamed(name)
			for _, c := range same[:min(len(same), maxSameCookies)] {
				byCookie = true
				tokens = append(tokens, c.Value)
			}
		}
	}
	tokens = slices.DeleteFunc(tokens, func(t string) bool { return t == "" })
	if byCookie || len(tokens) == 0 {
		if err := a.CheckOrigin(r); err != nil {
			return nil, byCookie, err
		}
	}
	return tokens, byCookie, nil
}

// fields are the members of a body: strings, or nil for what is none.
type fields map[string]*string

// text returns a field, or "" if it is not there.
func (f fields) text(name string) (string, error) {
	v, ok := f[name]
	if ok && v == nil {
		return "", requestError(name + " is not a string")
	}
	if !ok {
		return "", nil
	}
	return *v, nil
}

// oneOf returns the field that is there under one of the names.
func (f fields) oneOf(names ...string) (string, error) {
	value := ""
	for _, name := range names {
		v, err := f.text(name)
		switch {
		case err != nil:
			return "", err
		case v == "":
		case value != "":
			return "", requestError("give one of " + strings.Join(names, ", "))
		default:
			value = v
		}
	}
	if value == "" {
		return "", requestError(names[0] + " is missing")
	}
	return value, nil
}

// readFields reads a body of JSON or of a form, each field once, and puts it
// back, so that it may be read again.
func readFields(r *http.Request) (fields, error) {
	if len(r.PostForm) > 0 { // somebody outside has read the body already
		return formFields(r.PostForm)
	}
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > maxBody {
		return nil, errTooLarge
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, requestError("the body cannot be read")
	}
	if len(body) > maxBody {
		return nil, errTooLarge
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if len(body) == 0 {
		return nil, nil
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if charset := params["charset"]; err != nil || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return nil, errContentType
	}
	switch kind {
	case "application/json":
		return readJSONFields(body)
	case "application/x-www-form-urlencoded":
		return readFormFields(body)
	}
	return nil, errContentType
}

func readJSONFields(body []byte) (fields, error) {
	f := fields{}
	err := readObject(string(body), func(name, value string) error {
		switch text, ok := jsonString(value); {
		case ok:
			f[name] = &text
		case value != "null":
			f[name] = nil
		}
		return nil
	})
	if err != nil {
		return nil, requestError("the body: " + err.Error())
	}
	return f, nil
}

func readFormFields(body []byte) (fields, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, requestError("the body is not a form")
	}
	return formFields(form)
}

func formFields(form url.Values) (fields, error) {
	f := fields{}
	for name, values := range form {
		if len(values) > 1 || !utf8.ValidString(values[0]) {
			return nil, requestError("a field of the form is there twice or is not UTF-8")
		}
		f[name] = &values[0]
	}
	return f, nil
}
