package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// maxListed is the largest number of sessions that the endpoint lists.
const maxListed = 100

// Handler returns a handler of all endpoints, to be registered under a prefix:
//
//	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
//
// The endpoints are POST /login, /login/factor, /refresh, /logout, /logout/all and
// /password, GET /sessions, DELETE /sessions/{id}, GET /jwks.json, GET /auth.js and POST
// /ticket. LoginHandler, RefreshHandler and so on return the individual endpoints.
// There is no /login/factor without Config.SecondFactor, and no /password if
// Config.Users does not implement [PasswordUpdater].
func (a *Authenticator) Handler() http.Handler {
	mux := http.NewServeMux()
	var found atomic.Bool // an endpoint has been found, so the handler is registered correctly
	endpoints := map[string]http.Handler{
		"/login":         a.LoginHandler(),
		"/login/factor":  a.LoginFactorHandler(),
		"/refresh":       a.RefreshHandler(),
		"/logout":        a.LogoutHandler(),
		"/logout/all":    a.LogoutAllHandler(),
		"/password":      a.PasswordHandler(),
		"/sessions":      a.SessionsHandler(),
		"/sessions/{id}": a.SessionsHandler(),
		"/jwks.json":     a.JWKSHandler(),
		"/auth.js":       a.ScriptHandler(),
		"/ticket":        a.TicketHandler(),
	}
	if a.updater == nil {
		delete(endpoints, "/password")
	}
	if a.factor == nil {
		delete(endpoints, "/login/factor")
	}
	for pattern, h := range endpoints {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !found.Load() {
				found.Store(true)
			}
			h.ServeHTTP(w, r)
		})
	}
	notFound := func(w http.ResponseWriter, r *http.Request) {
		a.WriteError(w, r, noEndpoint(r.URL.Path, removedPrefix(r), !found.Load()))
	}
	mux.HandleFunc("/", notFound)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = rooted(r)
		if path.Clean(r.URL.Path) != r.URL.Path {
			notFound(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// noEndpoint returns the error for a path that is not an endpoint. The response
// has advice until the first endpoint was found: after that, the handler is
// registered correctly, and the path is a mistake of the client. The event
// always has it. removed is the result of removedPrefix.
func noEndpoint(path, removed string, advise bool) error {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if at := strings.Index(s, "eyJ"); at >= 0 {
			segments[i] = s[:at] + "…" // a token
		}
	}
	path = strings.Join(segments, "/")
	text := "there is no endpoint " + cleanText(path, maxDeviceName)
	full := text
	if advice := endpointAdvice(path, removed); advice != "" {
		full += "; " + advice
	}
	if advise {
		text = full
	}
	return &describedError{fmt.Errorf("%w: %s", errEndpoint, full), text}
}

// removedPrefix returns the prefix that http.StripPrefix has removed from the
// path of a request, or "".
func removedPrefix(r *http.Request) string {
	original, err := url.ParseRequestURI(r.RequestURI)
	if err != nil {
		return ""
	}
	removed, ok := strings.CutSuffix(original.Path, r.URL.Path)
	if !ok {
		return ""
	}
	return removed
}

// endpointAdvice returns what to do about a path that is not an endpoint, or "".
func endpointAdvice(path, removed string) string {
	clean := strings.TrimRight(path, "/")
	for _, endpoint := range [...]string{"/logout/all", "/login", "/login/factor", "/refresh", "/logout", "/password", "/sessions", "/jwks.json", "/auth.js", "/ticket"} {
		prefix, ok := strings.CutSuffix(clean, endpoint)
		if endpoint == "/sessions" && !ok {
			prefix, _, ok = strings.Cut(clean, endpoint+"/")
		}
		switch {
		case ok && prefix != "" && removed != "":
			return "http.StripPrefix has removed " + cleanText(removed, maxDeviceName) + ", and must remove " + cleanText(prefix, maxDeviceName) + " too"
		case ok && prefix != "":
			return "register the handler with http.StripPrefix, and with the prefix " + cleanText(prefix, maxDeviceName)
		case path == "/password":
			return "Config.Users must implement PasswordUpdater"
		case path == "/login/factor":
			return "Config.SecondFactor is nil"
		case ok && clean != path:
			return "remove the slash at the end"
		case ok: // for example /refresh//
			return ""
		}
	}
	return "the endpoints are /login, /login/factor, /refresh, /logout, /logout/all, /password, /sessions, /sessions/{id}, /jwks.json, /auth.js and /ticket"
}

// rooted returns r with a path that begins with a slash, even if http.StripPrefix
// has removed it, and without a RawPath. Otherwise ServeMux would redirect the
// request, with the password in its body, to a path outside of the prefix.
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

// endpoint is like [Authenticator.methods]. It is for handlers that read tokens,
// and adds Vary: Cookie if tokens may be in cookies.
func (a *Authenticator) endpoint(h func(http.ResponseWriter, *http.Request) error, methods ...string) http.Handler {
	return a.methods(func(w http.ResponseWriter, r *http.Request) error {
		if a.cookies != nil {
			w.Header().Add("Vary", "Cookie")
		}
		return h(w, r)
	}, methods...)
}

// methods returns a handler that calls h for requests with one of methods, and
// responds with its error. It refuses all other requests.
func (a *Authenticator) methods(h func(http.ResponseWriter, *http.Request) error, methods ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		if slices.Contains(methods, r.Method) {
			err = h(w, r)
		} else {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			use := "; use " + strings.Join(methods, " or ")
			err = &describedError{fmt.Errorf("%w: %s%s", errMethod, quoted(r.Method), use), "the method is not allowed here" + use}
		}
		if err != nil {
			a.WriteError(w, r, err)
		}
	})
}

// LoginHandler handles POST. It reads "login" (or "username", "email" or
// "login_id") and "password", as JSON or as a form, and optionally "device",
// the name that the user gives the device, "delivery", which is "cookie" or
// "body", and "remember". The tokens are returned as Config.Cookies says.
//
// If Config.SecondFactor requires a second step, the response has status 401, and its
// body has the action "factor", a challenge and the methods ([ErrorResponse].Factor).
// LoginFactorHandler then completes the login.
//
// If "remember" is false, the session is ephemeral ([SessionOptions].Ephemeral); if
// it is true or absent, it is not. In JSON it is a boolean. In a form it is "on",
// "true", "1", "false" or "0". Since browsers send nothing for a checkbox that is not
// ticked, a form has a hidden field too; the session is not ephemeral if either is
// true:
//
//	<input type="hidden" name="remember" value="false">
//	<label><input type="checkbox" name="remember"> Remember me</label>
func (a *Authenticator) LoginHandler() http.Handler { return a.endpoint(a.login, http.MethodPost) }

func (a *Authenticator) login(w http.ResponseWriter, r *http.Request) error {
	f, err1 := readLogin(r)
	byCookie, err2 := a.delivery(f.delivery)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	t, err := a.loginWith(r, f, byCookie)
	if err != nil {
		return err
	}
	a.WriteTokens(w, t, byCookie)
	return nil
}

// LoginFactorHandler handles POST. It reads "challenge", which the client has from a
// response with the action "factor", "method" and "response", as JSON or as a form.
// It also reads "delivery", which is optional, as LoginHandler does. It responds as
// LoginHandler does. Without Config.SecondFactor the response has status 404.
func (a *Authenticator) LoginFactorHandler() http.Handler {
	return a.endpoint(a.loginFactor, http.MethodPost)
}

func (a *Authenticator) loginFactor(w http.ResponseWriter, r *http.Request) error {
	f, err := readFactor(r)
	if err != nil {
		return err
	}
	byCookie, err := a.delivery(f["delivery"])
	if err != nil {
		return err
	}
	t, err := a.loginFactorWith(r, f, byCookie)
	if err != nil {
		return err
	}
	a.WriteTokens(w, t, byCookie)
	return nil
}

// readFactor reads the fields of the second step of a login.
func readFactor(r *http.Request) (map[string]string, error) {
	f, err := ReadFields(r, "challenge", "method", "response", "delivery", "password")
	if err != nil {
		return nil, err
	}
	_, err1 := oneOf(f, "challenge")
	_, err2 := oneOf(f, "method")
	if _, ok := f["response"]; !ok {
		err = requestError("response is missing in the body")
	}
	return f, errors.Join(err1, err2, err)
}

// loginFactorWith opens a session with the fields of readFactor.
func (a *Authenticator) loginFactorWith(r *http.Request, f map[string]string, byCookie bool) (Tokens, error) {
	o, err := a.loginOptions(r, byCookie)
	if err != nil {
		return Tokens{}, err
	}
	return a.LoginFactor(r.Context(), f["challenge"], f["method"], f["response"], o)
}

// loginFields are the fields of a login.
type loginFields struct {
	login, password, device, delivery string

	ephemeral bool
	empty     bool // fields are empty that are required, and none is missing
}

func readLogin(r *http.Request) (loginFields, error) {
	f, err := readFields(r, "remember", "login", "username", "email", "login_id", "password", "device", "delivery")
	if err != nil {
		return loginFields{}, err
	}
	names := []string{"login", "username", "email", "login_id"}
	login, err1 := oneOf(f, names...)
	pass, err2 := oneOf(f, "password")
	left := func(names ...string) bool { // the form has a field, and none is filled in
		given := false
		for _, name := range names {
			value, ok := f[name]
			if value != "" {
				return false
			}
			given = given || ok
		}
		return given
	}
	empty := errors.Join(err1, err2) != nil && (err1 == nil || left(names...)) && (err2 == nil || left("password"))
	return loginFields{login, pass, f["device"], f["delivery"], f["remember"] == "false", empty}, errors.Join(err1, err2)
}

// loginWith opens a session with the fields of a login.
func (a *Authenticator) loginWith(r *http.Request, f loginFields, byCookie bool) (Tokens, error) {
	o, err := a.loginOptions(r, byCookie)
	if err != nil {
		return Tokens{}, err
	}
	o.Name, o.Ephemeral = f.device, f.ephemeral
	return a.Login(r.Context(), f.login, f.password, o)
}

// loginOptions returns the options that follow from the request of a login. If the
// tokens go into cookies, it checks the origin, and the login replaces the sessions
// of the cookies.
func (a *Authenticator) loginOptions(r *http.Request, byCookie bool) (SessionOptions, error) {
	o := SessionOptions{Device: a.Device(r), InBody: !byCookie}
	if byCookie {
		if err := a.CheckOrigin(r); err != nil {
			return SessionOptions{}, err
		}
		o.Replaces = a.CookieTokens(r)
	}
	return o, nil
}

// delivery reports whether the tokens of a login are set as cookies.
func (a *Authenticator) delivery(wish string) (byCookie bool, err error) {
	switch {
	case wish == "":
		return a.cookies != nil, nil
	case wish == "cookie" && a.cookies != nil:
		return true, nil
	case wish == "body" && (a.cookies == nil || a.cookies.allowBody):
		return false, nil
	case wish == "cookie":
		return false, requestError("this delivery is not offered: delivery is cookie, but Config.Cookies is nil")
	case wish == "body":
		return false, requestError("this delivery is not offered: delivery is body, but Cookies.AllowBody is not set")
	}
	return false, requestError(`delivery must be "cookie" or "body"`)
}

// RefreshHandler handles POST with a refresh token, and optionally a retry key
// in the header Refresh-Key. [Authenticator.RefreshRequest] says where the token
// is looked for. New tokens are returned as the old one arrived:
// as cookies if it was in a cookie, otherwise in the body.
func (a *Authenticator) RefreshHandler() http.Handler { return a.endpoint(a.refresh, http.MethodPost) }

func (a *Authenticator) refresh(w http.ResponseWriter, r *http.Request) error {
	w.Header().Add("Vary", "Refresh-Token, "+headerRetryKey)
	token, o, err := a.RefreshRequest(r)
	if err != nil {
		return err
	}
	t, err := a.Refresh(r.Context(), token, o)
	if err != nil {
		return err
	}
	a.WriteTokens(w, t, !o.InBody)
	return nil
}

// LogoutHandler handles POST. It ends the session of every token that
// [Authenticator.RequestTokens] finds, and clears the cookies unless their
// origin is not trusted. It succeeds even if the session has already ended or no
// token is valid.
//
// If the form of a page sent the request, the response redirects to the path in the
// form's field "next" ([LocalPath]), or to "/". So a logout button needs no other
// handler:
//
//	<form method="post" action="/auth/logout"><button>Sign out</button></form>
func (a *Authenticator) LogoutHandler() http.Handler { return a.endpoint(a.logout, http.MethodPost) }

func (a *Authenticator) logout(w http.ResponseWriter, r *http.Request) error {
	w.Header().Add("Vary", "Refresh-Token")
	a.setVary(w.Header())
	tokens, byCookie, err := a.RequestTokens(r)
	if err == nil {
		err = a.Logout(r.Context(), tokens...)
	}
	if err != nil {
		return err
	}
	if len(tokens) == 0 {
		if err := a.missingToken(r); errors.Is(err, errNoScheme) {
			a.reportRefusal(r, err, guardRefusal{}) // the session of this token goes on
		}
	}
	if byCookie || len(tokens) == 0 {
		a.ClearCookies(w)
	}
	writeDone(w, r)
	return nil
}

// LogoutAllHandler handles POST with an access token. It ends all sessions of
// the token's user; with ?others=true, all except the token's session. It
// redirects the form of a page as [Authenticator.LogoutHandler] does. With
// Config.AutoRefresh, wrap it with Require, so that a form is not refused
// because the access token has expired.
func (a *Authenticator) LogoutAllHandler() http.Handler {
	return a.endpoint(a.logoutAll, http.MethodPost)
}

func (a *Authenticator) logoutAll(w http.ResponseWriter, r *http.Request) error {
	a.setVary(w.Header())
	c, byCookie, err := a.claimsOf(r)
	if err != nil {
		return err
	}
	var except []string
	query, err := url.ParseQuery(r.URL.RawQuery)
	others := query["others"]
	switch {
	case err == nil && len(others) == 0, err == nil && len(others) == 1 && others[0] == "false":
	case err == nil && len(others) == 1 && others[0] == "true":
		except = []string{c.SessionID}
	default: // do not end more than was meant
		return requestError(`others must be "true" or "false"`)
	}
	if err := a.RevokeAll(r.Context(), c.Subject, except...); err != nil {
		return err
	}
	if byCookie && except == nil {
		a.ClearCookies(w)
	}
	writeDone(w, r)
	return nil
}

// PasswordHandler handles POST with an access token. It changes the password of
// the token's user, and ends the user's other sessions, as
// [Authenticator.ChangePassword] does. It reads "current_password" and
// "new_password", as JSON or as a form. No token is returned: those of the client
// stay valid. It redirects the form of a page as [Authenticator.LogoutHandler]
// does. With Config.AutoRefresh, wrap it with Require, so that a form is not
// refused because the access token has expired.
//
// A wrong current password is status 403 with the error "invalid_credentials" and
// no action, so that no client takes it for the end of the session. A new password
// that [password.Hasher.Screen] refuses is status 422, "password_refused".
func (a *Authenticator) PasswordHandler() http.Handler {
	return a.endpoint(a.password, http.MethodPost)
}

func (a *Authenticator) password(w http.ResponseWriter, r *http.Request) error {
	a.setVary(w.Header())
	c, err := a.Authenticate(r)
	if err != nil {
		return err
	}
	f, err := ReadFields(r, "current_password", "new_password")
	if err != nil {
		return err
	}
	for _, name := range [...]string{"current_password", "new_password"} {
		if _, ok := f[name]; !ok {
			return requestError(name + " is missing in the body")
		}
	}
	if err := a.ChangePassword(r.Context(), c, f["current_password"], f["new_password"], a.Device(r)); err != nil {
		return err
	}
	writeDone(w, r)
	return nil
}

// SessionsHandler requires an access token. It handles GET by listing the
// sessions of the token's user, and DELETE by ending the session whose ID is the
// path value "id".
func (a *Authenticator) SessionsHandler() http.Handler {
	list := a.endpoint(a.listSessions, http.MethodGet, http.MethodHead)
	end := a.endpoint(a.endSession, http.MethodDelete)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") == "" {
			list.ServeHTTP(w, r)
		} else {
			end.ServeHTTP(w, r)
		}
	})
}

// claimsOf is Authenticate for requests that may end the session. cookie reports
// whether a cookie contains the token and must then be cleared. It is determined
// first, because it cannot be determined once the session has ended.
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
	Actor      string     `json:"actor,omitempty"`
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt time.Time  `json:"last_used_at"`
	ExpiresAt  time.Time  `json:"expires_at"`
	Current    bool       `json:"current"`
}

func (a *Authenticator) listSessions(w http.ResponseWriter, r *http.Request) error {
	a.setVary(w.Header())
	c, err := a.Authenticate(r)
	if err != nil {
		return err
	}
	sessions, err := a.Sessions(r.Context(), c.Subject)
	if err != nil {
		return err
	}
	list := []listedSession{}
	for _, s := range sessions[:min(len(sessions), maxListed)] {
		list = append(list, listedSession{
			s.ID, s.Name(), s.Device.UserAgent, s.Device.IP, s.Actor(), s.CreatedAt, s.RotatedAt, s.ExpiresAt, s.ID == c.SessionID,
		})
	}
	body, err := json.Marshal(map[string]any{"sessions": list})
	if err != nil {
		return err
	}
	writeBody(w, &headerSetter{h: w.Header()}, http.StatusOK, body)
	return nil
}

func (a *Authenticator) endSession(w http.ResponseWriter, r *http.Request) error {
	a.setVary(w.Header())
	c, byCookie, err := a.claimsOf(r)
	if err != nil {
		return err
	}
	sessions, err := a.Sessions(r.Context(), c.Subject)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	if !slices.ContainsFunc(sessions, func(s Session) bool { return s.ID == id }) {
		return ErrSessionNotFound
	}
	if err := a.Revoke(r.Context(), c.Subject, id); err != nil {
		return err
	}
	if byCookie && id == c.SessionID {
		a.ClearCookies(w)
	}
	writeNoContent(w)
	return nil
}

// WriteTokens writes a response with t. The body is JSON with "access_token",
// "token_type", "expires_in", "refresh_token", "refresh_expires_in" (both in
// seconds, RFC 6749 section 5.1) and "session_id", and "rotated" with the value
// true if t.Rotated is set. If byCookie is set, the tokens are set as cookies, and
// the body does not contain them.
func (a *Authenticator) WriteTokens(w http.ResponseWriter, t Tokens, byCookie bool) {
	now := a.now()
	if byCookie {
		a.SetCookies(w, t)
		t.Access, t.Refresh = "", ""
	}
	body := strictjson.NewWriter(make([]byte, 0, 192+len(t.Access)+len(t.Refresh)+len(t.SessionID)))
	if t.Access != "" {
		body.String("access_token", t.Access)
	}
	body.String("token_type", "Bearer")
	body.Int("expires_in", secondsLeft(t.AccessExpiresAt, now))
	if t.Refresh != "" {
		body.String("refresh_token", t.Refresh)
	}
	body.Int("refresh_expires_in", secondsLeft(t.RefreshExpiresAt, now))
	body.String("session_id", t.SessionID)
	if t.Rotated {
		body.Bool("rotated", true)
	}
	writeBody(w, &headerSetter{h: w.Header()}, http.StatusOK, body.Close())
}

func writeNoContent(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// JWKSHandler handles GET. It returns the public keys for verifying access
// tokens as a JSON Web Key Set (RFC 7517 section 5). It includes keys that will
// sign later, and keys that no longer sign but whose tokens may still be valid.
// It never returns a secret. [Authenticator.Handler] serves it as /jwks.json;
// other services may expect it at /.well-known/jwks.json.
func (a *Authenticator) JWKSHandler() http.Handler {
	return a.methods(func(w http.ResponseWriter, r *http.Request) error {
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
			return nil
		}
		h.Set("Content-Type", "application/json; charset=utf-8")
		_, _ = w.Write(append(body, '\n')) // the client may have gone
		return nil
	}, http.MethodGet, http.MethodHead)
}

// matches reports whether an If-None-Match header contains the tag (RFC 9110
// section 13.1.2).
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
