package auth_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// tenants returns Authenticators of two issuers with stores and keys of their own, and
// the Verifier of both.
func tenants(t *testing.T, change ...func(*auth.Config)) (a, b *fixture, both *auth.Verifier) {
	of := func(name string) *fixture {
		return newFixture(t, append([]func(*auth.Config){func(c *auth.Config) {
			c.Issuer = "https://" + name + ".example.com"
			c.Secrets = [][]byte{[]byte("the secret of these tests, 1, for the tenant " + name)}
		}}, change...)...)
	}
	a, b = of("a"), of("b")
	both, err := auth.AnyOf(a.Verifier, b.Verifier)
	require.NoError(t, err)
	return a, b, both
}

func TestAnyOf_TheIssuerSelects(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	a, b, both := tenants(t)
	ka, kb := a.login(t), b.login(t)
	for _, k := range []auth.Tokens{ka, kb, ka} { // the second time from the cache
		c, err := both.Verify(ctx, k.Access)
		require.NoError(t, err)
		require.Equal(t, k.SessionID, c.SessionID)
		require.Equal(t, 200, send(t, both.Require(auth.Role("admin"))(hello), "GET", "/", reqBearer(k.Access)).status)
	}
	c, err := both.Verify(ctx, kb.Access)
	require.NoError(t, err)
	require.Equal(t, "https://b.example.com", c.Issuer)
	_, err = a.Continue(ctx, c, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrInvalidToken, "claims of another tenant")

	// Revocations are those of the issuer.
	stream, cancel := both.SessionContext(ctx, c)
	defer cancel()
	own, err := both.Verify(ctx, ka.Access)
	require.NoError(t, err)
	other, cancel := both.SessionContext(ctx, own)
	defer cancel()
	require.NoError(t, b.RevokeAll(ctx, "u1"))
	<-stream.Done()
	require.NoError(t, other.Err())
	_, err = both.Verify(ctx, kb.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	_, err = both.Verify(ctx, ka.Access)
	require.NoError(t, err, "the same subject of another tenant")

	// Only the selected verifier is asked: a token of a with the iss of b does not verify.
	parts := strings.Split(ka.Access, ".")
	payload := strings.Replace(plain(t, parts[1]), "https://a.", "https://b.", 1)
	_, err = both.Verify(ctx, parts[0]+"."+base64.RawURLEncoding.EncodeToString([]byte(payload))+"."+parts[2])
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	require.NotContains(t, fmt.Sprintf("%v %+v", both, both), "secret")
}

func TestAnyOf_RefusesWhatSelectsNoVerifier(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	a, _, both := tenants(t)
	good := a.login(t).Access
	parts := strings.Split(good, ".")
	with := func(payload string) string {
		return parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + "." + parts[2]
	}
	claims := plain(t, parts[1])
	for name, token := range map[string]string{
		"empty":                 "",
		"two parts":             parts[0] + "." + parts[1],
		"four parts":            good + ".x",
		"not base64":            parts[0] + ".!." + parts[2],
		"a line break":          parts[0] + "." + parts[1][:8] + "\n" + parts[1][8:] + "." + parts[2],
		"padding":               parts[0] + "." + parts[1] + "=." + parts[2],
		"not JSON":              with("x"),
		"an array":              with("[]"),
		"no iss":                with(`{"sub":"u1"}`),
		"a number":              with(`{"iss":1}`),
		"two":                   with(`{"iss":"https://a.example.com",` + claims[1:]),
		"two by an escape":      with(`{"\u0069ss":"https://b.example.com",` + claims[1:]),
		"upper case":            with(`{"ISS":"https://a.example.com"}`),
		"another case":          with(`{"iss":"https://A.example.com"}`),
		"a slash":               with(`{"iss":"https://a.example.com/"}`),
		"a prefix":              with(`{"iss":"https://a.example.co"}`),
		"a list":                with(`{"iss":["https://a.example.com"]}`),
		"a lone surrogate":      with(`{"iss":"https://a.example.com\ud800"}`),
		"text after the object": with(claims + "x"),
		"too large":             with(claims[:len(claims)-1] + `,"x":"` + strings.Repeat("x", 8<<10) + `"}`),
		"private":               with(`{"iss":"private"}`),
	} {
		_, err := both.Verify(ctx, token)
		require.ErrorIs(t, err, auth.ErrInvalidToken, name)
		require.NotContains(t, err.Error(), "private", "the iss is not verified")
		require.NotErrorIs(t, err, auth.ErrUnavailable)
		if token != "" {
			send(t, both.Require()(hello), "GET", "/", reqBearer(strings.ReplaceAll(token, "\n", ""))).requireRefusedOrServed(t)
		}
	}
	_, err := both.Verify(ctx, with(claims))
	require.NoError(t, err, "otherwise the test would not show anything")
	deep := strings.Repeat("[", 9000) + strings.Repeat("]", 9000)
	_, err = both.Verify(ctx, with(`{"iss":"https://a.example.com","x":`+deep+`}`))
	require.ErrorIs(t, err, auth.ErrInvalidToken)
}

// requireRefusedOrServed requires a response that is no fault.
func (r response) requireRefusedOrServed(t testing.TB) {
	t.Helper()
	require.Less(t, r.status, 500, r.body)
}

func TestAnyOf_Mistakes(t *testing.T) {
	t.Parallel()
	a, b, both := tenants(t)
	twin := newFixture(t, func(c *auth.Config) { c.Issuer = "https://a.example.com" })
	for name, c := range map[string]struct {
		list []*auth.Verifier
		want string
	}{
		"none":      {nil, "auth: AnyOf needs at least one Verifier"},
		"nil":       {[]*auth.Verifier{a.Verifier, nil}, "auth: AnyOf: verifier 2 of 2 is nil"},
		"zero":      {[]*auth.Verifier{{}}, "auth: AnyOf: verifier 1 of 1 is a zero Verifier"},
		"twice":     {[]*auth.Verifier{a.Verifier, a.Verifier}, `auth: AnyOf: two verifiers have the issuer "https://a.example.com"`},
		"duplicate": {[]*auth.Verifier{a.Verifier, b.Verifier, twin.Verifier}, `two verifiers have the issuer "https://a.example.com"`},
		"nested":    {[]*auth.Verifier{both, twin.Verifier}, `two verifiers have the issuer "https://a.example.com"`},
	} {
		_, err := auth.AnyOf(c.list...)
		require.ErrorContains(t, err, c.want, name)
	}
	third := newFixture(t)
	all, err := auth.AnyOf(both, third.Verifier)
	require.NoError(t, err)
	for _, fx := range []*fixture{a, b, third} {
		_, err = all.Verify(context.Background(), fx.login(t).Access)
		require.NoError(t, err)
	}
}

func TestAnyOf_CookiesAndRefreshesOfEachIssuer(t *testing.T) {
	t.Parallel()
	a, b, both := tenants(t, withCookies(), func(c *auth.Config) { c.AutoRefresh = true })
	page := both.Require()(hello)
	for _, fx := range []*fixture{a, b} {
		k := fx.login(t)
		require.Equal(t, 200, send(t, page, "GET", "/", reqCookie(accessCookie, k.Access)).status)
		r := send(t, page, "POST", "/", reqCookie(accessCookie, k.Access), crossSite)
		r.requireRefused(t, 403, "cross_origin", "")
		r = send(t, page, "GET", "/x", reqCookie(refreshCookie, k.Refresh))
		require.Equal(t, http.StatusTemporaryRedirect, r.status, r.body)
		r = send(t, page, "GET", "/x", reqCookie(accessCookie, r.cookies[accessCookie].Value))
		require.Equal(t, 200, r.status)
		r = send(t, page, "POST", "/", reqCookie(refreshCookie, k.Refresh)) // served with new tokens
		require.Equal(t, 200, r.status, r.body)
		require.NotEmpty(t, r.cookies[accessCookie].Value)
		c, err := both.Verify(context.Background(), r.cookies[accessCookie].Value)
		require.NoError(t, err)
		require.Equal(t, k.SessionID, c.SessionID)
	}
	send(t, page, "GET", "/", reqCookie(refreshCookie, "x.y.z")).requireRefused(t, 401, "missing_token", "login")
	// A link must not sign a user in to the account of another tenant.
	linked, err := auth.AnyOf(newFixture(t, withCookies(), withExtractors(auth.FromQuery("t"), auth.FromCookie())).Verifier, a.Verifier, b.Verifier)
	require.NoError(t, err)
	r := send(t, linked.Require()(hello), "GET", "/?t="+a.login(t).Access, reqCookie(refreshCookie, b.login(t).Refresh))
	require.Equal(t, 400, r.status, r.body)
}

func TestAnyOf_RunFollowsEachFeed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var issued []*fixture
	var verifiers []*auth.Verifier
	for _, name := range []string{"a", "b"} {
		fx := newFixture(t, func(c *auth.Config) {
			c.Issuer = "https://" + name + ".example.com"
			c.Secrets, c.Now = [][]byte{[]byte("the secret of these tests, 1, for the tenant " + name)}, time.Now
		})
		v, err := auth.NewVerifier(auth.VerifierConfig{
			Issuer: "https://" + name + ".example.com", Audience: []string{audience}, Keys: keysFrom("the secret of these tests, 1, for the tenant " + name),
			Feed: fx.store, OnEvent: fx.events.add,
		})
		require.NoError(t, err)
		issued, verifiers = append(issued, fx), append(verifiers, v)
	}
	both, err := auth.AnyOf(verifiers...)
	require.NoError(t, err)
	require.False(t, both.Health().Ready)
	select {
	case <-both.Ready():
		t.Fatal("ready before Run")
	default:
	}
	k := issued[1].login(t)
	_, err = both.Verify(ctx, k.Access)
	require.ErrorIs(t, err, auth.ErrUnavailable)

	runCtx, cancel := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- both.Run(runCtx) }()
	<-both.Ready()
	require.True(t, both.Health().Ready)
	require.ErrorContains(t, both.Run(ctx), "already running")
	_, err = both.Verify(ctx, k.Access)
	require.NoError(t, err)
	for _, fx := range issued {
		k := fx.login(t)
		require.NoError(t, fx.Revoke(ctx, "u1", k.SessionID))
		require.Eventually(t, func() bool { _, err := both.Verify(ctx, k.Access); return err != nil }, 10*time.Second, time.Millisecond)
	}
	require.Equal(t, 2, both.Health().Revocations)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)

	// A verifier that is running already ends Run of both, instead of being forgotten.
	other, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		for other.Err() == nil { // until it is not one of the calls below that is running
			_ = verifiers[0].Run(other)
		}
	}()
	require.Eventually(t, func() bool { return strings.Contains(verifiers[0].Run(runCtx).Error(), "already running") }, 10*time.Second, time.Millisecond)
	require.ErrorContains(t, both.Run(ctx), "already running")
}

// Wherever the access token is, the extractors, trusted origins and proxies are those
// of the first verifier.
func TestAnyOf_AutoRefreshAsksTheFirstVerifierAboutTheRequest(t *testing.T) {
	t.Parallel()
	const partner = "https://partner.example.net"
	of := func(name string, change ...func(*auth.Config)) *fixture {
		return newFixture(t, append([]func(*auth.Config){func(c *auth.Config) {
			c.Issuer, c.AutoRefresh = "https://"+name+".example.com", true
		}}, change...)...)
	}
	trusting := withCookies(func(c *auth.Cookies) { c.TrustedOrigins = []string{partner} })
	plain := of("plain", withCookies(), withExtractors(auth.FromHeader("X-Token"), auth.FromCookie()))
	other := of("other", trusting, func(c *auth.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	fromPartner := []requestOption{reqHeader("Origin", partner), reqHeader("Sec-Fetch-Site", "cross-site")}

	both, err := auth.AnyOf(plain.Verifier, other.Verifier)
	require.NoError(t, err)
	page, k := both.Require()(hello), other.login(t)
	for _, cookie := range []requestOption{reqCookie(accessCookie, k.Access), reqCookie(refreshCookie, k.Refresh)} {
		send(t, page, "POST", "/", append(fromPartner, cookie)...).requireRefused(t, 403, "cross_origin", "")
	}
	require.Zero(t, other.store.count("Rotate"))
	r := send(t, page, "POST", "/", reqHeader("X-Token", plain.login(t).Access+"x"), reqCookie(refreshCookie, k.Refresh))
	r.requireRefused(t, 401, "invalid_token", "login")
	stale := plain.login(t)
	plain.clock.Advance(time.Hour)
	r = send(t, page, "POST", "/", reqHeader("X-Token", stale.Access), reqCookie(refreshCookie, k.Refresh))
	r.requireRefused(t, 401, "invalid_token", "refresh") // a client that sets the header refreshes itself
	r = send(t, page, "GET", "/", reqHeader("X-Forwarded-For", "203.0.113.7"), reqCookie(refreshCookie, k.Refresh))
	require.Equal(t, http.StatusTemporaryRedirect, r.status, r.body)
	require.Equal(t, "192.0.2.1", other.stored(t, k.SessionID).Device.IP.String())

	both, err = auth.AnyOf(other.Verifier, plain.Verifier)
	require.NoError(t, err)
	page, k = both.Require()(hello), plain.login(t)
	r = send(t, page, "POST", "/", append(fromPartner, reqCookie(refreshCookie, k.Refresh))...)
	require.Equal(t, 200, r.status, r.body)

	// v would not read cookies of other names.
	renamed := of("renamed", withCookies(func(c *auth.Cookies) { c.AccessName = "__Host-other" }))
	both, err = auth.AnyOf(plain.Verifier, renamed.Verifier)
	require.NoError(t, err)
	r = send(t, both.Require()(hello), "GET", "/", reqCookie(refreshCookie, renamed.login(t).Refresh))
	r.requireRefused(t, 401, "missing_token", "login")
	require.Zero(t, renamed.store.count("Rotate"))
}

// As for one Authenticator, a refresh cookie that does not count does not hide another.
func TestAnyOf_AutoRefreshFindsTheCookieThatCounts(t *testing.T) {
	t.Parallel()
	a, b, both := tenants(t, withCookies(), func(c *auth.Config) { c.AutoRefresh = true })
	page := both.Require()(hello)
	ended, forged := a.login(t), a.login(t)
	require.NoError(t, a.Revoke(context.Background(), "u1", ended.SessionID))
	for name, token := range map[string]string{"ended": ended.Refresh, "forged": forged.Refresh[:len(forged.Refresh)-4] + "AAAA"} {
		for _, last := range []bool{false, true} {
			list := []string{token, b.login(t).Refresh}
			if last {
				slices.Reverse(list)
			}
			r := send(t, page, "POST", "/", reqCookies(refreshCookie, list...))
			require.Equal(t, 200, r.status, "%s: %s", name, r.body)
			c, err := both.Verify(context.Background(), r.cookies[accessCookie].Value)
			require.NoError(t, err)
			require.Equal(t, "https://b.example.com", c.Issuer)
		}
	}
	r := send(t, page, "GET", "/", reqCookie(refreshCookie, ended.Refresh))
	r.requireRefused(t, 401, "invalid_token", "login")
	require.Equal(t, "revoked", r.fields(t)["reason"])
	send(t, page, "GET", "/", reqCookie(refreshCookie, forged.Refresh[:len(forged.Refresh)-4]+"AAAA")).requireRefused(t, 401, "missing_token", "login")
}
