package auth_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

func issuedBy(iss string) func(*auth.Config) { return func(c *auth.Config) { c.Issuer = iss } }

// TestEventRefused_NamesTheCause has one row per mistake: the request, what the
// event says, and what the response says.
func TestEventRefused_NamesTheCause(t *testing.T) {
	t.Parallel()
	own := newFixture(t, withCookies()).login(t)
	otherIssuer := newFixture(t, issuedBy("https://other.example")).login(t)
	otherAudience := newFixture(t, func(c *auth.Config) { c.Audience = []string{"https://a.example", "https://b.example"} }).login(t)
	otherSecret := newFixture(t, func(c *auth.Config) { c.Secrets = [][]byte{[]byte("another secret of these tests, 0123456789")} }).login(t)
	const login, refresh, require1 = "/login", "/refresh", "/me"
	for _, c := range []struct {
		method, target string
		option         requestOption
		reason         string
		event          string
		body           string
	}{
		{"GET", require1, reqHeader("X-Other", "x"), "missing_token", "in the header Authorization (Bearer) or the cookie __Host-access", "no access token in the header Authorization (Bearer) or the cookie __Host-access"},
		{"GET", require1, reqHeader("Authorization", own.Access), "missing_token", "without the scheme Bearer", "without the scheme Bearer; send Authorization: Bearer"},
		{"GET", require1, reqHeader("Authorization", "Token "+own.Access), "missing_token", "without the scheme Bearer", "without the scheme Bearer"},
		{"GET", require1, reqHeader("Authorization", "bearer"+own.Access), "missing_token", "without the scheme Bearer", "without the scheme Bearer"},
		{"GET", require1, reqHeader("Authorization", `Bearer="`+own.Access+`"`), "missing_token", "without the scheme Bearer", "without the scheme Bearer"},
		{"GET", require1, reqHeader("Authorization", "Basic YTpieyJ4"), "missing_token", "in the header Authorization (Bearer)", "no access token in"},
		{"POST", "/opt", reqHeader("Authorization", own.Access), "missing_token", "without the scheme Bearer", "anonymous: auth: no token: the Authorization header has a token without the scheme Bearer"},
		{"POST", "/logout", reqHeader("Authorization", own.Access), "missing_token", "without the scheme Bearer", ""},
		{"GET", require1, reqHeader("Authorization", "Basic YTpi"), "missing_token", "in the header Authorization (Bearer)", "no access token in"},
		{"GET", require1, reqBearer(own.Refresh), "invalid_token", "this is a refresh token", "this is a refresh token; an access token is required"},
		{"GET", require1, reqBearer("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.e30"), "invalid_token", "was not issued by this package", "the token is not valid: it was not issued by this package, whose tokens have the typ at+jwt"},
		{"GET", require1, reqBearer(otherIssuer.Access), "invalid_token", `unexpected iss "https://other.example", want "https://example.com"`, "the token is of another issuer"},
		{"GET", require1, reqBearer(otherAudience.Access), "invalid_token", `unexpected aud ["https://a.example", "https://b.example"], want one of ["https://api.example.com"]`, "the token is for another audience"},
		{"GET", require1, reqBearer(otherSecret.Access), "invalid_token", "unknown kid: signed with another key", "the token is not valid: this server does not have the key that signed it"},
		{"GET", require1, reqBearer("eyJ.x"), "invalid_token", "not three segments", "the token is not valid: it does not have three parts with dots between them"},
		{"GET", require1, reqBearer("undefined"), "invalid_token", "not three segments", "the token is not valid: it does not have three parts with dots between them"},
		{"GET", require1, reqBearer(`"` + own.Access), "invalid_token", "header is not base64url", "the token is not valid: it contains a character that no token has"},
		{"GET", require1, reqBearer("<" + own.Access + ">"), "invalid_token", "signature is not base64url", "the token is not valid: it contains a character that no token has"},
		{"GET", require1, reqBearer(strings.Replace(own.Access, ".", ".!", 1)), "invalid_token", "does not verify", `"the token is not valid"`},
		{"POST", require1, reqCookie(accessCookie, own.Access), "cross_origin", `Origin "https://evil.example" is not in Cookies.TrustedOrigins (Host "example.com"`, "from an origin that is not trusted"},
		{"POST", refresh, reqBearer(own.Refresh), "invalid_request", "in the cookie __Host-Http-refresh, the header Refresh-Token or the body field refresh_token", "no refresh token in the cookie"},
		{"POST", refresh, reqHeader("Refresh-Token", own.Access), "invalid_grant", "this is an access token", "this is an access token; a refresh token is required"},
		{"POST", refresh, reqHeader("Refresh-Token", otherIssuer.Refresh), "invalid_grant", `unexpected iss "https://other.example"`, "the token is of another issuer"},
		{"POST", refresh, reqHeader("Refresh-Token", otherSecret.Refresh), "invalid_grant", "unknown kid", "the token is not valid: this server does not have the key that signed it"},
		{"POST", login, reqJSON(`{"login":"ada","password":"x","delivery":"body"}`), "invalid_request", "Cookies.AllowBody is not set", "this delivery is not offered: delivery is body, but Cookies.AllowBody is not set"},
		{"GET", login, reqHeader("X", "x"), "invalid_request", `method not allowed: "GET"; use POST`, "the method is not allowed here; use POST"},
		{"POST", "/sessions", reqHeader("X", "x"), "invalid_request", `use GET or HEAD`, "the method is not allowed here; use GET or HEAD"},
		{"POST", login, reqJSON(`{"login":"ada","password":"x","delivery":"mail"}`), "invalid_request", "delivery must be", `delivery must be \"cookie\" or \"body\"`},
		{"POST", login, reqForm(`{"login":"ada","password":"x"}`), "invalid_request", "the body is JSON", "the body is JSON, but its Content-Type is application/x-www-form-urlencoded"},
		{"POST", login, reqJSON("\n" + `{"login":"ada","password":"a=b",}`), "invalid_request", "invalid JSON object", "body: invalid JSON object"},
		{"POST", login, reqJSON(`login=ada&password=x`), "invalid_request", "is not JSON", "a form needs the Content-Type application/x-www-form-urlencoded"},
		{"POST", login, reqBody("text/plain", goodLogin), "invalid_request", `content type not supported: "text/plain"`, "the body must be application/json or application/x-www-form-urlencoded"},
		{"GET", "/nowhere", reqBearer(""), "not_found", "no endpoint /nowhere", "there is no endpoint /nowhere"},
	} {
		fx := newFixture(t, withCookies())
		mux := http.NewServeMux()
		mux.Handle("/", fx.Handler())
		mux.Handle(require1, fx.Require()(hello))
		mux.Handle("/opt", fx.Optional(hello))
		options := []requestOption{c.option, reqHeader("User-Agent", "probe")}
		if c.reason == "cross_origin" {
			options = append(options, crossSite)
		}
		r := send(t, mux, c.method, c.target, options...)
		if c.target != "/opt" && c.target != "/logout" {
			require.GreaterOrEqual(t, r.status, 400, c.event)
		}
		require.Contains(t, r.body, c.body)
		events := fx.events.take(auth.EventRefused)
		require.Len(t, events, 1, "%s %s: %s", c.method, c.target, r.body)
		require.Equal(t, c.reason, events[0].Reason)
		require.Equal(t, "probe", events[0].Device.UserAgent)
		require.ErrorContains(t, events[0].Err, c.event)
		require.NotContains(t, events[0].Err.Error(), "eyJ", "a token")
	}
}

func TestEventRefused_IsLimitedPerCause(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	foreign := newFixture(t, issuedBy("https://other.example")).login(t).Access
	h := fx.Require()(hello)
	for range 1000 { // no flood may hide another cause
		send(t, h, "GET", "/", reqBearer("garbage"))
		send(t, h, "GET", "/")
	}
	send(t, h, "GET", "/", reqBearer(foreign))
	events := fx.events.take(auth.EventRefused)
	require.Len(t, events, 3)
	require.ErrorContains(t, events[2].Err, "unexpected iss")

	fx.clock.Advance(time.Minute - time.Millisecond)
	send(t, h, "GET", "/")
	require.Empty(t, fx.events.take(auth.EventRefused))
	fx.clock.Advance(time.Millisecond)
	send(t, h, "GET", "/")
	events = fx.events.take(auth.EventRefused)
	require.Len(t, events, 1)
	require.EqualValues(t, 1000, events[0].Suppressed)

	fx.clock.Advance(-time.Hour) // a clock that is set back must not silence it for an hour
	send(t, h, "GET", "/")
	require.Len(t, fx.events.take(auth.EventRefused), 1)
}

func TestEventRefused_GuardsOfEachRouteHaveTheirOwnLimit(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.login(t).Access
	mux := http.NewServeMux()
	mux.Handle("/billing", fx.Require(auth.Role("billing"))(hello))
	mux.Handle("/reports/{id}", fx.Require(auth.Scope("reports"))(hello))
	fx.events.take(auth.EventLogin)
	for i := range 100 {
		send(t, mux, "GET", "/billing", reqBearer(token)).requireRefused(t, 403, "insufficient_scope", "")
		send(t, mux, "GET", fmt.Sprintf("/reports/%d", i), reqBearer(token)).requireRefused(t, 403, "insufficient_scope", "")
	}
	events := fx.events.take(auth.EventRefused)
	require.Len(t, events, 2)
	require.ErrorContains(t, events[0].Err, `one of the roles ["billing"] is required`)
	require.ErrorContains(t, events[1].Err, `scope "reports" is missing`)
}

// A refusal by one guard does not hide the mistake in another one.
func TestEventRefused_EachGuardOfARouteHasItsOwnLimit(t *testing.T) {
	t.Parallel()
	own := func(_ context.Context, c *auth.Claims) error { return errors.New(c.Username + " has not paid") }
	for _, pattern := range []string{"/billing", ""} {
		fx := newFixture(t)
		admin, user := fx.login(t), startOtherSession(t, fx.Authenticator)
		fx.users.change("u2", func(u *auth.User) { u.Scopes = []string{"pay"} })
		payer := startOtherSession(t, fx.Authenticator)
		h := fx.Require(auth.Scope("pay"), auth.Role("admin"), own)(hello)
		if pattern != "" {
			mux := http.NewServeMux()
			mux.Handle(pattern, h)
			h = mux
		}
		for range 100 {
			for _, tokens := range []auth.Tokens{user, payer, admin} {
				send(t, h, "GET", "/billing", reqBearer(tokens.Access)).requireRefused(t, 403, "insufficient_scope", "")
			}
		}
		events := fx.events.take(auth.EventRefused)
		require.Len(t, events, 3, pattern)
		for i, want := range []struct {
			tokens auth.Tokens
			text   string
		}{{user, `scope "pay" is missing`}, {payer, `one of the roles ["admin"] is required`}, {admin, "ada has not paid"}} {
			require.ErrorContains(t, events[i].Err, want.text)
			require.Equal(t, auth.Session{Subject: want.tokens.Subject, ID: want.tokens.SessionID}, events[i].Session)
		}
		fx.clock.Advance(time.Minute)
		for _, tokens := range []auth.Tokens{user, payer, admin} {
			send(t, h, "GET", "/billing", reqBearer(tokens.Access))
		}
		for _, e := range fx.events.take(auth.EventRefused) {
			require.EqualValues(t, 99, e.Suppressed)
		}
	}
}

// Fresh is a guard too, although its error is not ErrForbidden.
func TestEventRefused_FreshHasALimitOnEachRoute(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.login(t).Access
	fx.clock.Advance(10 * time.Minute)
	mux := http.NewServeMux()
	mux.Handle("/pay", fx.Require(auth.Fresh(time.Minute))(hello))
	mux.Handle("/delete", fx.Require(auth.Fresh(time.Second))(hello))
	for range 2 {
		for _, path := range []string{"/pay", "/delete"} {
			send(t, mux, "GET", path, reqBearer(token)).requireRefused(t, 401, "insufficient_user_authentication", "login")
		}
	}
	events := fx.events.take(auth.EventRefused)
	require.Len(t, events, 2)
	require.ErrorContains(t, events[0].Err, "more than 1m0s ago")
	require.ErrorContains(t, events[1].Err, "more than 1s ago")
}

func TestEventRefused_NamesNobodyWithoutAVerifiedToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	other := newFixture(t, issuedBy("https://other.example"))
	h := fx.Require(auth.Role("admin"))(hello)
	for _, o := range []requestOption{reqBearer("garbage"), reqBearer(other.login(t).Access), reqBearer("")} {
		send(t, h, "GET", "/", o)
		events := fx.events.take(auth.EventRefused)
		require.Len(t, events, 1)
		require.Zero(t, events[0].Session)
	}
}

func TestEventFault_OfAGuardNamesTheUser(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	tokens := fx.login(t)
	h := fx.Require(func(context.Context, *auth.Claims) error {
		return fmt.Errorf("%w: no route to host", auth.ErrUnavailable)
	})(hello)
	send(t, h, "GET", "/", reqBearer(tokens.Access)).requireRefused(t, 503, "temporarily_unavailable", "")
	faults := fx.events.take(auth.EventFault)
	require.Len(t, faults, 1)
	require.Equal(t, auth.Session{Subject: "u1", ID: tokens.SessionID}, faults[0].Session)
}

func TestEventRefused_ChosenPathsDoNotGrowTheLimiter(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	for i := range 1000 {
		send(t, fx.Handler(), "GET", fmt.Sprintf("/%d/eyJhbGciOiJIUzI1NiJ9.e30.sig%d", i, i))
	}
	events := fx.events.take(auth.EventRefused)
	require.Len(t, events, 1)
	require.NotContains(t, events[0].Err.Error(), "sig0", "a token in a path")
}

func TestEventRefused_ShowsNoTokenOfAPath(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.login(t).Access
	for _, path := range []string{"/" + token, "/Bearer%20" + token, "/token=" + token + "/x", "/%22" + token + "%22", "/auth/" + token + "/login"} {
		r := send(t, fx.Handler(), "GET", path)
		require.Equal(t, 404, r.status)
		require.NotContains(t, r.body, "eyJ", path)
		require.NotContains(t, fx.events.take(auth.EventRefused)[0].Err.Error(), "eyJ", path)
		fx.clock.Advance(time.Minute)
	}
}

func TestEventRefused_NotForTokensAndSessionsThatHaveEnded(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	h := fx.Require()(hello)
	tokens, other := fx.login(t), fx.login(t)
	require.NoError(t, fx.Revoke(context.Background(), "u1", tokens.SessionID))
	send(t, h, "GET", "/", reqBearer(tokens.Access)).requireRefused(t, 401, "invalid_token", "login")
	fx.clock.Advance(time.Hour)
	send(t, h, "GET", "/", reqBearer(other.Access)).requireRefused(t, 401, "invalid_token", "refresh")
	send(t, fx.Handler(), "POST", "/login", reqJSON(`{"login":"ada","password":"wrong"}`)).requireRefused(t, 401, "invalid_credentials", "login")
	require.Empty(t, fx.events.take(auth.EventRefused))
}

func TestSetCookies_WithoutCookiesIsReported(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	tokens := fx.login(t)
	for range 3 {
		w := httptest.NewRecorder()
		fx.SetCookies(w, tokens)
		require.Empty(t, w.Header())
	}
	faults := fx.events.take(auth.EventFault)
	require.Len(t, faults, 1)
	require.ErrorContains(t, faults[0].Err, "Config.Cookies is nil")
	fx.clock.Advance(time.Minute)
	fx.SetCookies(httptest.NewRecorder(), tokens)
	faults = fx.events.take(auth.EventFault)
	require.Len(t, faults, 1)
	require.EqualValues(t, 2, faults[0].Suppressed)
}

// TestMissingToken_SchemeMattersOnlyWithFromBearer: without it, the
// Authorization header is for something else.
func TestMissingToken_SchemeMattersOnlyWithFromBearer(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withExtractors(auth.FromHeader("X-Access-Token")))
	r := send(t, fx.Require()(hello), "GET", "/", reqHeader("Authorization", fx.login(t).Access))
	require.Contains(t, r.body, "no access token in the header X-Access-Token")
}

func TestOptional_ReportsCookiesThatAreNotValid(t *testing.T) {
	t.Parallel()
	foreign := newFixture(t, issuedBy("https://other.example")).login(t).Access
	fx := newFixture(t, withCookies())
	r := send(t, fx.Optional(hello), "GET", "/", reqCookie(accessCookie, foreign))
	require.Contains(t, r.body, "anonymous")
	events := fx.events.take(auth.EventRefused)
	require.Len(t, events, 1)
	require.ErrorContains(t, events[0].Err, "unexpected iss")
}

func TestOptional_ReportsACookieOnceIfTheHandlerRefusesTheRequest(t *testing.T) {
	t.Parallel()
	foreign := newFixture(t, issuedBy("https://other.example")).login(t).Access
	fx := newFixture(t, withCookies())
	h := fx.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fx.WriteError(w, r, auth.ErrorFromContext(r.Context()))
	}))
	for range 2 {
		send(t, h, "GET", "/", reqCookie(accessCookie, foreign)).requireRefused(t, 401, "invalid_token", "login")
		events := fx.events.take(auth.EventRefused)
		require.Len(t, events, 1)
		require.Zero(t, events[0].Suppressed)
		fx.clock.Advance(time.Minute)
	}
}

// badError is an error of an application whose methods panic.
type badError struct{ is, text bool }

func (e badError) Error() string {
	if e.text {
		panic("in Error")
	}
	return "bad"
}

func (e badError) Is(error) bool {
	if e.is {
		panic("in Is")
	}
	return false
}

func TestWriteError_UnknownErrorIsAFault(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		text string
	}{
		{errors.New("no such table: carts"), "no such table: carts"},
		{fmt.Errorf("cart: %w", context.DeadlineExceeded), "deadline exceeded"},
		{password.ErrHash, "unusable hash"},
		{nil, "WriteError was called without an error"},
		{badError{is: true}, "error panicked"},
		{badError{text: true}, "Error panicked"},
		{fmt.Errorf("%w: the guard's database", auth.ErrUnavailable), "the guard's database"},
	} {
		fx := newFixture(t)
		w := httptest.NewRecorder()
		fx.WriteError(w, newRequest(), c.err)
		require.GreaterOrEqual(t, w.Code, 500, c.text)
		require.NotContains(t, w.Body.String(), "cart")
		faults := fx.events.take(auth.EventFault)
		require.Len(t, faults, 1, c.text)
		require.ErrorContains(t, faults[0].Err, c.text)
	}
}

// A handler cannot find the user of a token that is still valid, because the user
// was deleted. The response does not differ from that of a wrong password.
func TestWriteError_DeletedUserMustSignIn(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	tokens := fx.login(t)
	handler := fx.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		if _, err := fx.users.FindByID(r.Context(), c.Subject); err != nil {
			fx.WriteError(w, r, fmt.Errorf("profile of %s: %w", c.Subject, err))
		}
	}))
	require.Equal(t, http.StatusOK, send(t, handler, "GET", "/", reqBearer(tokens.Access)).status)
	fx.users.mu.Lock()
	delete(fx.users.byID, "u1")
	fx.users.mu.Unlock()
	fx.events.take("")
	for range 3 {
		r := send(t, handler, "GET", "/", reqBearer(tokens.Access))
		r.requireRefused(t, 401, "invalid_credentials", "login")
		wrong := httptest.NewRecorder()
		auth.DefaultOnError(wrong, nil, auth.ErrInvalidCredentials)
		require.Equal(t, wrong.Body.String(), r.body)
	}
	refused := fx.events.take(auth.EventRefused)
	require.Len(t, refused, 1, "one event a minute, and no fault")
	require.Equal(t, "invalid_credentials", refused[0].Reason)
	require.ErrorContains(t, refused[0].Err, "profile of u1: auth: user not found")

	guard := func(ctx context.Context, c *auth.Claims) error {
		_, err := fx.users.FindByID(ctx, c.Subject)
		return err
	}
	send(t, fx.Require(guard)(hello), "GET", "/", reqBearer(tokens.Access)).requireRefused(t, 401, "invalid_credentials", "login")
}

func TestWriteError_ReportsAFaultOnce(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	tokens := fx.login(t)
	fx.store.failBefore("Rotate", errors.New("connection refused"))
	send(t, fx.Handler(), "POST", "/refresh", reqHeader("Refresh-Token", tokens.Refresh)).requireRefused(t, 503, "temporarily_unavailable", "")
	require.Len(t, fx.events.take(auth.EventFault), 1)
	guard := func(context.Context, *auth.Claims) error { panic("in a guard") }
	send(t, fx.Require(guard)(hello), "GET", "/", reqBearer(tokens.Access)).requireRefused(t, 500, "server_error", "")
	require.Len(t, fx.events.take(auth.EventFault), 1)
	fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"sub": "u2"} })
	send(t, fx.Handler(), "POST", "/login", reqJSON(goodLogin)).requireRefused(t, 500, "server_error", "")
	require.Len(t, fx.events.take(auth.EventFault), 1)
}

func TestWriteError_CanceledRequestIsNoFault(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	fx.WriteError(httptest.NewRecorder(), newRequest().WithContext(ctx), fmt.Errorf("query: %w", context.Canceled))
	require.Empty(t, fx.events.take(auth.EventFault))
}

// TestWriteError_PasswordErrors is for handlers that call package password
// themselves, for a registration or a change of password.
func TestWriteError_PasswordErrors(t *testing.T) {
	t.Parallel()
	_, empty := password.Hash("")
	_, long := password.Hash(strings.Repeat("x", 1025))
	fx := newFixture(t)
	write := func(err error) response {
		w := httptest.NewRecorder()
		fx.WriteError(w, newRequest(), fmt.Errorf("sign-up: %w", err))
		return readResponse(t, w.Result())
	}
	write(empty).requireRefused(t, 400, "invalid_request", "")
	write(long).requireRefused(t, 400, "invalid_request", "")
	write(password.ErrMismatch).requireRefused(t, 401, "invalid_credentials", "login")
	write(password.ErrBusy).requireRefused(t, 503, "temporarily_unavailable", "")
	require.Empty(t, fx.events.take(auth.EventFault))

	// In a guard they are refusals, as every error is that package auth does
	// not define.
	token := fx.login(t).Access
	for _, err := range []error{empty, long, password.ErrMismatch} {
		h := fx.Require(func(context.Context, *auth.Claims) error { return err })(hello)
		send(t, h, "GET", "/", reqBearer(token)).requireRefused(t, 403, "insufficient_scope", "")
	}
}

func TestRequire_WithoutRunSaysSo(t *testing.T) {
	t.Parallel()
	es := &events{}
	config := auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Hasher: fastHasher,
		Store: &testStore{Store: auth.NewMemoryStore()}, OnEvent: es.add,
	}
	a, err := auth.New(config)
	require.NoError(t, err)
	tokens, err := a.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.NoError(t, err)
	for range 3 {
		r := send(t, a.Require()(hello), "GET", "/", reqBearer(tokens.Access))
		r.requireRefused(t, 503, "temporarily_unavailable", "")
		require.Contains(t, r.body, "it must call Run")
	}
	faults := es.take(auth.EventFault)
	require.Len(t, faults, 1, "once a minute")
	require.ErrorContains(t, faults[0].Err, "Run is not running")

	_, err = a.Verify(context.Background(), tokens.Access)
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.ErrorContains(t, err, "Run is not running")
}

// TestRequire_BeforeTheFirstReadIsNoMistake: Run is running, and the store does
// not respond.
func TestRequire_BeforeTheFirstReadIsNoMistake(t *testing.T) {
	t.Parallel()
	es := &events{}
	store := &testStore{Store: auth.NewMemoryStore()}
	store.failBefore("Changes", errors.New("connection refused"))
	a, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Hasher: fastHasher,
		Store: store, OnEvent: es.add,
	})
	require.NoError(t, err)
	tokens, err := a.Login(context.Background(), "ada", pass, auth.SessionOptions{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = a.Run(ctx) }()
	require.Eventually(t, func() bool { return len(es.take(auth.EventFault)) > 0 }, 10*time.Second, time.Millisecond)
	r := send(t, a.Require()(hello), "GET", "/", reqBearer(tokens.Access))
	cancel()
	<-done
	r.requireRefused(t, 503, "temporarily_unavailable", "")
	require.Contains(t, r.body, "try again")
	for _, e := range es.take(auth.EventFault) {
		require.ErrorContains(t, e.Err, "connection refused")
	}
}

func TestVerify_KeySourceFailureIsAFault(t *testing.T) {
	t.Parallel()
	es := &events{}
	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: failingKeys{errors.New("no route to host")}, OnEvent: es.add})
	require.NoError(t, err)
	token := newFixture(t).login(t).Access
	for range 3 {
		send(t, v.Require()(hello), "GET", "/", reqBearer(token)).requireRefused(t, 503, "temporarily_unavailable", "")
	}
	faults := es.take(auth.EventFault)
	require.Len(t, faults, 1)
	require.ErrorContains(t, faults[0].Err, "no route to host")

	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	v, err = auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: failingKeys{errors.New("no route to host")}, OnEvent: es.add})
	require.NoError(t, err)
	_, err = v.Verify(canceled, token)
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.Empty(t, es.take(auth.EventFault))
}

// TestNew_WithoutOnEventLogsFaults replaces the default logger, so it is not
// parallel.
func TestNew_WithoutOnEventLogsFaults(t *testing.T) {
	var out bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	defer slog.SetDefault(old)

	fx := newFixture(t, func(c *auth.Config) { c.OnEvent = nil })
	r := []requestOption{reqHeader("User-Agent", "the user agent")}
	send(t, fx.Handler(), "POST", "/login", append(r, reqJSON(`{"login":"ada","password":"wrong"}`))...)
	send(t, fx.Require()(hello), "GET", "/", r...)
	require.Empty(t, out.String(), "only faults are logged")

	fx.store.failBefore("Create", errors.New("connection refused"))
	fx.users.change("u1", func(u *auth.User) { u.Username = "ada" })
	for range 100 {
		send(t, fx.Handler(), "POST", "/login", append(r, reqJSON(goodLogin))...).requireRefused(t, 503, "temporarily_unavailable", "")
	}
	require.Equal(t, 1, strings.Count(out.String(), "\n"), out.String())
	require.Contains(t, out.String(), "level=ERROR")
	require.Contains(t, out.String(), "Store.Create: connection refused")
	require.Contains(t, out.String(), "set Config.OnEvent")
	for _, private := range []string{"the user agent", "u1", "192.0.2.1", pass} {
		require.NotContains(t, out.String(), private)
	}

	fx.WriteError(httptest.NewRecorder(), newRequest(), errors.New("no such table"))
	require.Contains(t, out.String(), "no such table", "another kind of fault has its own limit")
	out.Reset()
	fx.clock.Advance(time.Minute)
	send(t, fx.Handler(), "POST", "/login", append(r, reqJSON(goodLogin))...)
	require.Contains(t, out.String(), "suppressed=99")

	// Each period in which the feed is stale is logged, however short the time
	// between them.
	out.Reset()
	log := auth.LogFaults()
	for second := range 3 {
		log(context.Background(), auth.Event{
			Type: auth.EventStale, Time: time.Unix(int64(second), 0), Err: errors.New("auth: the revocation feed was last read 61s ago"),
		})
	}
	require.Equal(t, 3, strings.Count(out.String(), "auth: stale"))
}

// TestNew_WithoutOnEventLogsNewKindsAfterManyOthers replaces the default logger,
// so it is not parallel. The errors of the user lookup contain what the client
// sends.
func TestNew_WithoutOnEventLogsNewKindsAfterManyOthers(t *testing.T) {
	var out bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	defer slog.SetDefault(old)

	fx := newFixture(t, func(c *auth.Config) { c.OnEvent = nil })
	for i := range 500 {
		fx.users.fail = fmt.Errorf("search for %c%c failed", 'a'+i/26, 'a'+i%26)
		send(t, fx.Handler(), "POST", "/login", reqJSON(goodLogin)).requireRefused(t, 503, "temporarily_unavailable", "")
	}
	require.LessOrEqual(t, strings.Count(out.String(), "\n"), 129)
	fx.clock.Advance(time.Minute)
	out.Reset()
	for _, text := range []string{"no route to host", "connection refused"} {
		fx.users.fail = errors.New(text)
		send(t, fx.Handler(), "POST", "/login", reqJSON(goodLogin))
		require.Contains(t, out.String(), text)
	}
}

func TestLogEvents_LevelsOfRefusals(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := auth.LogEvents(slog.New(slog.NewTextHandler(&out, nil)))
	for reason, level := range map[string]string{
		"missing_token": "INFO", "invalid_request": "INFO", "not_found": "INFO", "insufficient_scope": "INFO",
		"invalid_token": "WARN", "invalid_grant": "WARN", "cross_origin": "WARN",
	} {
		out.Reset()
		log(context.Background(), auth.Event{Type: auth.EventRefused, Reason: reason, Suppressed: 7, Err: errors.New("why")})
		require.Contains(t, out.String(), "level="+level)
		require.Contains(t, out.String(), `msg="auth: refused"`)
		require.Contains(t, out.String(), "reason="+reason+" suppressed=7 error=why")
	}
}

// TestLogin_OverHTTPSaysThatBrowsersDropSecureCookies: the login would succeed,
// and the next request would have no cookie.
func TestLogin_OverHTTPSaysThatBrowsersDropSecureCookies(t *testing.T) {
	t.Parallel()
	from := func(origin, host string) requestOption {
		return func(r *http.Request) {
			r.Host = host
			r.Header["Origin"] = []string{origin}
		}
	}
	for _, c := range []struct {
		origin, host string
		status       int
	}{
		{"http://example.com", "example.com", 400},
		{"http://192.168.1.7:8080", "192.168.1.7:8080", 400},
		{"http://[2001:db8::1]:8080", "[2001:db8::1]:8080", 400},
		{"http://localhost.example:80", "localhost.example:80", 400},
		{"https://example.com", "example.com", 200},
		{"http://localhost:8080", "localhost:8080", 200},
		{"http://app.localhost", "app.localhost", 200},
		{"http://127.0.0.1:8080", "127.0.0.1:8080", 200},
		{"http://[::1]:8080", "[::1]:8080", 200},
	} {
		fx := newFixture(t, withCookies())
		r := send(t, fx.Handler(), "POST", "/login", reqJSON(goodLogin), from(c.origin, c.host))
		require.Equal(t, c.status, r.status, c.origin)
		events := fx.events.take(auth.EventRefused)
		if c.status == 200 {
			require.Empty(t, events, c.origin)
			continue
		}
		require.Contains(t, r.body, "browsers drop the Secure cookies; use https, or set Cookies.InsecureHTTP")
		for _, o := range []requestOption{reqHeader("Sec-Fetch-Site", "same-origin"), reqCookie(accessCookie, "x"), reqCookie(refreshCookie, "x")} {
			require.Equal(t, 200, send(t, fx.Handler(), "POST", "/login", reqJSON(goodLogin), from(c.origin, c.host), o).status)
		}
		require.Len(t, events, 1)
		require.ErrorContains(t, events[0].Err, c.origin)
	}
}

// TestLogout_OverHTTPSucceeds: a browser that has dropped the cookies has nothing
// to end.
func TestLogout_OverHTTPSucceeds(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies())
	send(t, fx.Handler(), "POST", "/logout", reqHeader("Origin", "http://example.com")).requireNoContent(t)
	require.Empty(t, fx.events.take(auth.EventRefused))
}

func TestLogin_InsecureHTTPOnAPublicHostIsReported(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, issuedBy("http://localhost:8080"), withCookies(func(c *auth.Cookies) { c.InsecureHTTP = true }))
	on := func(host string) []auth.Event {
		r := send(t, fx.Handler(), "POST", "/login", reqJSON(goodLogin), func(r *http.Request) { r.Host = host })
		require.Equal(t, 200, r.status)
		return fx.events.take(auth.EventFault)
	}
	require.Empty(t, on("localhost:8080"))
	require.Empty(t, on("127.0.0.1"))
	events := on("10.0.0.7:8080")
	require.Len(t, events, 1)
	require.ErrorContains(t, events[0].Err, `a request has the Host "10.0.0.7:8080"`)
	require.Empty(t, on("10.0.0.7:8080"), "once a minute")
}

func TestHandler_UnknownPathSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ path, advice string }{
		{"/auth/login", "register the handler with http.StripPrefix, and with the prefix /auth"},
		{"/api/v1/auth/logout/all", "the prefix /api/v1/auth"},
		{"/auth/sessions/x", "the prefix /auth"},
		{"/auth/sessions", "the prefix /auth"},
		{"/login/", "remove the slash at the end"},
		{"/", "the endpoints are /login"},
		{"/signin", "the endpoints are /login"},
		{"//login", "the prefix /"},
	} {
		fx := newFixture(t)
		h := fx.Handler()
		r := send(t, h, "POST", c.path)
		r.requireRefused(t, 404, "not_found", "")
		require.Contains(t, r.body, "there is no endpoint "+c.path)
		require.Contains(t, r.body, c.advice, c.path)

		// Once an endpoint has been found, only the event has the advice.
		send(t, h, "POST", "/login", reqJSON(goodLogin))
		r = send(t, h, "POST", c.path)
		require.Contains(t, r.body, "there is no endpoint "+c.path)
		require.NotContains(t, r.body, c.advice)
		require.Contains(t, fx.events.take(auth.EventRefused)[0].Err.Error(), c.advice)
	}
}

func TestHandler_UnknownPathNamesTheRestOfThePrefix(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	server := httptest.NewServer(http.StripPrefix("/api", fx.Handler()))
	defer server.Close()
	resp, err := http.Post(server.URL+"/api/v1/auth/login?x=y", "application/json", strings.NewReader(goodLogin)) //nolint:noctx // of this test
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "there is no endpoint /v1/auth/login; http.StripPrefix has removed /api, and must remove /v1/auth too")
}

func TestMissingToken_SaysThatTheCookieNeedsHTTPS(t *testing.T) {
	t.Parallel()
	const hint = "; browsers send the cookie only over https"
	for _, c := range []struct {
		host    string
		secure  bool
		options []requestOption
		hinted  bool
	}{
		{"shop.example.com", true, nil, true},
		{"192.168.1.5:8080", true, nil, true},
		{"localhost:8080", true, nil, false},
		{"shop.example.com", true, []requestOption{reqHeader("Sec-Fetch-Site", "none")}, false},
		{"shop.example.com", true, []requestOption{func(r *http.Request) { r.TLS = &tls.ConnectionState{} }}, false},
		{"shop.example.com", false, nil, false},
	} {
		fx := newFixture(t, issuedBy("http://localhost"), withCookies(func(o *auth.Cookies) { o.InsecureHTTP = !c.secure }))
		options := append([]requestOption{func(r *http.Request) { r.Host = c.host }}, c.options...)
		for _, r := range []response{send(t, fx.Require()(hello), "GET", "/me", options...), send(t, fx.RefreshHandler(), "POST", "/", options...)} {
			require.Contains(t, r.body, "token in ")
			require.Equal(t, c.hinted, strings.Contains(r.body, hint), "%v %s", c, r.body)
		}
	}
	fx := newFixture(t, withCookies(), func(c *auth.Config) { c.Extractors = []auth.Extractor{auth.FromBearer()} })
	require.NotContains(t, send(t, fx.Require()(hello), "GET", "/me", func(r *http.Request) { r.Host = "shop.example.com" }).body, hint)
}

func TestHandler_StripPrefixWithASlashAtTheEndWorks(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth/", newFixture(t).Handler()))
	require.Equal(t, 200, send(t, mux, "POST", "/auth/login", reqJSON(goodLogin)).status)
}
