package auth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

const (
	accessCookie  = "__Host-access"
	refreshCookie = "__Host-Http-refresh"
)

// withCookies makes tokens travel in cookies; change may alter how.
func withCookies(change ...func(*auth.Cookies)) func(*auth.Config) {
	return func(c *auth.Config) {
		c.Cookies = &auth.Cookies{}
		for _, f := range change {
			f(c.Cookies)
		}
	}
}

func allowBody(c *auth.Cookies) { c.AllowBody = true }

// webOption alters a request.
type webOption func(*http.Request)

func webHeader(name string, values ...string) webOption {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

func webBearer(token string) webOption { return webHeader("Authorization", "Bearer "+token) }

func webCookie(name, value string) webOption {
	return func(r *http.Request) { r.AddCookie(&http.Cookie{Name: name, Value: value}) }
}

func webBody(kind, body string) webOption {
	return func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		if kind != "" {
			r.Header.Set("Content-Type", kind)
		}
	}
}

func webJSON(body string) webOption { return webBody("application/json", body) }

func webForm(body string) webOption { return webBody("application/x-www-form-urlencoded", body) }

func crossSite(r *http.Request) {
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Origin", "https://evil.example")
}

// webReply is an answer that was read.
type webReply struct {
	status  int
	header  http.Header
	body    string
	cookies map[string]*http.Cookie
}

func readReply(t testing.TB, res *http.Response) webReply {
	t.Helper()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	reply := webReply{res.StatusCode, res.Header, string(body), map[string]*http.Cookie{}}
	for _, c := range res.Cookies() {
		require.NotContains(t, reply.cookies, c.Name, "a cookie is set once")
		reply.cookies[c.Name] = c
	}
	return reply
}

// ask sends one request to h.
func ask(t testing.TB, h http.Handler, method, target string, options ...webOption) webReply {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for _, o := range options {
		o(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return readReply(t, w.Result())
}

// fields decodes a body of JSON.
func (r webReply) fields(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.body), &m), "%q", r.body)
	return m
}

// refused requires an error answer, and that it is told as all of them are.
func (r webReply) refused(t testing.TB, status int, code, action string) {
	t.Helper()
	require.Equal(t, status, r.status, "%s", r.body)
	m := r.fields(t)
	require.Equal(t, code, m["error"])
	require.NotEmpty(t, m["error_description"])
	if action == "" {
		require.NotContains(t, m, "action")
	} else {
		require.Equal(t, action, m["action"])
	}
	require.Equal(t, "application/json; charset=utf-8", r.header.Get("Content-Type"))
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
	require.Equal(t, "nosniff", r.header.Get("X-Content-Type-Options"))
	require.NotContains(t, r.header, "Set-Cookie", "a refusal sets and clears no cookie")
	if status == http.StatusServiceUnavailable {
		require.Equal(t, "1", r.header.Get("Retry-After"))
	} else {
		require.NotContains(t, r.header, "Retry-After")
	}
}

// nothing requires an empty success.
func (r webReply) nothing(t testing.TB) {
	t.Helper()
	require.Equal(t, http.StatusNoContent, r.status, "%s", r.body)
	require.Empty(t, r.body)
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
}

// cleared requires that both cookies are deleted.
func (r webReply) cleared(t testing.TB, names ...string) {
	t.Helper()
	if names == nil {
		names = []string{accessCookie, refreshCookie}
	}
	require.ElementsMatch(t, names, slices.Collect(maps.Keys(r.cookies)))
	for _, c := range r.cookies {
		require.Empty(t, c.Value)
		require.Negative(t, c.MaxAge)
	}
}

const goodLogin = `{"login":"ada","password":"` + pass + `"}`

// generation is how often a session has moved, and one.
func (b *bench) generation(t testing.TB, subject, id string) int64 {
	t.Helper()
	s, err := b.store.Store.Get(context.Background(), subject, id)
	require.NoError(t, err)
	return s.Generation
}

func TestLoginHandler_AnswersWithTokensInTheBody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, body := range []webOption{
		webJSON(goodLogin),
		webJSON(`{"username":"ada","password":"` + pass + `"}`),
		webJSON(`{"email":"ada@example.com","password":"` + pass + `"}`),
		webJSON(`{"login_id":"ADA","password":"` + pass + `"}`),
		webJSON(` { "login" : "ada" , "username" : "" , "email" : null , "password":"` + pass + `","device":null,"delivery":"" } `),
		webJSON(`{"login":"ada","password":"` + pass + `","nested":{"login":"bob","password":["x"]},"n":1,"b":true,"l":[{"login":"bob"}]}`),
		webJSON(`{"\u006cogin":"ada","p\u0061ssword":"correct horse battery\u0020staple"}`),
		webJSON(`{"login":"ada","password":"` + pass + `","delivery":"body"}`),
		webBody("application/json; charset=UTF-8", goodLogin),
		webBody("Application/JSON;charset=\"utf-8\"", goodLogin),
		webForm("login=ada&password=correct+horse%20battery+staple"),
		webForm("email=ada%40example.com&password=correct+horse+battery+staple&unknown=1"),
		webForm("login=ada&password=correct+horse+battery+staple&remember=0&remember=1"),
		webForm("%ff=1&login=ada&password=correct+horse+battery+staple&note=%ff&\xff=\xff"),
		webForm("note=100%&login=ada&&password=correct+horse+battery+staple&%zz&a;b=c&=x&LOGIN=bob"),
		webForm("\ufefflogin=ada&password=correct+horse+battery+staple"),
		webJSON("\ufeff" + goodLogin),
		webBody("application/json; charset=utf8", goodLogin),
		webBody("application/json; charset=\"UTF8\"", goodLogin),
		webBody("application/json; odata=verbose; charset=Utf-8", goodLogin),
		webBody("application/x-www-form-urlencoded;charset=utf8", "login=ada&password=correct+horse+battery+staple"),
		webBody("application/x-www-form-urlencoded; charset=utf-8", "username=ada&password=correct+horse+battery+staple"),
	} {
		r := ask(t, b.LoginHandler(), http.MethodPost, "/login", body)
		require.Equal(t, http.StatusOK, r.status, r.body)
		m := r.fields(t)
		require.ElementsMatch(t, []string{"access_token", "token_type", "expires_in", "refresh_token", "refresh_expires_in", "session_id"}, slices.Collect(maps.Keys(m)))
		require.Equal(t, "Bearer", m["token_type"])
		require.EqualValues(t, 15*60, m["expires_in"])
		require.EqualValues(t, 7*24*60*60, m["refresh_expires_in"])
		c, err := b.Verify(context.Background(), m["access_token"].(string))
		require.NoError(t, err)
		require.Equal(t, "u1", c.Subject)
		require.Equal(t, c.SessionID, m["session_id"])
		_, err = b.Refresh(context.Background(), m["refresh_token"].(string), auth.RefreshOptions{})
		require.NoError(t, err)
		require.Equal(t, "application/json; charset=utf-8", r.header.Get("Content-Type"))
		require.Equal(t, "no-store", r.header.Get("Cache-Control"))
		require.Equal(t, "nosniff", r.header.Get("X-Content-Type-Options"))
		require.NotContains(t, r.header, "Set-Cookie")
	}
}

func TestLoginHandler_RefusesMalformedRequests(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	login := func(s string) string { return strings.Replace(goodLogin, "}", s+"}", 1) }
	tests := map[string]struct {
		body   webOption
		status int
	}{
		"no body":                        {func(*http.Request) {}, 400},
		"empty body of no type":          {webBody("", ""), 400},
		"empty object":                   {webJSON(`{}`), 400},
		"no password":                    {webJSON(`{"login":"ada"}`), 400},
		"empty password":                 {webJSON(`{"login":"ada","password":""}`), 400},
		"null password":                  {webJSON(`{"login":"ada","password":null}`), 400},
		"no login":                       {webJSON(`{"password":"x"}`), 400},
		"empty login":                    {webJSON(`{"login":"","password":"x"}`), 400},
		"two aliases":                    {webJSON(login(`,"username":"ada"`)), 400},
		"two other aliases":              {webJSON(`{"email":"ada","login_id":"ada","password":"` + pass + `"}`), 400},
		"login is a number":              {webJSON(`{"login":1,"password":"x"}`), 400},
		"login is a list":                {webJSON(`{"login":["ada"],"password":"` + pass + `"}`), 400},
		"alias is of another type":       {webJSON(login(`,"email":{}`)), 400},
		"password is an object":          {webJSON(`{"login":"ada","password":{"x":1}}`), 400},
		"password is a boolean":          {webJSON(`{"login":"ada","password":true}`), 400},
		"device is a number":             {webJSON(login(`,"device":7`)), 400},
		"delivery is a list":             {webJSON(login(`,"delivery":[]`)), 400},
		"delivery is not known":          {webJSON(login(`,"delivery":"header"`)), 400},
		"delivery in another letter":     {webJSON(login(`,"delivery":"Body"`)), 400},
		"cookies are not offered":        {webJSON(login(`,"delivery":"cookie"`)), 400},
		"duplicate field":                {webJSON(login(`,"login":"ada"`)), 400},
		"duplicate field, escaped":       {webJSON(login(`,"\u006cogin":"ada"`)), 400},
		"duplicate field of no interest": {webJSON(login(`,"x":1,"x":1`)), 400},
		"duplicate field, nested":        {webJSON(login(`,"x":{"y":1,"y":1}`)), 400},
		"name in another letter case":    {webJSON(`{"LOGIN":"ada","password":"x"}`), 400},
		"trailing object":                {webJSON(goodLogin + goodLogin), 400},
		"trailing letter":                {webJSON(goodLogin + "x"), 400},
		"trailing NUL":                   {webJSON(goodLogin + "\x00"), 400},
		"two byte order marks":           {webJSON("\ufeff\ufeff" + goodLogin), 400},
		"byte order mark of UTF-16":      {webJSON("\xff\xfe" + goodLogin), 400},
		"byte order mark and no more":    {webJSON("\ufeff"), 400},
		"trailing comma":                 {webJSON(login(",")), 400},
		"list":                           {webJSON(`[` + goodLogin + `]`), 400},
		"string":                         {webJSON(`"ada"`), 400},
		"not JSON":                       {webJSON("login=ada&password=" + pass), 400},
		"cut off":                        {webJSON(goodLogin[:len(goodLogin)-1]), 400},
		"JSON that is not UTF-8":         {webJSON("{\"login\":\"ada\xff\",\"password\":\"x\"}"), 400},
		"not UTF-8 in a name":            {webJSON(login(",\"\xff\":1")), 400},
		"lone surrogate":                 {webJSON(`{"login":"\ud800","password":"x"}`), 400},
		"nested too deeply":              {webJSON(login(`,"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40))), 400},
		"form field twice":               {webForm("login=ada&login=ada&password=x"), 400},
		"form field twice, once empty":   {webForm("login=ada&login=&password=x"), 400},
		"form field twice, escaped":      {webForm("login=ada&l%6Fgin=ada&password=x"), 400},
		"form device twice":              {webForm("login=ada&password=correct+horse+battery+staple&device=a&device=b"), 400},
		"form device is not UTF-8":       {webForm("login=ada&password=correct+horse+battery+staple&device=%ff"), 400},
		"form of nothing":                {webForm("%zz"), 400},
		"form of semicolons":             {webForm(";;"), 400},
		"form password twice":            {webForm("login=ada&password=x&password=" + url.QueryEscape(pass)), 400},
		"form with two aliases":          {webForm("login=ada&username=ada&password=x"), 400},
		"form that is not UTF-8":         {webForm("login=%ff&password=x"), 400},
		"form with a bad escape":         {webForm("login=%zz&password=x"), 400},
		"form with a semicolon":          {webForm("login=ada;password=x"), 400},
		"form without password":          {webForm("login=ada"), 400},
		"plain text":                     {webBody("text/plain", goodLogin), 415},
		"multipart":                      {webBody("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"login\"\r\n\r\nada\r\n--x--\r\n"), 415},
		"no type":                        {webBody("", goodLogin), 415},
		"not a type":                     {webBody("json", goodLogin), 415},
		"malformed type":                 {webBody("application/json; charset", goodLogin), 415},
		"type like JSON":                 {webBody("application/json-patch+json", goodLogin), 415},
		"type that begins like JSON":     {webBody("application/jsonp", goodLogin), 415},
		"charset twice":                  {webBody("application/json; charset=utf-8; charset=latin1", goodLogin), 415},
		"charset like UTF-8":             {webBody("application/json; charset=utf-80", goodLogin), 415},
		"other charset":                  {webBody("application/json; charset=iso-8859-1", goodLogin), 415},
		"other charset of a form":        {webBody("application/x-www-form-urlencoded; charset=utf-16", "login=ada&password=x"), 415},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ask(t, b.LoginHandler(), http.MethodPost, "/login", tt.body).refused(t, tt.status, "invalid_request", "")
		})
	}
}

func TestLoginHandler_BodyIsBoundedExactly(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	server := httptest.NewServer(b.LoginHandler())
	t.Cleanup(server.Close)
	padded := func(n int) string { return goodLogin + strings.Repeat(" ", n-len(goodLogin)) }
	for _, chunked := range []bool{false, true} {
		post := func(body string) webReply {
			var reader io.Reader = strings.NewReader(body)
			if chunked {
				reader = struct{ io.Reader }{reader} // of a length that is not known
			}
			res, err := http.Post(server.URL, "application/json", reader)
			require.NoError(t, err)
			return readReply(t, res)
		}
		require.Equal(t, http.StatusOK, post(padded(16<<10)).status)
		post(padded(16<<10+1)).refused(t, http.StatusRequestEntityTooLarge, "invalid_request", "")
	}
	// A length that is announced is believed before anything is read.
	unread := func(r *http.Request) {
		webJSON("")(r)
		r.Body, r.ContentLength = io.NopCloser(untouchable{t}), 16<<10+1
	}
	ask(t, b.LoginHandler(), http.MethodPost, "/login", unread).refused(t, http.StatusRequestEntityTooLarge, "invalid_request", "")
}

type untouchable struct{ t testing.TB }

func (u untouchable) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func TestLoginHandler_BodyThatBreaksOffIsMalformed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	broken := func(r *http.Request) {
		webJSON(goodLogin)(r)
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader(goodLogin), brokenReader{}))
	}
	ask(t, b.LoginHandler(), http.MethodPost, "/login", broken).refused(t, http.StatusBadRequest, "invalid_request", "")
	require.Zero(t, b.store.count("Create"))
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestLoginHandler_UnknownWrongAndDisabledAreOneAnswer(t *testing.T) {
	t.Parallel()
	for _, change := range [][]func(*auth.Config){nil, {withCookies()}} {
		b := newBench(t, change...)
		b.users.change("u2", func(u *auth.User) { u.Disabled = true })
		var answers []webReply
		for _, body := range []string{
			`{"login":"nobody","password":"` + pass + `"}`,
			`{"login":"ada","password":"wrong"}`,
			`{"login":"bob","password":"` + pass + `"}`,
			`{"login":"bob","password":"wrong"}`,
			`{"login":"ada","password":"` + strings.Repeat("x", 5000) + `"}`,
		} {
			r := ask(t, b.LoginHandler(), http.MethodPost, "/login", webJSON(body))
			r.refused(t, http.StatusUnauthorized, "invalid_credentials", "login")
			require.NotContains(t, r.header, "Www-Authenticate")
			answers = append(answers, r)
		}
		for _, r := range answers[1:] {
			require.Equal(t, answers[0], r)
		}
		require.Zero(t, b.store.count("Create"))
	}
}

func TestLoginHandler_DeliversAsConfiguredAndAsAsked(t *testing.T) {
	t.Parallel()
	wish := func(s string) webOption {
		return webJSON(`{"login":"ada","password":"` + pass + `","delivery":"` + s + `"}`)
	}
	b := newBench(t, withCookies())
	for _, body := range []webOption{webJSON(goodLogin), wish(""), wish("cookie")} {
		r := ask(t, b.LoginHandler(), http.MethodPost, "/login", body)
		require.Equal(t, http.StatusOK, r.status, r.body)
		require.ElementsMatch(t, []string{"token_type", "expires_in", "refresh_expires_in", "session_id"}, slices.Collect(maps.Keys(r.fields(t))))
		require.Len(t, r.cookies, 2)
		for _, c := range r.cookies {
			require.NotContains(t, r.body, c.Value)
		}
		require.Equal(t, "no-store", r.header.Get("Cache-Control"))
		require.Contains(t, r.header.Values("Vary"), "Cookie")
	}
	ask(t, b.LoginHandler(), http.MethodPost, "/login", wish("body")).refused(t, 400, "invalid_request", "")
	require.Equal(t, 3, b.store.count("Create"), "what is not offered opens no session")

	b = newBench(t, withCookies(allowBody))
	r := ask(t, b.LoginHandler(), http.MethodPost, "/login", wish("body"))
	require.Equal(t, http.StatusOK, r.status, r.body)
	require.NotEmpty(t, r.fields(t)["refresh_token"])
	require.NotContains(t, r.header, "Set-Cookie")
	require.Len(t, ask(t, b.LoginHandler(), http.MethodPost, "/login", wish("")).cookies, 2)
	ask(t, b.LoginHandler(), http.MethodPost, "/login", wish("Cookie")).refused(t, 400, "invalid_request", "")
}

func TestLoginHandler_KeepsWhoSignedInAndCleansTheDeviceName(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	body, err := json.Marshal(map[string]string{"login": "ada", "password": pass, "device": "  Ada\u202e's\x1b[31m phone\n" + strings.Repeat("é", 100)})
	require.NoError(t, err)
	r := ask(t, b.LoginHandler(), http.MethodPost, "/login", webJSON(string(body)), webHeader("User-Agent", "curl/8"))
	require.Equal(t, http.StatusOK, r.status)
	list, err := b.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "Ada's[31m phone"+strings.Repeat("é", 42), list[0].Name())
	require.Equal(t, "curl/8", list[0].Device.UserAgent)
	require.Equal(t, "192.0.2.1", list[0].Device.IP.String())
}

func TestLoginHandler_EndsTheSessionWhoseCookieItReplaces(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies(allowBody))
	first := ask(t, b.LoginHandler(), http.MethodPost, "/login", webJSON(goodLogin))
	held := webCookie(refreshCookie, first.cookies[refreshCookie].Value)
	// One that wants its tokens in the body keeps its cookie, and the session.
	other := ask(t, b.LoginHandler(), http.MethodPost, "/login", held, webJSON(`{"login":"ada","password":"`+pass+`","delivery":"body"}`))
	require.Equal(t, http.StatusOK, other.status)
	_, err := b.store.Store.Get(context.Background(), "u1", first.fields(t)["session_id"].(string))
	require.NoError(t, err)
	second := ask(t, b.LoginHandler(), http.MethodPost, "/login", held, webJSON(goodLogin))
	require.Equal(t, http.StatusOK, second.status)
	_, err = b.store.Store.Get(context.Background(), "u1", first.fields(t)["session_id"].(string))
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
	// A cookie that is of no use is no obstacle. Somebody else's, of either
	// kind, is not left behind.
	bob := webJSON(`{"login":"bob","password":"` + pass + `"}`)
	r := ask(t, b.LoginHandler(), http.MethodPost, "/login", webCookie(refreshCookie, "garbage"), bob)
	require.Equal(t, http.StatusOK, r.status)
	_, err = b.store.Store.Get(context.Background(), "u1", second.fields(t)["session_id"].(string))
	require.NoError(t, err)
	third := ask(t, b.LoginHandler(), http.MethodPost, "/login", webJSON(goodLogin))
	r = ask(t, b.LoginHandler(), http.MethodPost, "/login", webCookie(refreshCookie, second.cookies[refreshCookie].Value),
		webCookie(accessCookie, third.cookies[accessCookie].Value), bob)
	require.Equal(t, http.StatusOK, r.status)
	for _, gone := range []webReply{second, third} {
		_, err = b.store.Store.Get(context.Background(), "u1", gone.fields(t)["session_id"].(string))
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
	}
}

func TestLoginHandler_OutageIs503AndSetsNoCookie(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	b.store.failBefore("Create", errStore)
	ask(t, b.LoginHandler(), http.MethodPost, "/login", webJSON(goodLogin)).refused(t, 503, "temporarily_unavailable", "")
	b.store.failBefore("Create", nil)
	b.users.mu.Lock()
	b.users.fail = errStore
	b.users.mu.Unlock()
	ask(t, b.LoginHandler(), http.MethodPost, "/login", webJSON(goodLogin)).refused(t, 503, "temporarily_unavailable", "")
}

func TestHandler_OtherMethodsAndEndpointsAreAnsweredInJSON(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	h := b.Handler()
	allowed := map[string]string{
		"/login": "POST", "/refresh": "POST", "/logout": "POST", "/logout/all": "POST",
		"/sessions": "GET, HEAD", "/sessions/x": "DELETE",
	}
	for path, allow := range allowed {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} {
			if slices.Contains(strings.Split(allow, ", "), method) {
				continue
			}
			r := ask(t, h, method, path, webBearer(b.login(t).Access))
			r.refused(t, http.StatusMethodNotAllowed, "invalid_request", "")
			require.Equal(t, allow, r.header.Get("Allow"))
		}
	}
	for _, path := range []string{"/", "/nothing", "/login/x", "/logout/", "/sessions/", "/sessions/a/b", "/token"} {
		ask(t, h, http.MethodPost, path).refused(t, http.StatusNotFound, "not_found", "")
	}
}

func TestHandler_NeverRedirects(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	h := b.Handler()
	endpoints := []string{"login", "refresh", "logout", "logout/all", "sessions", "sessions/x", "jwks.json", ""}
	spellings := []string{"%s", "/%s", "//%s", "///%s", "/./%s", "./%s", "../%s", "/../%s", "%s/", "/%s/", "%s//", "/%s/.", "/%s/..", "/x/../%s", "%%2F%s", "/%%2F%s", "%s%%2F", "%%2e/%s", "/%s%%2F%%2e%%2e", "/%%2e%%2e/%s", "/%s%%3F", "/%s%%23", "\\%s"}
	for _, endpoint := range endpoints {
		for _, spelling := range spellings {
			raw := fmt.Sprintf(spelling, endpoint)
			for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "BREW"} {
				for _, path := range []string{"", "/auth", "/auth/", "/auth/v1/"} {
					// As StripPrefix, a router or a rewrite leaves it.
					r := httptest.NewRequest(method, "/", strings.NewReader(goodLogin))
					r.Header.Set("Content-Type", "application/json")
					r.RequestURI = path + raw
					decoded, err := url.PathUnescape(path + raw)
					require.NoError(t, err)
					r.URL.Path, r.URL.RawPath = decoded, path+raw
					w := httptest.NewRecorder()
					http.StripPrefix(path, h).ServeHTTP(w, r)
					require.Empty(t, w.Header().Get("Location"), "%s %q below %q", method, raw, path)
					require.Contains(t, []int{200, 204, 400, 401, 404, 405}, w.Code, "%s %q below %q", method, raw, path)
				}
			}
		}
	}
}

func TestHandler_PrefixThatEndsInASlashIsServed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	caught := false
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth/", b.Handler()))
	mux.HandleFunc("/login", func(http.ResponseWriter, *http.Request) { caught = true }) // whatever sits there
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	do := func(method, path, bearer string, body webOption) webReply {
		t.Helper()
		r, err := http.NewRequest(method, server.URL+path, nil)
		require.NoError(t, err)
		body(r)
		if bearer != "" {
			webBearer(bearer)(r)
		}
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		return readReply(t, res)
	}
	login := do("POST", "/auth/login", "", webJSON(goodLogin))
	require.Equal(t, 200, login.status, login.body)
	access := login.fields(t)["access_token"].(string)
	require.Len(t, do("GET", "/auth/sessions", access, webBody("", "")).fields(t)["sessions"], 1)
	do("DELETE", "/auth/sessions/"+login.fields(t)["session_id"].(string), access, webBody("", "")).nothing(t)
	for _, path := range []string{"/auth/", "/auth/login/", "/auth/%2Flogin/", "/auth/login%2F", "/auth/x"} {
		do("POST", path, "", webJSON(goodLogin)).refused(t, 404, "not_found", "")
	}
	do("GET", "/auth/login", "", webBody("", "")).refused(t, 405, "invalid_request", "")
	require.False(t, caught)
	ask(t, b.Handler(), "POST", "//login", webJSON(goodLogin)).refused(t, 404, "not_found", "")
}

func TestHandler_WorksAtAnyMountPointAndByMethodPattern(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	one := http.NewServeMux()
	one.Handle("/auth/", http.StripPrefix("/auth", b.Handler()))
	deep := http.NewServeMux()
	deep.Handle("/api/v1/identity/", http.StripPrefix("/api/v1/identity", b.Handler()))
	single := http.NewServeMux()
	single.Handle("POST /s/login", b.LoginHandler())
	single.Handle("POST /s/refresh", b.RefreshHandler())
	single.Handle("POST /s/logout", b.LogoutHandler())
	single.Handle("POST /s/logout/all", b.LogoutAllHandler())
	single.Handle("GET /s/sessions", b.SessionsHandler())
	single.Handle("DELETE /s/sessions/{id}", b.SessionsHandler())
	for prefix, h := range map[string]http.Handler{"/auth": one, "/api/v1/identity": deep, "/s": single, "": b.Handler()} {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		do := func(method, path, bearer, body string) webReply {
			r, err := http.NewRequest(method, server.URL+prefix+path, strings.NewReader(body))
			require.NoError(t, err)
			r.Header.Set("Content-Type", "application/json")
			if bearer != "" {
				r.Header.Set("Authorization", "Bearer "+bearer)
			}
			res, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			return readReply(t, res)
		}
		first := do("POST", "/login", "", goodLogin).fields(t)
		second := do("POST", "/login", "", goodLogin).fields(t)
		refresh, _ := json.Marshal(map[string]any{"refresh_token": first["refresh_token"]})
		third := do("POST", "/refresh", "", string(refresh)).fields(t)
		require.Equal(t, first["session_id"], third["session_id"])
		access := third["access_token"].(string)
		require.Len(t, do("GET", "/sessions", access, "").fields(t)["sessions"], 2)
		do("DELETE", "/sessions/"+second["session_id"].(string), access, "").nothing(t)
		require.Len(t, do("GET", "/sessions", access, "").fields(t)["sessions"], 1)
		do("POST", "/logout", access, "").nothing(t)
		do("GET", "/sessions", access, "").refused(t, 401, "invalid_token", "login")
		access = do("POST", "/login", "", goodLogin).fields(t)["access_token"].(string)
		do("POST", "/logout/all", access, "").nothing(t)
		do("POST", "/logout/all", access, "").refused(t, 401, "invalid_token", "login")
	}
}

func TestRefreshHandler_TokenInHeaderOrBodyIsAnsweredInTheBody(t *testing.T) {
	t.Parallel()
	for _, change := range [][]func(*auth.Config){nil, {withCookies(allowBody)}} {
		b := newBench(t, change...)
		for _, door := range []func(token string) []webOption{
			func(s string) []webOption { return []webOption{webHeader("Refresh-Token", s)} },
			func(s string) []webOption { return []webOption{webJSON(`{"refresh_token":"` + s + `"}`)} },
			func(s string) []webOption { return []webOption{webJSON(`{"refreshToken":"` + s + `"}`)} },
			func(s string) []webOption { return []webOption{webForm("refresh_token=" + s)} },
			func(s string) []webOption { return []webOption{webForm("refreshToken=" + s)} },
			func(s string) []webOption {
				return []webOption{webHeader("Refresh-Token", s), webJSON(`{"refreshToken":"` + s + `","refresh_token":"` + s + `"}`)}
			},
			func(s string) []webOption { return []webOption{webHeader("Refresh-Token", s), crossSite} },
		} {
			first := b.login(t)
			r := ask(t, b.RefreshHandler(), http.MethodPost, "/refresh", door(first.Refresh)...)
			require.Equal(t, http.StatusOK, r.status, r.body)
			m := r.fields(t)
			require.Equal(t, first.SessionID, m["session_id"])
			require.NotEqual(t, first.Refresh, m["refresh_token"])
			_, err := b.Verify(context.Background(), m["access_token"].(string))
			require.NoError(t, err)
			require.NotContains(t, r.header, "Set-Cookie")
			require.Equal(t, "no-store", r.header.Get("Cache-Control"))
			// At rest it is the token that was sent, in the body.
			rest := ask(t, b.RefreshHandler(), http.MethodPost, "/refresh", door(m["refresh_token"].(string))...)
			require.Equal(t, m["refresh_token"], rest.fields(t)["refresh_token"])
			require.NotContains(t, rest.header, "Set-Cookie")
		}
	}
}

func TestRefreshHandler_TokenInCookieIsAnsweredByCookies(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies(allowBody))
	for _, more := range [][]webOption{nil, {webJSON(`{}`)}, {webForm("x=1")}} {
		first := b.login(t)
		r := ask(t, b.RefreshHandler(), http.MethodPost, "/refresh", append(more, webCookie(refreshCookie, first.Refresh))...)
		require.Equal(t, http.StatusOK, r.status, r.body)
		require.ElementsMatch(t, []string{"token_type", "expires_in", "refresh_expires_in", "session_id"}, slices.Collect(maps.Keys(r.fields(t))))
		require.Len(t, r.cookies, 2)
		require.NotEqual(t, first.Refresh, r.cookies[refreshCookie].Value)
	}
	// The same token in a cookie and the body too: a script must not get at it.
	first := b.login(t)
	r := ask(t, b.RefreshHandler(), http.MethodPost, "/refresh", webCookie(refreshCookie, first.Refresh), webJSON(`{"refresh_token":"`+first.Refresh+`"}`))
	require.Equal(t, http.StatusOK, r.status, r.body)
	require.NotContains(t, r.fields(t), "refresh_token")
	require.NotContains(t, r.fields(t), "access_token")
	require.Len(t, r.cookies, 2)
}

func TestRefreshHandler_CookieOfAnEarlierGenerationIsReplaced(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies(allowBody))
	for _, wait := range []time.Duration{0, time.Minute} { // within the cooldown, and after it
		ks := b.chain(t, 3)
		b.clock.advance(wait)
		for _, carry := range []webOption{webHeader("Refresh-Token", ks[2].Refresh), webJSON(`{"refresh_token":"` + ks[2].Refresh + `"}`)} {
			options := []webOption{webCookie(refreshCookie, ks[1].Refresh), carry}
			ask(t, b.RefreshHandler(), "POST", "/refresh", append(options, crossSite)...).refused(t, 403, "cross_origin", "")
			r := ask(t, b.RefreshHandler(), "POST", "/refresh", options...)
			require.Equal(t, 200, r.status, r.body)
			require.NotContains(t, r.fields(t), "refresh_token")
			require.NotContains(t, r.fields(t), "access_token")
			require.Len(t, r.cookies, 2)
			// The browser goes on with what it has now.
			r = ask(t, b.RefreshHandler(), "POST", "/refresh", webCookie(refreshCookie, r.cookies[refreshCookie].Value))
			require.Equal(t, 200, r.status, r.body)
		}
		require.Empty(t, b.events.take(auth.EventReuse))
	}
}

func TestRefreshHandler_RestingSessionWritesOnlyTheAccessCookie(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	first := b.login(t)
	moved := ask(t, b.RefreshHandler(), http.MethodPost, "/refresh", webCookie(refreshCookie, first.Refresh))
	second := moved.cookies[refreshCookie].Value
	rests := ask(t, b.RefreshHandler(), http.MethodPost, "/refresh", webCookie(refreshCookie, second))
	require.Equal(t, http.StatusOK, rests.status)
	require.Equal(t, []string{accessCookie}, slices.Collect(maps.Keys(rests.cookies)))
	repeat := ask(t, b.RefreshHandler(), http.MethodPost, "/refresh", webCookie(refreshCookie, first.Refresh))
	require.Equal(t, second, repeat.cookies[refreshCookie].Value, "a later generation than the one presented is written")
}

func TestRefreshHandler_RefusesWithoutAChallengeAndLeavesCookiesAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies(allowBody))
	h := b.RefreshHandler()
	one, two := b.login(t), b.login(t)
	for action, rows := range map[string]map[string][]webOption{
		"login": {
			"none": nil,
			"only in the query": {func(r *http.Request) {
				r.URL.RawQuery = "refresh_token=" + one.Refresh + "&refreshToken=" + one.Refresh
			}},
			"as a bearer token":        {webBearer(one.Refresh)},
			"in the access cookie":     {webCookie(accessCookie, one.Refresh)},
			"empty everywhere":         {webCookie(refreshCookie, ""), webHeader("Refresh-Token", ""), webJSON(`{"refresh_token":"","refreshToken":null}`)},
			"header and body differ":   {webHeader("Refresh-Token", one.Refresh), webJSON(`{"refresh_token":"` + two.Refresh + `"}`)},
			"cookie and header differ": {webCookie(refreshCookie, one.Refresh), webHeader("Refresh-Token", two.Refresh)},
			"cookie and body differ":   {webCookie(refreshCookie, one.Refresh), webForm("refreshToken=" + two.Refresh)},
			"snake and camel differ":   {webJSON(`{"refresh_token":"` + one.Refresh + `","refreshToken":"` + two.Refresh + `"}`)},
			"two headers differ":       {webHeader("Refresh-Token", one.Refresh, two.Refresh)},
		},
		"": {
			"wrong type":                   {webJSON(`{"refresh_token":["` + one.Refresh + `"]}`)},
			"wrong type beside a good one": {webJSON(`{"refresh_token":"` + one.Refresh + `","refreshToken":1}`)},
			"null":                         {webJSON(`null`)},
			"not a form":                   {webForm("%zz")},
		},
	} {
		for name, options := range rows {
			r := ask(t, h, http.MethodPost, "/refresh", options...)
			r.refused(t, http.StatusBadRequest, "invalid_request", action)
			require.NotContains(t, r.header, "Www-Authenticate", name)
		}
	}
	ask(t, h, http.MethodPost, "/refresh", webBody("text/plain", one.Refresh)).refused(t, 415, "invalid_request", "")
	require.Zero(t, b.store.count("Rotate"))

	bad := func(options ...webOption) {
		t.Helper()
		r := ask(t, h, http.MethodPost, "/refresh", options...)
		r.refused(t, http.StatusUnauthorized, "invalid_grant", "login")
		require.NotContains(t, r.header, "Www-Authenticate")
	}
	bad(webHeader("Refresh-Token", "garbage"))
	bad(webCookie(refreshCookie, "garbage"))
	bad(webJSON(`{"refresh_token":"` + one.Access + `"}`))
	bad(webCookie(refreshCookie, one.Access))
	require.NoError(t, b.Revoke(context.Background(), "u1", two.SessionID))
	bad(webCookie(refreshCookie, two.Refresh))
	_, err := b.Refresh(context.Background(), one.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	b.clock.advance(11 * time.Second)
	bad(webCookie(refreshCookie, one.Refresh)) // spent
	three := b.login(t)
	b.clock.advance(8 * 24 * time.Hour)
	bad(webCookie(refreshCookie, three.Refresh)) // late
}

func TestRefreshHandler_OutageIs503AndTheTokenStaysGood(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	first := b.login(t)
	for _, fail := range []func(string, error){b.store.failBefore, b.store.failAfter} {
		fail("Rotate", errStore)
		ask(t, b.RefreshHandler(), http.MethodPost, "/refresh", webCookie(refreshCookie, first.Refresh)).refused(t, 503, "temporarily_unavailable", "")
		fail("Rotate", nil)
	}
	r := ask(t, b.RefreshHandler(), http.MethodPost, "/refresh", webCookie(refreshCookie, first.Refresh))
	require.Equal(t, http.StatusOK, r.status)
	require.EqualValues(t, 2, b.generation(t, "u1", first.SessionID))
}

func TestRefreshHandler_NotesTheDeviceThatAsks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first := b.login(t)
	r := ask(t, b.RefreshHandler(), http.MethodPost, "/refresh", webHeader("Refresh-Token", first.Refresh), webHeader("User-Agent", "robot/1"))
	require.Equal(t, http.StatusOK, r.status)
	s, err := b.store.Store.Get(context.Background(), "u1", first.SessionID)
	require.NoError(t, err)
	require.Equal(t, "robot/1", s.Device.UserAgent)
	require.Equal(t, "192.0.2.1", s.Device.IP.String())
}

func TestLogoutHandler_EndsTheSessionByAnyToken(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		options func(auth.Tokens) []webOption
		clears  bool
	}{
		"access in the header":   {func(k auth.Tokens) []webOption { return []webOption{webBearer(k.Access)} }, false},
		"access in the cookie":   {func(k auth.Tokens) []webOption { return []webOption{webCookie(accessCookie, k.Access)} }, true},
		"refresh in the cookie":  {func(k auth.Tokens) []webOption { return []webOption{webCookie(refreshCookie, k.Refresh)} }, true},
		"refresh in the header":  {func(k auth.Tokens) []webOption { return []webOption{webHeader("Refresh-Token", k.Refresh)} }, false},
		"second of two headers":  {func(k auth.Tokens) []webOption { return []webOption{webHeader("Refresh-Token", "x", k.Refresh)} }, false},
		"refresh in JSON":        {func(k auth.Tokens) []webOption { return []webOption{webJSON(`{"refresh_token":"` + k.Refresh + `"}`)} }, false},
		"refresh in JSON, camel": {func(k auth.Tokens) []webOption { return []webOption{webJSON(`{"refreshToken":"` + k.Refresh + `"}`)} }, false},
		"refresh in a form":      {func(k auth.Tokens) []webOption { return []webOption{webForm("refresh_token=" + k.Refresh)} }, false},
		"second of two cookies": {func(k auth.Tokens) []webOption {
			return []webOption{webCookie(refreshCookie, "x"), webCookie(refreshCookie, k.Refresh)}
		}, true},
		"with garbage beside it": {func(k auth.Tokens) []webOption {
			return []webOption{webBearer("x.y.z"), webCookie(refreshCookie, k.Refresh)}
		}, true},
		"header token, cross-site": {func(k auth.Tokens) []webOption { return []webOption{webBearer(k.Access), crossSite} }, false},
	} {
		for _, late := range []time.Duration{0, time.Hour} { // an access token may be expired
			b := newBench(t, withCookies())
			k := b.login(t)
			b.clock.advance(late)
			r := ask(t, b.LogoutHandler(), http.MethodPost, "/logout", tt.options(k)...)
			r.nothing(t)
			if tt.clears {
				r.cleared(t)
			} else {
				require.NotContains(t, r.header, "Set-Cookie", name)
			}
			_, err := b.store.Store.Get(context.Background(), "u1", k.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound, name)
			_, err = b.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrSessionRevoked)
			ask(t, b.LogoutHandler(), http.MethodPost, "/logout", tt.options(k)...).nothing(t)
		}
	}
}

func TestLogoutHandler_EndsEverySessionThatIsNamed(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	var ks []auth.Tokens
	for range 5 {
		ks = append(ks, b.login(t))
	}
	r := ask(t, b.LogoutHandler(), http.MethodPost, "/logout", webBearer(ks[0].Access), webCookie(refreshCookie, ks[1].Refresh),
		webCookie(accessCookie, ks[2].Access), webHeader("Refresh-Token", ks[3].Refresh), webJSON(`{"refresh_token":"`+ks[4].Refresh+`"}`))
	r.nothing(t)
	r.cleared(t)
	list, err := b.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestLogoutHandler_JunkDoesNotHideTheGoodToken(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies(), withExtractors(auth.FromBearer(), auth.FromHeader("X-T"), auth.FromQuery("t"), auth.FromCookie()))
	foreign := newBench(t, func(c *auth.Config) { c.Secrets = [][]byte{[]byte("another secret of 32 bytes or more")} })
	junk := func(n int) (values []string) {
		for i := range n {
			values = append(values, "x.y."+fmt.Sprint(i))
		}
		return append(values[:n-1], foreign.login(t).Refresh)
	}
	for name, tt := range map[string]struct {
		junk  int
		carry func(k auth.Tokens, values []string) []webOption
		kind  func(k auth.Tokens) string
	}{
		"refresh cookies": {800, func(_ auth.Tokens, v []string) []webOption { return []webOption{cookiesOf(refreshCookie, v...)} }, func(k auth.Tokens) string { return k.Refresh }},
		"access cookies":  {15, func(_ auth.Tokens, v []string) []webOption { return []webOption{cookiesOf(accessCookie, v...)} }, func(k auth.Tokens) string { return k.Access }},
		"headers":         {15, func(_ auth.Tokens, v []string) []webOption { return []webOption{webHeader("Refresh-Token", v...)} }, func(k auth.Tokens) string { return k.Refresh }},
		"access, headers": {15, func(_ auth.Tokens, v []string) []webOption { return []webOption{webHeader("Refresh-Token", v...)} }, func(k auth.Tokens) string { return k.Access }},
		"own headers":     {15, func(_ auth.Tokens, v []string) []webOption { return []webOption{webHeader("X-T", v...)} }, func(k auth.Tokens) string { return k.Access }},
		"bearer":          {15, func(_ auth.Tokens, v []string) []webOption { return []webOption{webBearer(strings.Join(v, " "))} }, func(k auth.Tokens) string { return k.Access }},
		"query": {15, func(_ auth.Tokens, v []string) []webOption {
			return []webOption{func(r *http.Request) { r.URL.RawQuery = "t=" + strings.Join(v, "&t=") }}
		}, func(k auth.Tokens) string { return k.Access }},
		"a cookie of the other kind": {15, func(_ auth.Tokens, v []string) []webOption { return []webOption{cookiesOf(refreshCookie, v...)} }, func(k auth.Tokens) string { return k.Access }},
		"a form": {15, func(_ auth.Tokens, v []string) []webOption {
			return []webOption{webForm("refresh_token=" + strings.Join(v, "&refresh_token="))}
		}, func(k auth.Tokens) string { return k.Refresh }},
	} {
		for _, at := range []int{0, tt.junk / 2, tt.junk} {
			k := b.login(t)
			values := slices.Insert(junk(tt.junk), at, tt.kind(k))
			ask(t, b.LogoutHandler(), "POST", "/logout", tt.carry(k, values)...).nothing(t)
			_, err := b.store.Store.Get(context.Background(), "u1", k.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound, "%s, at %d", name, at)
		}
	}
	// The same at a refresh.
	for _, at := range []int{0, 7, 15} {
		k := b.login(t)
		r := ask(t, b.RefreshHandler(), "POST", "/refresh", webHeader("Refresh-Token", slices.Insert(junk(15), at, k.Refresh)...))
		require.Equal(t, 200, r.status, r.body)
	}
}

func TestLogoutHandler_EndsWhatStandsInABodyThatIsNotWhatItSays(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	hosts := ""
	for i := range 50 {
		hosts += fmt.Sprintf("https://www%d.example.com/a.b.c%d ", i, i)
	}
	for _, body := range []func(token string) webOption{
		func(token string) webOption { return webForm(`{"refresh_token":"` + token + `"}`) }, // as curl -d says by itself
		func(token string) webOption { return webForm("user%5Brefresh_token%5D=" + token) },
		func(token string) webOption { return webForm("refresh_token=&token=" + token) },
		func(token string) webOption { return webJSON(`{"tokens":{"refresh_token":"` + token + `"}}`) },
		func(token string) webOption { return webBody("text/plain", hosts+token+" "+hosts) },
		func(token string) webOption { return webJSON(`["` + hosts + `","` + token + `"]`) },
	} {
		for _, access := range []bool{false, true} {
			k := b.login(t)
			token := k.Refresh
			if access {
				token = k.Access
			}
			ask(t, b.LogoutHandler(), http.MethodPost, "/logout", body(token)).nothing(t)
			_, err := b.store.Store.Get(context.Background(), "u1", k.SessionID)
			require.ErrorIs(t, err, auth.ErrSessionNotFound)
		}
	}
}

func TestLogoutHandler_TokenOfAnotherIssuerEndsNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	k := b.login(t)
	for _, change := range []func(*auth.Config){
		func(c *auth.Config) { c.Issuer = "https://other.example.com" },
		func(c *auth.Config) { c.Audience = []string{"https://other.example.com"} },
	} {
		other := newBench(t, change, func(c *auth.Config) { c.Store = b.store.Store }) // the same keys and sessions
		forged := other.login(t)
		for _, o := range []webOption{
			webBearer(forged.Access), webCookie(accessCookie, forged.Access), webHeader("Refresh-Token", forged.Refresh), webCookie(refreshCookie, forged.Refresh),
		} {
			ask(t, b.LogoutHandler(), http.MethodPost, "/logout", o).nothing(t)
		}
		_, err := b.store.Store.Get(context.Background(), "u1", forged.SessionID)
		require.NoError(t, err)
	}
	_, err := b.Verify(context.Background(), k.Access)
	require.NoError(t, err)
	require.Zero(t, b.store.count("Revoke"))
}

func TestLogoutHandler_WithoutAValidTokenSucceedsToo(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	ask(t, b.LogoutHandler(), http.MethodPost, "/logout").cleared(t)
	ask(t, b.LogoutHandler(), http.MethodPost, "/logout", webCookie(accessCookie, "")).cleared(t)
	for _, o := range []webOption{webCookie(accessCookie, "garbage"), webCookie(refreshCookie, "a.b.c")} {
		r := ask(t, b.LogoutHandler(), http.MethodPost, "/logout", o)
		r.nothing(t)
		r.cleared(t)
	}
	for _, o := range []webOption{webBearer("garbage"), webHeader("Refresh-Token", "x"), webJSON(`{"refresh_token":"x"}`)} {
		r := ask(t, b.LogoutHandler(), http.MethodPost, "/logout", o)
		r.nothing(t)
		require.NotContains(t, r.header, "Set-Cookie")
	}
	require.Zero(t, b.store.count("Revoke"), "garbage costs the store nothing")
	ask(t, newBench(t).LogoutHandler(), http.MethodPost, "/logout").nothing(t)
	ask(t, b.LogoutHandler(), http.MethodPost, "/logout", webJSON(`{"refresh_token":1}`)).nothing(t)
}

func TestLogoutHandler_CrossOriginIsRefusedAndEndsNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	k := b.login(t)
	for _, options := range [][]webOption{
		nil, {webCookie(accessCookie, k.Access)}, {webCookie(refreshCookie, k.Refresh)}, {webCookie(refreshCookie, "")},
		{webCookie(refreshCookie, k.Refresh), webHeader("Refresh-Token", k.Refresh)}, {webCookie(accessCookie, k.Access), webBearer("garbage")},
	} {
		ask(t, b.LogoutHandler(), http.MethodPost, "/logout", append(options, crossSite)...).refused(t, 403, "cross_origin", "")
	}
	require.Zero(t, b.store.count("Revoke"))
	// A token of his own in the body lets nobody clear the cookies of another.
	r := ask(t, b.LogoutHandler(), http.MethodPost, "/logout", webForm("refresh_token=x"), crossSite)
	r.nothing(t)
	require.NotContains(t, r.header, "Set-Cookie")
}

func TestLogoutHandler_OutageIs503AndKeepsTheCookies(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	k := b.login(t)
	b.store.failBefore("Revoke", errStore)
	ask(t, b.LogoutHandler(), http.MethodPost, "/logout", webCookie(refreshCookie, k.Refresh)).refused(t, 503, "temporarily_unavailable", "")
	b.store.failBefore("Revoke", nil)
	r := ask(t, b.LogoutHandler(), http.MethodPost, "/logout", webCookie(refreshCookie, k.Refresh))
	r.nothing(t)
	r.cleared(t)
	_, err := b.store.Store.Get(context.Background(), "u1", k.SessionID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound, "what failed is done when it is repeated")
}

func TestLogoutAllHandler_EndsAllOrTheOthers(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	h := b.LogoutAllHandler()
	live := func() []string {
		list, err := b.Sessions(context.Background(), "u1")
		require.NoError(t, err)
		var ids []string
		for _, s := range list {
			ids = append(ids, s.ID)
		}
		return ids
	}
	k, _ := b.login(t), b.login(t)
	bob, err := b.Login(context.Background(), "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)

	for _, query := range []string{"?others=1", "?others=yes", "?others=TRUE", "?others=True", "?others=truefalse"} {
		ask(t, h, http.MethodPost, "/logout/all"+query, webBearer(k.Access)).refused(t, 400, "invalid_request", "")
	}
	ask(t, h, http.MethodPost, "/logout/all").refused(t, 401, "missing_token", "login")
	ask(t, h, http.MethodPost, "/logout/all", webCookie(refreshCookie, k.Refresh)).refused(t, 401, "missing_token", "login")
	ask(t, h, http.MethodPost, "/logout/all", webCookie(accessCookie, k.Access), crossSite).refused(t, 403, "cross_origin", "")
	require.Len(t, live(), 2)

	r := ask(t, h, http.MethodPost, "/logout/all?others=true", webCookie(accessCookie, k.Access))
	r.nothing(t)
	require.NotContains(t, r.header, "Set-Cookie", "this session goes on")
	require.Equal(t, []string{k.SessionID}, live())

	b.store.failBefore("Revoke", errStore)
	ask(t, h, http.MethodPost, "/logout/all?others=true", webCookie(accessCookie, k.Access)).refused(t, 503, "temporarily_unavailable", "")
	b.store.failBefore("Revoke", nil)

	r = ask(t, h, http.MethodPost, "/logout/all?others=false", webCookie(accessCookie, k.Access))
	r.nothing(t)
	r.cleared(t)
	require.Empty(t, live())
	_, err = b.Verify(context.Background(), bob.Access)
	require.NoError(t, err)

	b.clock.advance(time.Minute)
	r = ask(t, h, http.MethodPost, "/logout/all", webBearer(b.login(t).Access))
	r.nothing(t)
	require.NotContains(t, r.header, "Set-Cookie")
	require.Empty(t, live())
	b.clock.advance(time.Minute)
	k = b.login(t)
	b.clock.advance(16 * time.Minute)
	ask(t, h, http.MethodPost, "/logout/all", webBearer(k.Access)).refused(t, 401, "invalid_token", "refresh")
}

func TestSessionsHandler_ListsLiveSessions(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *auth.Config) { c.MaxSessions = -1 })
	ctx := context.Background()
	old := b.login(t)
	b.clock.advance(time.Hour)
	r := ask(t, b.LoginHandler(), http.MethodPost, "/login", webJSON(`{"login":"ada","password":"`+pass+`","device":"phone"}`), webHeader("User-Agent", "curl/8"))
	m := r.fields(t)
	b.clock.advance(time.Minute)
	now := ask(t, b.RefreshHandler(), http.MethodPost, "/refresh", webHeader("Refresh-Token", m["refresh_token"].(string)), webHeader("User-Agent", "curl/9")).fields(t)
	gone := b.login(t)
	require.NoError(t, b.Revoke(ctx, "u1", gone.SessionID))
	_, err := b.Login(ctx, "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)

	bearer := webBearer(now["access_token"].(string))
	r = ask(t, b.SessionsHandler(), http.MethodGet, "/sessions", bearer)
	require.Equal(t, http.StatusOK, r.status)
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
	require.Equal(t, "nosniff", r.header.Get("X-Content-Type-Options"))
	require.JSONEq(t, fmt.Sprintf(`{"sessions":[
		{"id":%q,"name":"phone","user_agent":"curl/9","ip":"192.0.2.1","created_at":"2026-11-20T13:00:00Z","last_used_at":"2026-11-20T13:01:00Z","expires_at":"2026-11-27T13:01:00Z","current":true},
		{"id":%q,"created_at":"2026-11-20T12:00:00Z","last_used_at":"2026-11-20T12:00:00Z","expires_at":"2026-11-27T12:00:00Z","current":false}]}`,
		now["session_id"], old.SessionID), r.body)
	require.NotContains(t, r.body, "generation")
	head := ask(t, b.SessionsHandler(), http.MethodHead, "/sessions", bearer)
	require.Equal(t, http.StatusOK, head.status)

	b.clock.advance(7*24*time.Hour - time.Minute) // the older one has expired, and so has the access token
	again, err := b.Refresh(ctx, now["refresh_token"].(string), auth.RefreshOptions{})
	require.NoError(t, err)
	r = ask(t, b.SessionsHandler(), http.MethodGet, "/sessions", webBearer(again.Access))
	require.Len(t, r.fields(t)["sessions"], 1)

	for range 105 {
		s := auth.Session{ID: fmt.Sprint("s", time.Now().UnixNano()), Subject: "u1", Generation: 1, CreatedAt: b.clock.Now(), RotatedAt: b.clock.Now(), ExpiresAt: b.clock.Now().Add(time.Hour)}
		require.NoError(t, b.store.Create(ctx, s))
	}
	r = ask(t, b.SessionsHandler(), http.MethodGet, "/sessions", webBearer(again.Access))
	require.Len(t, r.fields(t)["sessions"], 100)

	b.store.failBefore("List", errStore)
	ask(t, b.SessionsHandler(), http.MethodGet, "/sessions", webBearer(again.Access)).refused(t, 503, "temporarily_unavailable", "")
	ask(t, b.SessionsHandler(), http.MethodGet, "/sessions").refused(t, 401, "missing_token", "login")
}

func TestSessionsHandler_EndsOnlyOnesOwn(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	ctx := context.Background()
	h := b.Handler()
	this, other := b.login(t), b.login(t)
	bob, err := b.Login(ctx, "bob", pass, auth.SessionOptions{})
	require.NoError(t, err)
	cookie := webCookie(accessCookie, this.Access)

	for _, id := range []string{bob.SessionID, "nothing", strings.ToUpper(other.SessionID), "%00", ".%2e"} {
		ask(t, h, http.MethodDelete, "/sessions/"+id, cookie).refused(t, 404, "not_found", "")
	}
	require.Zero(t, b.store.count("Revoke"))
	ask(t, h, http.MethodDelete, "/sessions/"+other.SessionID, cookie, crossSite).refused(t, 403, "cross_origin", "")
	ask(t, h, http.MethodDelete, "/sessions/"+other.SessionID).refused(t, 401, "missing_token", "login")
	ask(t, h, http.MethodDelete, "/sessions/"+other.SessionID, webCookie(refreshCookie, this.Refresh)).refused(t, 401, "missing_token", "login")

	r := ask(t, h, http.MethodDelete, "/sessions/"+other.SessionID, cookie)
	r.nothing(t)
	require.NotContains(t, r.header, "Set-Cookie")
	_, err = b.Verify(ctx, other.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	ask(t, h, http.MethodDelete, "/sessions/"+other.SessionID, cookie).refused(t, 404, "not_found", "")

	b.store.failBefore("List", errStore)
	ask(t, h, http.MethodDelete, "/sessions/"+this.SessionID, cookie).refused(t, 503, "temporarily_unavailable", "")
	b.store.failBefore("List", nil)

	r = ask(t, h, http.MethodDelete, "/sessions/"+this.SessionID, cookie)
	r.nothing(t)
	r.cleared(t)
	_, err = b.Verify(ctx, this.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)

	this = b.login(t)
	r = ask(t, h, http.MethodDelete, "/sessions/"+this.SessionID, webBearer(this.Access))
	r.nothing(t)
	require.NotContains(t, r.header, "Set-Cookie")

	this = b.login(t)
	b.store.failBefore("Revoke", errStore)
	ask(t, h, http.MethodDelete, "/sessions/"+this.SessionID, webCookie(accessCookie, this.Access)).refused(t, 503, "temporarily_unavailable", "")
}

func TestHandlers_VaryByWhatTheyLookAt(t *testing.T) {
	t.Parallel()
	names := func(h http.Handler, method, path string) []string {
		set := map[string]bool{}
		for _, name := range strings.Split(strings.Join(ask(t, h, method, path).header.Values("Vary"), ","), ",") {
			if name = strings.TrimSpace(name); name != "" {
				set[name] = true
			}
		}
		return slices.Sorted(maps.Keys(set))
	}
	h, plain := newBench(t, withCookies()).Handler(), newBench(t, withExtractors(auth.FromBearer(), auth.FromHeader("X-T"))).Handler()
	for _, tt := range []struct{ method, path, cookies, plain string }{
		{"POST", "/login", "Cookie", ""},
		{"POST", "/refresh", "Cookie Refresh-Token", "Refresh-Token"},
		{"POST", "/logout", "Authorization Cookie Refresh-Token", "Authorization Refresh-Token X-T"},
		{"POST", "/logout/all", "Authorization Cookie", "Authorization X-T"},
		{"GET", "/sessions", "Authorization Cookie", "Authorization X-T"},
		{"DELETE", "/sessions/x", "Authorization Cookie", "Authorization X-T"},
	} {
		require.Equal(t, strings.Fields(tt.cookies), append([]string{}, names(h, tt.method, tt.path)...), tt.path)
		require.Equal(t, strings.Fields(tt.plain), append([]string{}, names(plain, tt.method, tt.path)...), tt.path)
	}
}

// surfer is a browser: a client with a cookie jar, before a server with TLS.
type surfer struct {
	t      *testing.T
	client *http.Client
	url    string
}

func newSurfer(t *testing.T, h http.Handler) *surfer {
	t.Helper()
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	client := server.Client()
	client.Jar = jar
	return &surfer{t, client, server.URL}
}

func (s *surfer) do(method, path string, options ...webOption) webReply {
	s.t.Helper()
	r, err := http.NewRequest(method, s.url+path, nil)
	require.NoError(s.t, err)
	for _, o := range options {
		o(r)
	}
	res, err := s.client.Do(r)
	require.NoError(s.t, err)
	return readReply(s.t, res)
}

// holds returns the cookies that the browser would send to path.
func (s *surfer) holds(path string) map[string]string {
	u, err := url.Parse(s.url + path)
	require.NoError(s.t, err)
	m := map[string]string{}
	for _, c := range s.client.Jar.Cookies(u) {
		m[c.Name] = c.Value
	}
	return m
}

func TestBrowser_LoginRefreshAndLogoutByCookies(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*auth.Cookies){
		func(*auth.Cookies) {},
		func(c *auth.Cookies) { c.InsecureNames, c.AccessName, c.RefreshName = true, "a", "r" },
	} {
		b := newBench(t, withCookies(change))
		mux := http.NewServeMux()
		mux.Handle("/auth/", http.StripPrefix("/auth", b.Handler()))
		mux.Handle("GET /me", b.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _ := auth.FromContext(r.Context())
			_, _ = io.WriteString(w, c.Username)
		})))
		s := newSurfer(t, mux)
		s.do("GET", "/me").refused(t, 401, "missing_token", "login")
		require.Equal(t, 200, s.do("POST", "/auth/login", webJSON(goodLogin)).status)
		require.Len(t, s.holds("/auth/refresh"), 2)
		require.Equal(t, "ada", s.do("GET", "/me").body)
		before := s.holds("/auth/refresh")
		b.clock.advance(16 * time.Minute)
		s.do("GET", "/me").refused(t, 401, "invalid_token", "refresh")
		require.Equal(t, 200, s.do("POST", "/auth/refresh").status)
		for name, value := range s.holds("/auth/refresh") {
			require.NotEqual(t, before[name], value)
		}
		require.Equal(t, "ada", s.do("GET", "/me").body)
		s.do("POST", "/auth/logout").nothing(t)
		require.Empty(t, s.holds("/auth/refresh"))
		s.do("GET", "/me").refused(t, 401, "missing_token", "login")
		s.do("POST", "/auth/refresh").refused(t, 400, "invalid_request", "login")
	}
}

func TestHandlers_ThatEndOnesOwnSessionClearTheCookieThatCounted(t *testing.T) {
	t.Parallel()
	b := newBench(t, withCookies())
	for _, dead := range []webOption{webBearer("junk"), webHeader("Authorization", "Bearer "), webHeader("Authorization", "Basic x")} {
		k := b.login(t)
		ask(t, b.Handler(), "DELETE", "/sessions/"+k.SessionID, dead, webCookie(accessCookie, k.Access)).cleared(t)
		k = b.login(t)
		ask(t, b.Handler(), "POST", "/logout/all", dead, webCookie(accessCookie, k.Access)).cleared(t)
		b.clock.advance(time.Minute)
	}
	// So is a cookie that counts beside a good header.
	for _, same := range []bool{true, false} {
		for _, path := range []string{"/sessions/", "/logout/all"} {
			k := b.login(t)
			header := webBearer(k.Access)
			if !same {
				b.clock.advance(time.Minute)
				next, err := b.Refresh(context.Background(), k.Refresh, auth.RefreshOptions{})
				require.NoError(t, err)
				header = webBearer(next.Access)
			}
			method := "POST"
			if path == "/sessions/" {
				method, path = "DELETE", path+k.SessionID
			}
			ask(t, b.Handler(), method, path, header, webCookie(accessCookie, k.Access)).cleared(t)
			b.clock.advance(time.Minute)
		}
	}
	// A dead cookie beside a good header is not the client's way.
	k := b.login(t)
	r := ask(t, b.Handler(), "POST", "/logout/all", webBearer(k.Access), webCookie(accessCookie, "junk"), crossSite)
	r.nothing(t)
	require.NotContains(t, r.header, "Set-Cookie")
}

func TestLogoutAllHandler_AmbiguousQueryEndsNothing(t *testing.T) {
	t.Parallel()
	for _, q := range []string{"?others=true&x=%zz", "?others=%zz", "?others=true;x", "?others=false&others=true", "?others=true&others=false"} {
		b := newBench(t)
		k := b.login(t)
		b.login(t)
		ask(t, b.LogoutAllHandler(), "POST", "/logout/all"+q, webBearer(k.Access)).refused(t, 400, "invalid_request", "")
		require.Zero(t, b.store.count("Revoke"), q)
	}
}

func TestSessionsHandler_EndThatTheStoreDidNotConfirmIsRepeated(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	this, other := b.login(t), b.login(t)
	b.store.failBefore("Revoke", errStore)
	ask(t, b.Handler(), "DELETE", "/sessions/"+other.SessionID, webBearer(this.Access)).refused(t, 503, "temporarily_unavailable", "")
	ask(t, b.Handler(), "DELETE", "/sessions/"+other.SessionID, webBearer(this.Access)).refused(t, 503, "temporarily_unavailable", "")
	b.store.failBefore("Revoke", nil)
	require.Equal(t, 204, ask(t, b.Handler(), "DELETE", "/sessions/"+other.SessionID, webBearer(this.Access)).status)
	ask(t, b.Handler(), "DELETE", "/sessions/"+other.SessionID, webBearer(this.Access)).refused(t, 404, "not_found", "")
}

func TestLoginHandler_ReadsAFormThatWasParsedOutside(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.FormValue("csrf")
		b.LoginHandler().ServeHTTP(w, r)
	})
	for _, more := range []string{"", "&remember=0&remember=1", "&note=%ff&q=%zz&a;b"} {
		r := ask(t, h, "POST", "/login", webForm("login=ada&password=correct+horse+battery+staple"+more))
		require.Equal(t, 200, r.status, r.body)
	}
	for _, more := range []string{"&login=bob", "&device=%ff", "&password=x"} {
		ask(t, h, "POST", "/login", webForm("login=ada&password=correct+horse+battery+staple"+more)).refused(t, 400, "invalid_request", "")
	}
	// A logout ends all that were sent, also if one field is there twice.
	h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.FormValue("csrf")
		b.LogoutHandler().ServeHTTP(w, r)
	})
	one, two := b.login(t), b.login(t)
	ask(t, h, "POST", "/logout", webForm("refresh_token="+one.Refresh+"&refresh_token="+two.Refresh)).nothing(t)
	for _, k := range []auth.Tokens{one, two} {
		_, err := b.store.Store.Get(context.Background(), "u1", k.SessionID)
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
	}
}

func TestLoginHandler_BodyThatIsBoundedOutsideIs413(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	h := http.MaxBytesHandler(b.LoginHandler(), 10)
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/login", strings.NewReader(goodLogin))
	r.Header.Set("Content-Type", "application/json")
	h.ServeHTTP(w, r)
	require.Equal(t, 413, w.Code)
}
