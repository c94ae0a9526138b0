package auth_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

func TestLoginHandler_ReturnsTokensInTheBody(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for _, body := range []requestOption{
		reqJSON(goodLogin),
		reqJSON(`{"username":"ada","password":"` + pass + `"}`),
		reqJSON(`{"email":"ada@example.com","password":"` + pass + `"}`),
		reqJSON(`{"login_id":"ADA","password":"` + pass + `"}`),
		reqJSON(` { "login" : "ada" , "username" : "" , "email" : null , "password":"` + pass + `","device":null,"delivery":"" } `),
		reqJSON(`{"login":"ada","password":"` + pass + `","nested":{"login":"bob","password":["x"]},"n":1,"b":true,"l":[{"login":"bob"}]}`),
		reqJSON(`{"\u006cogin":"ada","p\u0061ssword":"correct horse battery\u0020staple"}`),
		reqJSON(`{"login":"ada","password":"` + pass + `","delivery":"body"}`),
		reqBody("application/json; charset=UTF-8", goodLogin),
		reqBody("Application/JSON;charset=\"utf-8\"", goodLogin),
		reqForm("login=ada&password=correct+horse%20battery+staple"),
		reqForm("email=ada%40example.com&password=correct+horse+battery+staple&unknown=1"),
		reqForm("login=ada&password=correct+horse+battery+staple&remember=0&remember=1"),
		reqForm("%ff=1&login=ada&password=correct+horse+battery+staple&note=%ff&\xff=\xff"),
		reqForm("note=100%&login=ada&&password=correct+horse+battery+staple&%zz&a;b=c&=x&LOGIN=bob"),
		reqForm("\ufefflogin=ada&password=correct+horse+battery+staple"),
		reqJSON("\ufeff" + goodLogin),
		reqBody("application/json; charset=utf8", goodLogin),
		reqBody("application/json; charset=\"UTF8\"", goodLogin),
		reqBody("application/json; odata=verbose; charset=Utf-8", goodLogin),
		reqBody("application/x-www-form-urlencoded;charset=utf8", "login=ada&password=correct+horse+battery+staple"),
		reqBody("application/x-www-form-urlencoded; charset=utf-8", "username=ada&password=correct+horse+battery+staple"),
	} {
		r := send(t, fx.LoginHandler(), http.MethodPost, "/login", body)
		require.Equal(t, http.StatusOK, r.status, r.body)
		m := r.fields(t)
		require.ElementsMatch(
			t, []string{"access_token", "token_type", "expires_in", "refresh_token", "refresh_expires_in", "session_id"},
			slices.Collect(maps.Keys(m)),
		)
		require.Equal(t, "Bearer", m["token_type"])
		require.EqualValues(t, 15*60, m["expires_in"])
		require.EqualValues(t, 7*24*60*60, m["refresh_expires_in"])
		c, err := fx.Verify(context.Background(), m["access_token"].(string))
		require.NoError(t, err)
		require.Equal(t, "u1", c.Subject)
		require.Equal(t, c.SessionID, m["session_id"])
		_, err = fx.Refresh(context.Background(), m["refresh_token"].(string), auth.RefreshOptions{})
		require.NoError(t, err)
		require.Equal(t, "application/json; charset=utf-8", r.header.Get("Content-Type"))
		require.Equal(t, "no-store", r.header.Get("Cache-Control"))
		require.Equal(t, "nosniff", r.header.Get("X-Content-Type-Options"))
		require.NotContains(t, r.header, "Set-Cookie")
	}
}

func TestLoginHandler_RefusesMalformedRequests(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	login := func(s string) string { return strings.Replace(goodLogin, "}", s+"}", 1) }
	tests := map[string]struct {
		body   requestOption
		status int
	}{
		"no body":                        {func(*http.Request) {}, 400},
		"empty body of no type":          {reqBody("", ""), 400},
		"empty object":                   {reqJSON(`{}`), 400},
		"no password":                    {reqJSON(`{"login":"ada"}`), 400},
		"empty password":                 {reqJSON(`{"login":"ada","password":""}`), 400},
		"null password":                  {reqJSON(`{"login":"ada","password":null}`), 400},
		"no login":                       {reqJSON(`{"password":"x"}`), 400},
		"empty login":                    {reqJSON(`{"login":"","password":"x"}`), 400},
		"two aliases":                    {reqJSON(login(`,"username":"ada"`)), 400},
		"two other aliases":              {reqJSON(`{"email":"ada","login_id":"ada","password":"` + pass + `"}`), 400},
		"login is a number":              {reqJSON(`{"login":1,"password":"x"}`), 400},
		"login is a list":                {reqJSON(`{"login":["ada"],"password":"` + pass + `"}`), 400},
		"alias is of another type":       {reqJSON(login(`,"email":{}`)), 400},
		"password is an object":          {reqJSON(`{"login":"ada","password":{"x":1}}`), 400},
		"password is a boolean":          {reqJSON(`{"login":"ada","password":true}`), 400},
		"device is a number":             {reqJSON(login(`,"device":7`)), 400},
		"delivery is a list":             {reqJSON(login(`,"delivery":[]`)), 400},
		"delivery is not known":          {reqJSON(login(`,"delivery":"header"`)), 400},
		"delivery in another letter":     {reqJSON(login(`,"delivery":"Body"`)), 400},
		"cookies are not offered":        {reqJSON(login(`,"delivery":"cookie"`)), 400},
		"duplicate field":                {reqJSON(login(`,"login":"ada"`)), 400},
		"duplicate field, escaped":       {reqJSON(login(`,"\u006cogin":"ada"`)), 400},
		"duplicate field of no interest": {reqJSON(login(`,"x":1,"x":1`)), 400},
		"duplicate field, nested":        {reqJSON(login(`,"x":{"y":1,"y":1}`)), 400},
		"name in another letter case":    {reqJSON(`{"LOGIN":"ada","password":"x"}`), 400},
		"trailing object":                {reqJSON(goodLogin + goodLogin), 400},
		"trailing letter":                {reqJSON(goodLogin + "x"), 400},
		"trailing NUL":                   {reqJSON(goodLogin + "\x00"), 400},
		"two byte order marks":           {reqJSON("\ufeff\ufeff" + goodLogin), 400},
		"byte order mark of UTF-16":      {reqJSON("\xff\xfe" + goodLogin), 400},
		"byte order mark and no more":    {reqJSON("\ufeff"), 400},
		"trailing comma":                 {reqJSON(login(",")), 400},
		"list":                           {reqJSON(`[` + goodLogin + `]`), 400},
		"string":                         {reqJSON(`"ada"`), 400},
		"not JSON":                       {reqJSON("login=ada&password=" + pass), 400},
		"cut off":                        {reqJSON(goodLogin[:len(goodLogin)-1]), 400},
		"JSON that is not UTF-8":         {reqJSON("{\"login\":\"ada\xff\",\"password\":\"x\"}"), 400},
		"not UTF-8 in a name":            {reqJSON(login(",\"\xff\":1")), 400},
		"lone surrogate":                 {reqJSON(`{"login":"\ud800","password":"x"}`), 400},
		"nested too deeply":              {reqJSON(login(`,"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40))), 400},
		"form field twice":               {reqForm("login=ada&login=ada&password=x"), 400},
		"form field twice, once empty":   {reqForm("login=ada&login=&password=x"), 400},
		"form field twice, escaped":      {reqForm("login=ada&l%6Fgin=ada&password=x"), 400},
		"form device twice":              {reqForm("login=ada&password=correct+horse+battery+staple&device=a&device=b"), 400},
		"form device is not UTF-8":       {reqForm("login=ada&password=correct+horse+battery+staple&device=%ff"), 400},
		"form of nothing":                {reqForm("%zz"), 400},
		"form of semicolons":             {reqForm(";;"), 400},
		"form password twice":            {reqForm("login=ada&password=x&password=" + url.QueryEscape(pass)), 400},
		"form with two aliases":          {reqForm("login=ada&username=ada&password=x"), 400},
		"form that is not UTF-8":         {reqForm("login=%ff&password=x"), 400},
		"form with a bad escape":         {reqForm("login=%zz&password=x"), 400},
		"form with a semicolon":          {reqForm("login=ada;password=x"), 400},
		"form without password":          {reqForm("login=ada"), 400},
		"plain text":                     {reqBody("text/plain", goodLogin), 415},
		"multipart": {
			reqBody("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"login\"\r\n\r\nada\r\n--x--\r\n"),
			415,
		},
		"no type":                    {reqBody("", goodLogin), 415},
		"not a type":                 {reqBody("json", goodLogin), 415},
		"malformed type":             {reqBody("application/json; charset", goodLogin), 415},
		"type like JSON":             {reqBody("application/json-patch+json", goodLogin), 415},
		"type that begins like JSON": {reqBody("application/jsonp", goodLogin), 415},
		"charset twice":              {reqBody("application/json; charset=utf-8; charset=latin1", goodLogin), 415},
		"charset like UTF-8":         {reqBody("application/json; charset=utf-80", goodLogin), 415},
		"other charset":              {reqBody("application/json; charset=iso-8859-1", goodLogin), 415},
		"other charset of a form":    {reqBody("application/x-www-form-urlencoded; charset=utf-16", "login=ada&password=x"), 415},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			send(t, fx.LoginHandler(), http.MethodPost, "/login", tt.body).requireRefused(t, tt.status, "invalid_request", "")
		})
	}
}

func TestLoginHandler_BodyIsBoundedExactly(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	server := httptest.NewServer(fx.LoginHandler())
	t.Cleanup(server.Close)
	padded := func(n int) string { return goodLogin + strings.Repeat(" ", n-len(goodLogin)) }
	for _, chunked := range []bool{false, true} {
		post := func(body string) response {
			var reader io.Reader = strings.NewReader(body)
			if chunked {
				reader = struct{ io.Reader }{reader} // the length is unknown
			}
			res, err := http.Post(server.URL, "application/json", reader)
			require.NoError(t, err)
			return readResponse(t, res)
		}
		require.Equal(t, http.StatusOK, post(padded(16<<10)).status)
		post(padded(16<<10+1)).requireRefused(t, http.StatusRequestEntityTooLarge, "invalid_request", "")
	}
	// A Content-Length above the limit is refused before anything is read.
	unread := func(r *http.Request) {
		reqJSON("")(r)
		r.Body, r.ContentLength = io.NopCloser(untouchable{t}), 16<<10+1
	}
	send(t, fx.LoginHandler(), http.MethodPost, "/login", unread).requireRefused(t, http.StatusRequestEntityTooLarge, "invalid_request", "")
}

type untouchable struct{ t testing.TB }

func (u untouchable) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func TestLoginHandler_RefusesATruncatedBody(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	broken := func(r *http.Request) {
		reqJSON(goodLogin)(r)
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader(goodLogin), brokenReader{}))
	}
	send(t, fx.LoginHandler(), http.MethodPost, "/login", broken).requireRefused(t, http.StatusBadRequest, "invalid_request", "")
	require.Zero(t, fx.store.count("Create"))
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestLoginHandler_AllRefusalsAreEqual(t *testing.T) {
	t.Parallel()
	for _, change := range [][]func(*auth.Config){nil, {withCookies()}} {
		fx := newFixture(t, change...)
		fx.users.change("u2", func(u *auth.User) { u.Disabled = true })
		var answers []response
		for _, body := range []string{
			`{"login":"nobody","password":"` + pass + `"}`,
			`{"login":"ada","password":"wrong"}`,
			`{"login":"bob","password":"` + pass + `"}`,
			`{"login":"bob","password":"wrong"}`,
			`{"login":"ada","password":"` + strings.Repeat("x", 5000) + `"}`,
		} {
			r := send(t, fx.LoginHandler(), http.MethodPost, "/login", reqJSON(body))
			r.requireRefused(t, http.StatusUnauthorized, "invalid_credentials", "login")
			require.NotContains(t, r.header, "Www-Authenticate")
			answers = append(answers, r)
		}
		for _, r := range answers[1:] {
			require.Equal(t, answers[0], r)
		}
		require.Zero(t, fx.store.count("Create"))
	}
}

func TestLoginHandler_DeliversByCookieOrBody(t *testing.T) {
	t.Parallel()
	wish := func(s string) requestOption {
		return reqJSON(`{"login":"ada","password":"` + pass + `","delivery":"` + s + `"}`)
	}
	fx := newFixture(t, withCookies())
	for _, body := range []requestOption{reqJSON(goodLogin), wish(""), wish("cookie")} {
		r := send(t, fx.LoginHandler(), http.MethodPost, "/login", body)
		require.Equal(t, http.StatusOK, r.status, r.body)
		require.ElementsMatch(t, []string{"token_type", "expires_in", "refresh_expires_in", "session_id"}, slices.Collect(maps.Keys(r.fields(t))))
		require.Len(t, r.cookies, 3)
		for _, c := range r.cookies {
			require.NotContains(t, r.body, c.Value)
		}
		require.Equal(t, "no-store", r.header.Get("Cache-Control"))
		require.Contains(t, r.header.Values("Vary"), "Cookie")
	}
	send(t, fx.LoginHandler(), http.MethodPost, "/login", wish("body")).requireRefused(t, 400, "invalid_request", "")
	require.Equal(t, 3, fx.store.count("Create"), "a delivery that is not offered must create no session")

	fx = newFixture(t, withCookies(allowBody))
	r := send(t, fx.LoginHandler(), http.MethodPost, "/login", wish("body"))
	require.Equal(t, http.StatusOK, r.status, r.body)
	require.NotEmpty(t, r.fields(t)["refresh_token"])
	require.NotContains(t, r.header, "Set-Cookie")
	require.Len(t, send(t, fx.LoginHandler(), http.MethodPost, "/login", wish("")).cookies, 3)
	send(t, fx.LoginHandler(), http.MethodPost, "/login", wish("Cookie")).requireRefused(t, 400, "invalid_request", "")
}

func TestLoginHandler_StoresTheDeviceWithACleanName(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	body, err := json.Marshal(map[string]string{"login": "ada", "password": pass, "device": "  Ada\u202e's\x1b[31m phone\n" + strings.Repeat("é", 100)})
	require.NoError(t, err)
	r := send(t, fx.LoginHandler(), http.MethodPost, "/login", reqJSON(string(body)), reqHeader("User-Agent", "curl/8"))
	require.Equal(t, http.StatusOK, r.status)
	list, err := fx.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "Ada's[31m phone"+strings.Repeat("é", 42), list[0].Name())
	require.Equal(t, "curl/8", list[0].Device.UserAgent)
	require.Equal(t, "192.0.2.1", list[0].Device.IP.String())
}

func TestLoginHandler_EndsTheSessionWhoseCookieItReplaces(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(allowBody))
	first := send(t, fx.LoginHandler(), http.MethodPost, "/login", reqJSON(goodLogin))
	held := reqCookie(refreshCookie, first.cookies[refreshCookie].Value)
	// A login with the tokens in the body keeps the cookie and its session.
	other := send(t, fx.LoginHandler(), http.MethodPost, "/login", held, reqJSON(`{"login":"ada","password":"`+pass+`","delivery":"body"}`))
	require.Equal(t, http.StatusOK, other.status)
	_, err := fx.store.Store.Get(context.Background(), "u1", first.fields(t)["session_id"].(string))
	require.NoError(t, err)
	second := send(t, fx.LoginHandler(), http.MethodPost, "/login", held, reqJSON(goodLogin))
	require.Equal(t, http.StatusOK, second.status)
	_, err = fx.store.Store.Get(context.Background(), "u1", first.fields(t)["session_id"].(string))
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
	// An invalid cookie does not prevent a login. The sessions of another
	// user's cookies, of either kind, are ended.
	bob := reqJSON(`{"login":"bob","password":"` + pass + `"}`)
	r := send(t, fx.LoginHandler(), http.MethodPost, "/login", reqCookie(refreshCookie, "garbage"), bob)
	require.Equal(t, http.StatusOK, r.status)
	_, err = fx.store.Store.Get(context.Background(), "u1", second.fields(t)["session_id"].(string))
	require.NoError(t, err)
	third := send(t, fx.LoginHandler(), http.MethodPost, "/login", reqJSON(goodLogin))
	r = send(t, fx.LoginHandler(), http.MethodPost, "/login", reqCookie(refreshCookie, second.cookies[refreshCookie].Value),
		reqCookie(accessCookie, third.cookies[accessCookie].Value), bob)
	require.Equal(t, http.StatusOK, r.status)
	for _, gone := range []response{second, third} {
		_, err = fx.store.Store.Get(context.Background(), "u1", gone.fields(t)["session_id"].(string))
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
	}
}

func TestLoginHandler_OutageIs503AndSetsNoCookie(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	fx.store.failBefore("Create", errStore)
	send(t, fx.LoginHandler(), http.MethodPost, "/login", reqJSON(goodLogin)).requireRefused(t, 503, "temporarily_unavailable", "")
	fx.store.failBefore("Create", nil)
	fx.users.mu.Lock()
	fx.users.fail = errStore
	fx.users.mu.Unlock()
	send(t, fx.LoginHandler(), http.MethodPost, "/login", reqJSON(goodLogin)).requireRefused(t, 503, "temporarily_unavailable", "")
}

func TestLoginHandler_ReadsAFormParsedBefore(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.FormValue("csrf")
		fx.LoginHandler().ServeHTTP(w, r)
	})
	for _, more := range []string{"", "&remember=0&remember=1", "&note=%ff&q=%zz&a;b"} {
		r := send(t, h, "POST", "/login", reqForm("login=ada&password=correct+horse+battery+staple"+more))
		require.Equal(t, 200, r.status, r.body)
	}
	for _, more := range []string{"&login=bob", "&device=%ff", "&password=x"} {
		send(t, h, "POST", "/login", reqForm("login=ada&password=correct+horse+battery+staple"+more)).requireRefused(t, 400, "invalid_request", "")
	}
	// A logout ends the sessions of all tokens, even if a field occurs twice.
	h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.FormValue("csrf")
		fx.LogoutHandler().ServeHTTP(w, r)
	})
	one, two := fx.login(t), fx.login(t)
	send(t, h, "POST", "/logout", reqForm("refresh_token="+one.Refresh+"&refresh_token="+two.Refresh)).requireNoContent(t)
	for _, k := range []auth.Tokens{one, two} {
		_, err := fx.store.Store.Get(context.Background(), "u1", k.SessionID)
		require.ErrorIs(t, err, auth.ErrSessionNotFound)
	}
}

func TestLoginHandler_BodyOverAnOuterLimitIs413(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	h := http.MaxBytesHandler(fx.LoginHandler(), 10)
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/login", strings.NewReader(goodLogin))
	r.Header.Set("Content-Type", "application/json")
	h.ServeHTTP(w, r)
	require.Equal(t, 413, w.Code)
}
