package auth

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
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
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path.Clean(r.URL.Path) != r.URL.Path {
			// ServeMux would redirect to the clean path, outside of the prefix
			// that was stripped, and the body with the password along with it.
			a.WriteError(w, r, errEndpoint)
			return
		}
		mux.ServeHTTP(w, r)
	})
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
		in := SignIn{Device: a.Device(r), Name: f["device"], InBody: !byCookie}
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
	return a.only(func(w http.ResponseWriter, r *http.Request) {
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
		if _, byCookie, _ := a.AccessToken(r); byCookie && except == nil {
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
	if _, byCookie, _ := a.AccessToken(r); byCookie && id == c.SessionID {
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
	f, err := ReadFields(r, "refresh_token", "refreshToken")
	return []string{f["refresh_token"], f["refreshToken"]}, err
}

// CookieTokens returns every token in the access and refresh cookies,
// unverified, for SignIn.Replaces of a login whose tokens go into cookies.
func (a *Authenticator) CookieTokens(r *http.Request) []string {
	var tokens []string
	if a.cookies != nil {
		for _, name := range []string{a.cookies.access.Name, a.cookies.refresh.Name} {
			same := r.CookiesNamed(name)
			for _, c := range same[:min(len(same), maxSameCookies)] {
				tokens = append(tokens, c.Value)
			}
		}
	}
	return tokens
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

// ReadFields returns the named fields of a request's body, JSON or a form, as
// far as they are there: at most 16 KiB of UTF-8, each field once, and those
// that are named as text. Other fields are ignored. The body may be read
// again. It is for login handlers of one's own; [AnswerTo] knows its errors.
func ReadFields(r *http.Request, names ...string) (map[string]string, error) {
	kind := r.Header.Get("Content-Type")
	known := true
	if kind != typeJSON && kind != typeForm {
		parsed, params, err := mime.ParseMediaType(kind)
		charset := params["charset"]
		kind, known = parsed, err == nil && (charset == "" || strings.EqualFold(charset, "utf-8"))
	}
	if len(r.PostForm) > 0 && known && kind == typeForm { // somebody outside has read the body
		return formFields(r.PostForm, names)
	}
	body, err := readBody(r)
	switch {
	case err != nil || len(body) == 0:
		return nil, err
	case known && kind == typeJSON:
		return jsonFields(body, names)
	case known && kind == typeForm:
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, requestError("the body is not a form")
		}
		return formFields(form, names)
	}
	return nil, errContentType
}

// Media types of bodies, as nearly everybody spells them.
const (
	typeJSON = "application/json"
	typeForm = "application/x-www-form-urlencoded"
)

// readBody reads the body and puts it back.
func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > maxBody {
		return nil, errTooLarge
	}
	body, err := readUpTo(r.Body, r.ContentLength)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) || len(body) > maxBody {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, requestError("the body cannot be read")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body, nil
}

// readUpTo reads a body until it ends, or is over the limit. Its length is what
// the client said, which need not be true.
func readUpTo(r io.Reader, length int64) ([]byte, error) {
	b := make([]byte, 0, max(length, 255)+1)
	for len(b) <= maxBody {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return b, err
		}
		if len(b) == cap(b) {
			b = slices.Grow(b, len(b))
		}
	}
	return b, nil
}

func jsonFields(body []byte, names []string) (map[string]string, error) {
	fields := map[string]string{}
	err := readObject(string(body), maxBodyMembers, func(name, value string) error {
		if !slices.Contains(names, name) || value == "null" {
			return nil
		}
		text, ok := jsonString(value)
		if !ok {
			return requestError(name + " is not a string")
		}
		fields[name] = text
		return nil
	})
	var request requestError
	if err != nil && !errors.As(err, &request) {
		err = requestError("the body: " + err.Error())
	}
	if err != nil {
		return nil, err
	}
	return fields, nil
}

func formFields(form url.Values, names []string) (map[string]string, error) {
	fields := map[string]string{}
	for name, values := range form {
		if len(values) > 1 || !utf8.ValidString(values[0]) {
			return nil, requestError("a field of the form is there twice or is not UTF-8")
		}
		if slices.Contains(names, name) {
			fields[name] = values[0]
		}
	}
	return fields, nil
}
