package auth

import (
	"bytes"
	"context"
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
func (a *Authenticator) refreshTokenOf(r *http.Request, list []carried) (token string, cookie bool, err error) {
	var chosen carried
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
func (a *Authenticator) carriedRefreshCookies(r *http.Request) (list []carried) {
	values := a.refreshCookies(r)
	if len(values) < 2 {
		for _, value := range values {
			list = append(list, carried{token: value, by: byCookie})
		}
		return list
	}
	for _, value := range values {
		if a.isRefreshToken(r.Context(), value) {
			list = addCarried(list, value, byCookie, len(list)+1)
		}
	}
	if list == nil {
		list = append(list, carried{token: values[0], by: byCookie})
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
func (a *Authenticator) chooseRefresh(ctx context.Context, list []carried) (carried, error) {
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
			_, t.err = a.revoked.check(c.times(), now)
		}
		if t.err == nil {
			sessions[t.whose] = true
		}
	}
	if len(sessions) > 1 {
		if err := a.leaveOutEnded(ctx, list, sessions); err != nil {
			return carried{}, err
		}
	}
	return choose(list)
}

// leaveOutEnded asks the store which sessions are there: that a session was
// revoked is known here only for as long as its access tokens might live, which
// is less than its refresh tokens do.
func (a *Authenticator) leaveOutEnded(ctx context.Context, list []carried, sessions map[sessionKey]bool) error {
	if len(sessions) > maxVerified {
		return errTwoSessions
	}
	for s := range sessions {
		alive, err := a.sessionAlive(ctx, s.subject, s.id)
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
// unverified, for SignIn.Replaces of a login whose tokens go into cookies.
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
			switch _, _, err := a.whose(r.Context(), value); {
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

// ReadFields returns the named fields of a request's body, JSON or a form, as
// far as they are there: at most 16 KiB, and each named field once, as text in
// UTF-8. Other fields are ignored. The body may be read again. It is for login
// handlers of one's own; [AnswerTo] knows its errors.
func ReadFields(r *http.Request, names ...string) (map[string]string, error) {
	kind := r.Header.Get("Content-Type")
	known := true
	if kind != typeJSON && kind != typeForm {
		parsed, params, err := mime.ParseMediaType(kind)
		charset := strings.ToLower(params["charset"])
		kind, known = parsed, err == nil && (charset == "" || charset == "utf-8" || charset == "utf8")
	}
	if len(r.PostForm) > 0 && known && kind == typeForm { // somebody outside has read the body
		return formFields(r.PostForm, names)
	}
	body, err := readBody(r)
	body = bytes.TrimPrefix(body, []byte("\ufeff")) // some clients begin with a byte order mark
	switch {
	case err != nil || len(body) == 0:
		return nil, err
	case known && kind == typeJSON:
		return jsonFields(body, names)
	case known && kind == typeForm:
		form, err := parseForm(string(body), names)
		if err != nil {
			return nil, err
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

// parseForm takes a form apart. Only what cannot be read of the named fields is
// an error, or if nothing can.
func parseForm(body string, names []string) (url.Values, error) {
	form := url.Values{}
	readable := false
	var err error
	readPairs(body, func(key, value string, ok bool) {
		readable = readable || ok
		if !slices.Contains(names, key) {
			return
		}
		if form.Add(key, value); !ok {
			err = requestError("field " + key + " of the form cannot be read")
		}
	})
	if !readable {
		err = requestError("the body is not a form")
	}
	return form, err
}

// formFields returns the named fields. What the others hold does not matter.
func formFields(form url.Values, names []string) (map[string]string, error) {
	fields := map[string]string{}
	for _, name := range names {
		values := form[name]
		switch {
		case len(values) == 0:
		case len(values) > 1 || !utf8.ValidString(values[0]):
			return nil, requestError("field " + name + " of the form is there twice or is not UTF-8")
		default:
			fields[name] = values[0]
		}
	}
	return fields, nil
}
