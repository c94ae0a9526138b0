package auth_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// withClaims returns a refresh token as a newer version would issue it: claims
// are appended, and the token is signed again by the same key.
func withClaims(t testing.TB, refresh, claims string) string {
	t.Helper()
	return signedWith(t, refreshSecret, refresh, claims)
}

// signedWith returns a token with more claims, signed with a secret.
func signedWith(t testing.TB, secret []byte, token, claims string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	payload := plain(t, parts[1])
	return handSigned(secret, plain(t, parts[0]), payload[:len(payload)-1]+claims+"}")
}

func plain(t testing.TB, part string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(part)
	require.NoError(t, err)
	return string(b)
}

// newerClaims are claims that this version does not know in a refresh token,
// with their names in an event.
var newerClaims = map[string]string{
	`,"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}`: `"cnf"`,
	`,"jti":"private"`:                       `"jti"`,
	`,"nbf":0`:                               `"nbf"`,
	`,"eff_iat":1795176000`:                  `"eff_iat"`,
	`,"roles":["private"]`:                   `"roles"`,
	`,"session_exp":null`:                    `"session_exp"`,
	`,"x":"private"`:                         `"x"`,
	`,"":"private"`:                          `""`,
	`,"sub ":[{"a":"private"}]`:              `"sub "`,
	`,"\u0000\u001b[31m":true`:               `"\x00\x1b[31m"`,
	`,"` + strings.Repeat("x", 3000) + `":1`: `"` + strings.Repeat("x", 32) + `"`,
	`,"first":"private","second":"private"`:  `"first"`,
	`,"amr2":["private"],"aud2":{"b":[1,2]}`: `"amr2"`,
}

func TestRefresh_TokenOfANewerVersionIsUnavailable(t *testing.T) {
	t.Parallel()
	for claims, name := range newerClaims {
		fx := newFixture(t, knownKeys)
		first := fx.login(t)
		fx.events.take("")
		newer := withClaims(t, first.Refresh, claims)
		looked := 0
		fx.users.onFind = func() { looked++ }
		for range 3 {
			tokens, err := fx.Refresh(context.Background(), newer, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrUnavailable, claims)
			require.NotErrorIs(t, err, auth.ErrInvalidToken, claims)
			require.Zero(t, tokens, claims)
			require.NotContains(t, err.Error(), "private")

			r := httptest.NewRequest(http.MethodPost, "/refresh", nil)
			r.Header.Set("Refresh-Token", newer)
			w := httptest.NewRecorder()
			fx.RefreshHandler().ServeHTTP(w, r)
			require.Equal(t, http.StatusServiceUnavailable, w.Code, claims)
			require.NotEmpty(t, w.Header().Get("Retry-After"), claims)
			require.NotContains(t, w.Body.String(), "action", claims)
			require.Empty(t, w.Header()["Set-Cookie"], claims)
		}
		require.Zero(t, looked, claims)
		require.Zero(t, fx.store.count("Rotate"), claims)

		faults := fx.events.take(auth.EventFault)
		require.Len(t, faults, 1, "%s: one event a minute", claims)
		require.Contains(t, faults[0].Err.Error(), "the claim "+name+",", claims)
		require.NotContains(t, faults[0].Err.Error(), "private", claims)
		require.Equal(t, first.SessionID, faults[0].Session.ID)
		fx.clock.Advance(time.Minute)
		_, err := fx.Refresh(context.Background(), newer, auth.RefreshOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable)
		require.Len(t, fx.events.take(auth.EventFault), 1, claims)

		_, err = fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{})
		require.NoError(t, err, "%s: the session must continue", claims)
	}
}

// In a rolling deployment, a newer and an older process share keys and a store,
// and serve one client in turn.
func TestRefresh_OldAndNewVersionsSignNobodyOut(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	two := newNodes(t, 2, func(_ int, c *auth.Config) { knownKeys(c) })
	older, newer := two[0], two[1]
	const claim = `,"cnf":{"jkt":"x"}`
	tokens := newer.login(t)
	for range 5 {
		held := withClaims(t, tokens.Refresh, claim) // as issued by the newer process
		_, err := older.Verify(ctx, tokens.Access)
		require.NoError(t, err)
		older.clock.Advance(14 * time.Minute)
		_, err = older.Refresh(ctx, held, auth.RefreshOptions{})
		require.Equal(t, http.StatusServiceUnavailable, auth.ResponseFor(err).Status)
		tokens, err = newer.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{}) // the newer process knows the claim
		require.NoError(t, err)
	}
	// The newer process accepts a token of the older one.
	tokens, err := older.Refresh(ctx, older.login(t).Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	newer.clock.Advance(2 * time.Minute)
	_, err = newer.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
}

func TestRefresh_ExpiredTokenOfANewerVersionIsRefused(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t, knownKeys)
	first := fx.login(t)
	newer := withClaims(t, first.Refresh, `,"x":1`)
	require.NoError(t, fx.Revoke(ctx, "u1", first.SessionID))
	_, err := fx.Refresh(ctx, newer, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	require.Equal(t, "login", auth.ResponseFor(err).Action)

	newer = withClaims(t, fx.login(t).Refresh, `,"x":1`)
	fx.clock.Advance(7 * 24 * time.Hour)
	_, err = fx.Refresh(ctx, newer, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrTokenExpired)
	require.Equal(t, "login", auth.ResponseFor(err).Action)
}

func TestLogout_TokenOfANewerVersionEndsItsSession(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for claims := range newerClaims {
		fx := newFixture(t, knownKeys)
		first := fx.login(t)
		require.NoError(t, fx.Logout(ctx, withClaims(t, first.Refresh, claims)), claims)
		_, err := fx.Verify(ctx, first.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked, claims)

		second := fx.login(t)
		_, err = fx.Login(ctx, "ada", pass, auth.SessionOptions{Replaces: []string{withClaims(t, second.Refresh, claims)}})
		require.NoError(t, err, claims)
		_, err = fx.Verify(ctx, second.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked, claims)
	}
}

// An unknown claim does not excuse any other mistake in the token.
func TestRefresh_AnUnknownClaimExcusesNothing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t, knownKeys)
	f := newForger("refresh", fx.clock.Now())
	good := f.claims.with("x", "1")
	for name, token := range map[string]string{
		"another issuer":           f.signClaims(good.with("iss", `"https://other.example.com"`)),
		"another audience":         f.signClaims(good.with("aud", `"https://other.example.com"`)),
		"no subject":               f.signClaims(good.without("sub")),
		"no session":               f.signClaims(good.without("sid")),
		"no generation":            f.signClaims(good.without("gen")),
		"no expiry":                f.signClaims(good.without("exp")),
		"a generation as text":     f.signClaims(good.with("gen", `"1"`)),
		"an expiry as text":        f.signClaims(good.with("exp", quote(f.at(time.Hour)))),
		"a name in upper case":     f.signClaims(good.and("SUB", `"u2"`)),
		"jti in upper case":        f.signClaims(good.and("JTI", `"x"`)),
		"the unknown twice":        f.signClaims(good.and("x", "1")),
		"a duplicate inside":       f.signClaims(good.with("x", `{"a":1,"a":1}`)),
		"signed by the access key": handSigned(accessSecret, f.header().String(), good.String()),
		"as an access token":       f.sign(f.header().with("typ", `"at+jwt"`), good),
		"signed by an unknown key": handSigned([]byte("the secret of nobody in these tests"), f.header().String(), good.String()),
		"text after the object":    f.signPayload(good.String() + "x"),
	} {
		_, err := fx.Refresh(ctx, token, auth.RefreshOptions{})
		require.ErrorIs(t, err, auth.ErrInvalidToken, name)
		require.Empty(t, fx.events.take(auth.EventFault), name)
	}
	// A token that names its session is accepted for a logout. A claim of a
	// wrong type makes it invalid in every version.
	for _, c := range []struct {
		token string
		ends  int
	}{
		{f.signClaims(good.without("gen").without("exp").without("iat").without("auth_time")), 1},
		{f.signClaims(good.with("gen", `"1"`)), 0},
		{f.signClaims(good.without("sid")), 0},
		{f.signClaims(good.with("aud", `"https://other.example.com"`)), 0},
	} {
		fx := newFixture(t, knownKeys)
		require.NoError(t, fx.Logout(ctx, c.token))
		require.Len(t, fx.events.take(auth.EventLogout), c.ends)
	}
}
