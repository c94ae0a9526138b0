package oauth_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/oauth"
)

func TestToken_RefreshesASession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{})
	old := fx.login(t)
	for _, path := range []string{"/token", "token"} { // http.StripPrefix may remove the slash
		r := send(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path = path
			fx.ServeHTTP(w, r)
		}), http.MethodPost, "/", refreshForm(old.Refresh))
		require.Equal(t, http.StatusOK, r.status, r.text)
		m := r.fields(t)
		require.Equal(t, "Bearer", m["token_type"])
		require.Equal(t, 900.0, m["expires_in"])
		require.Equal(t, "pay read", m["scope"])
		require.Equal(t, old.SessionID, m["session_id"])
		require.Equal(t, true, m["rotated"])
		require.NotEqual(t, old.Refresh, m["refresh_token"])
		require.Len(t, m, 8)
		c, err := fx.Verify(t.Context(), m["access_token"].(string))
		require.NoError(t, err)
		require.Equal(t, "u1", c.Subject)
		require.Equal(t, "no-store", r.header.Get("Cache-Control"))
		require.Equal(t, "no-cache", r.header.Get("Pragma"))
		require.Equal(t, "application/json; charset=utf-8", r.header.Get("Content-Type"))
		require.Empty(t, r.header["Set-Cookie"])
	}
	require.Equal(t, 1, fx.store.rotations(), "the second request is a retry")

	fresh := fx.login(t)
	require.Equal(t, http.StatusOK, fx.post(t, "/token", refreshForm(fresh.Refresh), "User-Agent", "agent").status)
	session, err := fx.store.Get(t.Context(), "u1", fresh.SessionID)
	require.NoError(t, err)
	require.Equal(t, "agent", session.Device.UserAgent)
	require.Equal(t, "192.0.2.1", session.Device.IP.String())
}

func TestToken_RefusesAsRFC6749Says(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{})
	good := fx.login(t).Refresh
	for _, c := range []struct {
		form, header string
		status       int
		code, text   string
	}{
		{"", "", 400, "invalid_request", "grant_type is missing in the body"},
		{"grant_type=&refresh_token=" + good, "", 400, "invalid_request", "grant_type is missing in the body"},
		{"refresh_token=" + good, "", 400, "invalid_request", "grant_type is missing in the body"},
		{"grant_type=refresh_token", "", 400, "invalid_request", "refresh_token is missing in the body"},
		{"grant_type=refresh_token&refresh_token=", "", 400, "invalid_request", "refresh_token is missing in the body"},
		{"grant_type=refresh_token&refreshToken=" + good, "", 400, "invalid_request", "refresh_token is missing in the body"},
		{"grant_type=password&username=ada&password=x", "", 400, "unsupported_grant_type", "the only grant_type is refresh_token"},
		{"grant_type=authorization_code&code=x", "", 400, "unsupported_grant_type", "the only grant_type is refresh_token"},
		{"grant_type=client_credentials", "", 400, "unsupported_grant_type", "the only grant_type is refresh_token"},
		{"grant_type=refresh_token%00&refresh_token=" + good, "", 400, "unsupported_grant_type", "the only grant_type is refresh_token"},
		{"grant_type=%ff&refresh_token=" + good, "", 400, "unsupported_grant_type", "the only grant_type is refresh_token"},
		{refreshForm("x"), "", 400, "invalid_grant", "the token is not valid: it does not have three parts with dots between them"},
		{refreshForm(good + "%00"), "", 400, "invalid_grant", ""},
		{refreshForm("%ff"), "", 400, "invalid_grant", ""},
		{refreshForm(strings.Repeat("a", 9000)), "", 400, "invalid_grant", ""},
		{refreshForm(good) + "&scope=pay++read", "", 400, "invalid_scope", "scope is malformed"},
		{refreshForm(good) + "&scope=%22", "", 400, "invalid_scope", "scope is malformed"},
		{refreshForm(good) + "&scope=a%5c", "", 400, "invalid_scope", "scope is malformed"},
		{refreshForm(good) + "&scope=%ff", "", 400, "invalid_scope", "scope is malformed"},
		{refreshForm(good) + "&scope=a%7f", "", 400, "invalid_scope", "scope is malformed"},
		{refreshForm(good) + "&scope=a%00", "", 400, "invalid_scope", "scope is malformed"},
		{refreshForm(good) + "&scope=+", "", 400, "invalid_scope", "scope is malformed"},
		{refreshForm(good) + "%zz", "", 400, "invalid_request", "the body or the query cannot be decoded"},
		{refreshForm(good) + ";a=b", "", 400, "invalid_request", "the body or the query cannot be decoded"},
		{refreshForm(good), "x", 400, "invalid_request", "Refresh-Key must be given once, as 32 bytes in base64url (43 characters), or as 'sha256=' and the SHA-256 of these characters in base64url"},
	} {
		var header []string
		if c.header != "" {
			header = []string{"Refresh-Key", c.header}
		}
		got := fx.post(t, "/token", c.form, header...).requireRefused(t, c.status, c.code)
		if c.text != "" {
			require.Equal(t, c.text, got, c.form)
		}
	}
	require.Zero(t, fx.store.rotations(), "nothing is spent")
	require.Equal(t, 200, fx.post(t, "/token", refreshForm(good)+"&resource=a&resource=b&scope=~+!&unknown=%ff").status, "unknown parameters are ignored")
}

func TestToken_ReadsEachParameterOnceAndFromTheBody(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{Clients: newClients(), PublicClients: true})
	good := fx.login(t).Refresh
	for _, name := range []string{"grant_type", "refresh_token", "scope", "client_id", "client_secret", "token", "token_type_hint"} {
		value := map[string]string{"grant_type": "refresh_token", "refresh_token": good}[name]
		form := refreshForm(good)
		if value == "" {
			form += "&" + name + "=x"
		}
		for _, second := range []string{value, "", "y"} {
			require.Equal(t, name+" occurs twice", fx.post(t, "/token", form+"&"+name+"="+second).requireRefused(t, 400, "invalid_request"))
		}
		for _, query := range []string{name + "=" + value, name} {
			require.Equal(t, name+" must be in the body and not in the URL", fx.post(t, "/token?"+query, refreshForm(good)).requireRefused(t, 400, "invalid_request"))
		}
	}
	fx.post(t, "/token?"+refreshForm(good), "").requireRefused(t, 400, "invalid_request")
	fx.post(t, "/token?%zz", refreshForm(good)).requireRefused(t, 400, "invalid_request")
	require.Zero(t, fx.store.rotations())
	require.Equal(t, 200, fx.post(t, "/token?tenant=7", refreshForm(good)).status)
}

func TestForm_IsOfOneTypeAndBounded(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{})
	good := refreshForm(fx.login(t).Refresh)
	for _, kind := range []string{
		"application/json", "text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded; charset=iso-8859-1",
		"application/x-www-form-urlencoded; charset=utf-16", "application/x-www-form-urlencoded;;", "application/x-www-form-urlencoded, text/plain", " ", "x",
	} {
		for _, path := range []string{"/token", "/revoke"} {
			require.Equal(t, "the body must be application/x-www-form-urlencoded, in UTF-8",
				fx.post(t, path, good, "Content-Type", kind).requireRefused(t, 415, "invalid_request"), kind)
		}
	}
	for _, padding := range []string{"&x=", "&", "&x=%41"} {
		body := good + strings.Repeat(padding, 16<<10/len(padding))
		require.Equal(t, "the request body is too large", fx.post(t, "/token", body).requireRefused(t, 413, "invalid_request"))
	}
	require.Zero(t, fx.store.rotations())
	for _, kind := range []string{
		"application/x-www-form-urlencoded", "Application/X-WWW-Form-URLencoded; Charset=UTF-8", `application/x-www-form-urlencoded;charset="utf-8"`,
	} {
		require.Equal(t, 200, fx.post(t, "/token", good, "Content-Type", kind).status, kind)
	}
	body := good + "&x=" + strings.Repeat("x", 16<<10-len(good)-3)
	require.Equal(t, 200, fx.post(t, "/token", body).status, "16 KiB")

	// A request that was not read from a connection may have no body.
	for _, path := range []string{"/token", "/revoke"} {
		r := httptest.NewRequest("POST", path, nil)
		r.Body = nil
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		fx.ServeHTTP(w, r)
		require.Equal(t, 400, w.Code)
	}

	// A middleware has read the body.
	parsed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		fx.ServeHTTP(w, r)
	})
	require.Equal(t, 200, send(t, parsed, "POST", "/token", good).status)
	send(t, parsed, "POST", "/token", good+"&refresh_token=x").requireRefused(t, 400, "invalid_request")
}

func TestEndpoints_AllowOnlyTheirMethods(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{Clients: newClients(), PublicClients: true})
	good := fx.login(t).Refresh
	for _, path := range []string{"/token", "/revoke", "/introspect"} {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post", "X"} {
			r := send(t, fx, method, path+"?"+refreshForm(good)+"&token="+good, "")
			require.Equal(t, "POST", r.header.Get("Allow"))
			if method != "HEAD" {
				require.Equal(t, "the method is not allowed here; use POST", r.requireRefused(t, 405, "invalid_request"))
			}
		}
	}
	for _, path := range []string{"/", "/tokens", "/token/", "//token", "/oauth/token", "/.well-known/oauth-authorization-server/", "/.well-known/openid-configuration", "/.well-known%2foauth-authorization-server"} {
		fx.post(t, path, refreshForm(good)).requireRefused(t, 404, "not_found")
	}
	require.Zero(t, fx.store.rotations())
	r := send(t, fx, "DELETE", "/.well-known/oauth-authorization-server", "")
	r.requireRefused(t, 405, "invalid_request")
	require.Equal(t, "GET, HEAD", r.header.Get("Allow"))
}

// A script cannot read the cookies, and the token endpoint must not read them for it.
func TestToken_ReadsNoCookieAndNoHeader(t *testing.T) {
	t.Parallel()
	for _, allowBody := range []bool{false, true} {
		fx := newFixture(t, oauth.Config{}, func(c *auth.Config) { c.Cookies = &auth.Cookies{AllowBody: allowBody} })
		cookie, body := fx.login(t), fx.login(t)
		header := []string{"Cookie", "__Host-Http-refresh=" + cookie.Refresh + "; __Host-access=" + cookie.Access, "Sec-Fetch-Site", "same-origin"}
		for _, form := range []string{"grant_type=refresh_token", "grant_type=refresh_token&refresh_token="} {
			fx.post(t, "/token", form, header...).requireRefused(t, 400, "invalid_request")
			fx.post(t, "/token", form, "Refresh-Token", cookie.Refresh).requireRefused(t, 400, "invalid_request")
			fx.post(t, "/revoke", "", header...).requireRefused(t, 400, "invalid_request")
		}
		for _, token := range []string{"x", body.Access} {
			fx.post(t, "/token", refreshForm(token), header...).requireRefused(t, 400, "invalid_grant")
		}
		require.Zero(t, fx.store.rotations())

		// With a token in the body, the cookies of another session do not matter, and
		// neither does the origin, as for RefreshHandler without cookies.
		r := fx.post(t, "/token", refreshForm(body.Refresh), append(header, "Origin", "https://other.example", "Sec-Fetch-Site", "cross-site", "Refresh-Token", cookie.Refresh)...)
		require.Equal(t, 200, r.status, r.text)
		require.Equal(t, body.SessionID, r.fields(t)["session_id"])
		require.Empty(t, r.header["Set-Cookie"])
		same := send(t, http.StripPrefix("", fx.RefreshHandler()), "POST", "/refresh", "refresh_token="+body.Refresh)
		require.Equal(t, r.fields(t)["refresh_token"], same.fields(t)["refresh_token"], "RefreshHandler accepts the token in a body too")

		// Who has the token of a cookie can use it in the body, there as here.
		for _, h := range []http.Handler{fx.RefreshHandler(), fx} {
			r := send(t, h, "POST", "/token", refreshForm(cookie.Refresh))
			require.Equal(t, 200, r.status, r.text)
			require.NotEmpty(t, r.fields(t)["refresh_token"])
		}
		fx.post(t, "/revoke", "token=x", header...)
		_, err := fx.Verify(t.Context(), cookie.Access)
		require.NoError(t, err, "the session of the cookies goes on")
	}
}

func TestToken_TakesRetryKeysAsRefreshHandlerDoes(t *testing.T) {
	t.Parallel()
	for _, keyed := range []bool{false, true} {
		fx := newFixture(t, oauth.Config{})
		old := fx.login(t).Refresh
		key := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
		sum := sha256.Sum256([]byte(key))
		first, second := []string{"Refresh-Key", "sha256=" + base64.RawURLEncoding.EncodeToString(sum[:])}, []string{"Refresh-Key", key}
		if !keyed {
			first, second = nil, nil
		}
		fx.post(t, "/token", refreshForm(old), "Refresh-Key", key, "Refresh-Key", key).requireRefused(t, 400, "invalid_request")
		fx.post(t, "/token", refreshForm(old), "Refresh-Key", "").requireRefused(t, 400, "invalid_request")
		require.Zero(t, fx.store.rotations())
		require.Equal(t, 200, fx.post(t, "/token", refreshForm(old), first...).status) // the answer is lost
		fx.Clock.Advance(time.Hour)
		r := fx.post(t, "/token", refreshForm(old), second...)
		if keyed {
			require.Equal(t, 200, r.status, r.text)
			require.Equal(t, true, r.fields(t)["rotated"])
			require.Len(t, fx.taken(auth.EventLateRetry), 1)
			continue
		}
		require.Equal(t, "the session has ended", r.requireRefused(t, 400, "invalid_grant"))
		require.Len(t, fx.taken(auth.EventReuse), 1)
	}
}

func TestToken_DescribesRefusalsAsPackageAuthDoes(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{})
	revoked, expired := fx.login(t), fx.login(t)
	require.NoError(t, fx.Revoke(t.Context(), "u1", revoked.SessionID))
	fx.post(t, "/token", refreshForm(revoked.Refresh)).requireRefused(t, 400, "invalid_grant")
	fx.Clock.Advance(8 * 24 * time.Hour)
	for _, token := range []string{revoked.Refresh, expired.Refresh, expired.Access, "x.y.z"} {
		_, err := fx.Refresh(t.Context(), token, auth.RefreshOptions{InBody: true})
		want := auth.ResponseFor(err)
		require.Equal(t, want.Description, fx.post(t, "/token", refreshForm(token)).requireRefused(t, 400, want.Code))
	}
}

func TestToken_AnOutageIsA503ThatSpendsNothing(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{})
	old := fx.login(t)
	fx.store.setFailure(errors.New("down: private"))
	text := fx.post(t, "/token", refreshForm(old.Refresh)).requireRefused(t, 503, "temporarily_unavailable")
	require.Equal(t, "try again", text)
	require.Len(t, fx.taken(auth.EventFault), 1, "one event")
	fx.post(t, "/revoke", "token="+old.Refresh).requireRefused(t, 503, "temporarily_unavailable")
	fx.store.setFailure(nil)
	fresh := fx.login(t)
	require.Equal(t, 200, fx.post(t, "/token", refreshForm(fresh.Refresh)).status)
}

// The session has the scopes of its user, whatever the client requests.
func TestToken_SaysWhichScopesTheTokenHas(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{})
	for _, c := range []struct {
		scopes    []string
		requested string
		want      any
	}{
		{[]string{"pay", "read"}, "", "pay read"},
		{[]string{"pay", "read"}, "read", "pay read"},
		{[]string{"pay", "read"}, "admin", "pay read"},
		{[]string{"pay"}, "pay", "pay"},
		{[]string{"<&>"}, "", "<&>"},
		{nil, "", nil},
		{nil, "read", ""},
	} {
		u := auth.User{ID: "u" + c.requested + strings.Join(c.scopes, ""), Scopes: c.scopes}
		token := authtest.Tokens(t, fx.Authenticator, u).Refresh
		r := fx.post(t, "/token", refreshForm(token)+"&scope="+c.requested)
		require.Equal(t, 200, r.status, r.text)
		m := r.fields(t)
		if c.want == nil {
			require.NotContains(t, m, "scope")
		} else {
			require.Equal(t, c.want, m["scope"])
		}
		claims, err := fx.Verify(t.Context(), m["access_token"].(string))
		require.NoError(t, err)
		require.Equal(t, c.scopes, claims.Scopes, "never more than the user has")
		require.Equal(t, "no-store", r.header.Get("Cache-Control"))
		require.Equal(t, "application/json; charset=utf-8", r.header.Get("Content-Type"))
	}
}

func TestRefusals_EmitTheEventsOfPackageAuth(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{Clients: newClients()})
	fx.post(t, "/token", "", "Authorization", "Basic x")
	events := fx.taken(auth.EventRefused)
	require.Len(t, events, 1)
	require.ErrorContains(t, events[0].Err, "oauth: the header Authorization is malformed")
	require.Equal(t, "invalid_client", events[0].Reason)
	require.Equal(t, "192.0.2.1", events[0].Device.IP.String())
	fx.post(t, "/token", "")
	require.Empty(t, fx.taken(auth.EventRefused), "at most one a minute and code")
	fx.post(t, "/token", "client_id=backend&client_secret=s3cret-s3cret-s3cret&"+refreshForm("x"))
	require.Len(t, fx.taken(auth.EventRefused), 1)
}

// Config.OnError writes bodies that a client of OAuth does not understand.
func TestRefusals_DoNotCallOnError(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{}, func(c *auth.Config) {
		c.OnError = func(w http.ResponseWriter, r *http.Request, _ error) {
			http.Redirect(w, r, "/login", http.StatusSeeOther)
		}
		c.ResourceMetadata = "https://example.com/.well-known/oauth-protected-resource"
	})
	r := fx.post(t, "/token", refreshForm("x"))
	r.requireRefused(t, 400, "invalid_grant")
	require.Empty(t, r.header["Www-Authenticate"])
	r = fx.post(t, "/token", "")
	require.Empty(t, r.header["Www-Authenticate"])
}
