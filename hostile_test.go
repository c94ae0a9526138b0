package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// cacheModes are the values of TokenCacheSize with which the tests run.
var cacheModes = map[string]int{"with a cache": 0, "without a cache": -1}

func TestVerify_RefusesHostileTokens(t *testing.T) {
	t.Parallel()
	for mode, size := range cacheModes {
		fx := newFixture(t, knownKeys, func(c *auth.Config) { c.TokenCacheSize = size })
		for range 2 {
			verifyRefusesHostile(t, fx, mode)
		}
	}
}

func verifyRefusesHostile(t *testing.T, fx *fixture, mode string) {
	t.Helper()
	table := newForger("access", fx.clock.Now()).all(t)
	refused := 0
	for _, o := range table {
		c, err := fx.Verify(context.Background(), o.token)
		if o.want == nil {
			require.NoError(t, err, o.name)
			require.Equal(t, "u1", c.Subject, o.name)
			continue
		}
		refused++
		require.ErrorIs(t, err, o.want, o.name)
		require.Nil(t, c, o.name)
		for _, other := range []error{auth.ErrInvalidToken, auth.ErrTokenExpired, auth.ErrSessionRevoked, auth.ErrUnavailable, auth.ErrNoToken} {
			if other != o.want {
				require.NotErrorIs(t, err, other, o.name)
			}
		}
		require.False(t, holdsToken(err.Error(), o.token), o.name)
		require.LessOrEqual(t, len(err.Error()), 120, "the error of %s", o.name)
	}
	require.GreaterOrEqual(t, refused, 300)
	t.Logf("%s: %d refused, %d accepted", mode, refused, len(table)-refused)
	// A token that anyone can create causes no event. A token that this service
	// signed for the future causes one event a minute.
	require.Len(t, fx.events.all, 1)
	require.ErrorContains(t, fx.events.all[0].Err, "ahead of this clock")
	for _, method := range []string{"Create", "Get", "Rotate", "List", "Revoke"} {
		require.Zero(t, fx.store.count(method), method)
	}
}

func TestRequire_RefusesHostileTokens(t *testing.T) {
	t.Parallel()
	for _, size := range cacheModes {
		fx := newFixture(t, knownKeys, func(c *auth.Config) { c.Cookies, c.TokenCacheSize = &auth.Cookies{}, size })
		for range 2 {
			requireRefusesHostile(t, fx)
		}
	}
}

func requireRefusesHostile(t *testing.T, fx *fixture) {
	t.Helper()
	table := newForger("access", fx.clock.Now()).all(t)
	served := ""
	h := fx.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := auth.FromContext(r.Context())
		require.True(t, ok)
		served = c.Subject
	}))
	accepted := map[string]bool{}
	for _, o := range table {
		accepted[o.token] = o.want == nil
	}
	for _, way := range []struct {
		name string
		set  func(r *http.Request, token string)
	}{
		{"bearer", func(r *http.Request, token string) { r.Header["Authorization"] = []string{"Bearer " + token} }},
		{"cookie", func(r *http.Request, token string) { r.Header["Cookie"] = []string{"__Host-access=" + token} }},
	} {
		for _, o := range table {
			name := way.name + " " + o.name
			if o.want != nil && accepted[strings.TrimSpace(strings.Trim(o.token, `"`))] {
				continue // net/http and RFC 6750 remove spaces and quotes around it
			}
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			way.set(r, o.token)
			w := httptest.NewRecorder()
			served = ""
			h.ServeHTTP(w, r)
			if o.want == nil {
				require.Equal(t, http.StatusOK, w.Code, name)
				require.Equal(t, "u1", served, name)
				continue
			}
			require.Empty(t, served, name)
			require.Contains(t, []int{http.StatusUnauthorized, http.StatusBadRequest}, w.Code, name)
			if way.name == "bearer" && !strings.ContainsAny(o.token, " \t,") && o.token != "" {
				require.Equal(t, http.StatusUnauthorized, w.Code, name)
				require.Contains(t, w.Header().Get("WWW-Authenticate"), `error="invalid_token"`, name)
			}
			require.Equal(t, o.want == auth.ErrTokenExpired, strings.Contains(w.Body.String(), `"action":"refresh"`), name)
			require.False(t, holdsToken(w.Body.String()+fmt.Sprint(w.Header()), o.token), name)
			require.Empty(t, w.Header()["Set-Cookie"], name)
		}
	}
}

func TestRefresh_RefusesHostileTokens(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys)
	found := 0
	fx.users.onFind = func() { found++ }
	f := newForger("refresh", fx.clock.Now())
	table := f.all(t)
	refused := 0
	for _, o := range table {
		if o.want == nil {
			continue
		}
		refused++
		tokens, err := fx.Refresh(context.Background(), o.token, auth.RefreshOptions{})
		require.ErrorIs(t, err, o.want, o.name)
		require.Zero(t, tokens, o.name)
		require.NotErrorIs(t, err, auth.ErrUnavailable, o.name)
		require.False(t, holdsToken(err.Error(), o.token), o.name)

		if o.want == auth.ErrInvalidToken {
			require.NoError(t, fx.Logout(context.Background(), o.token), o.name)
		}
	}
	t.Logf("%d refused, %d accepted", refused, len(table)-refused)
	require.GreaterOrEqual(t, refused, 200)
	require.Zero(t, found, "an invalid token must cause no user lookup")
	var revoked int
	for _, e := range fx.events.all {
		require.Equal(t, auth.EventLogout, e.Type)
		revoked++
	}
	// A valid access token is of the other kind, but is accepted for a logout.
	require.LessOrEqual(t, revoked, 1)
	require.Zero(t, fx.store.count("Rotate"))
}

func TestRefresh_AcceptsValidTokensOfTheForger(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys)
	f := newForger("refresh", fx.clock.Now())
	for _, o := range f.all(t) {
		if o.want != nil {
			continue
		}
		now := fx.clock.Now()
		s := auth.Session{ID: "forged-session", Subject: "u1", Generation: 1, CreatedAt: now, RotatedAt: now, ExpiresAt: now.Add(time.Hour)}
		require.NoError(t, fx.store.Store.Revoke(context.Background(), auth.Revocation{Subject: "u1", Sessions: []string{s.ID}}))
		require.NoError(t, fx.store.Store.Create(context.Background(), s))
		_, err := fx.Refresh(context.Background(), o.token, auth.RefreshOptions{})
		require.NoError(t, err, o.name)
	}
}

func TestTokens_AccessAndRefreshAreNotInterchangeable(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*auth.Config){"derived keys": func(*auth.Config) {}, "keys of their own": knownKeys} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, change)
			tokens := fx.login(t)
			_, err := fx.Verify(context.Background(), tokens.Refresh)
			require.ErrorIs(t, err, auth.ErrInvalidToken)
			_, err = fx.Refresh(context.Background(), tokens.Access, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrInvalidToken)
			_, err = fx.Verify(context.Background(), tokens.Access)
			require.NoError(t, err, "no token may be spent")
		})
	}
}

// No other string is accepted in place of a token.
func TestVerify_RefusesOtherEncodingsOfAToken(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	token := fx.login(t).Access
	for i := range len(token) {
		for _, c := range []byte{'A', 'B', '_', '-', '.', '=', '\n', token[i] ^ 1, token[i] ^ 0x20} {
			if c == token[i] {
				continue
			}
			_, err := fx.Verify(context.Background(), token[:i]+string(rune(c))+token[i+1:])
			require.ErrorIs(t, err, auth.ErrInvalidToken, "byte %d as %q", i, c)
		}
		_, err := fx.Verify(context.Background(), token[:i]+token[i+1:])
		require.ErrorIs(t, err, auth.ErrInvalidToken, "without byte %d", i)
		_, err = fx.Verify(context.Background(), token[:i])
		require.ErrorIs(t, err, auth.ErrInvalidToken, "the first %d", i)
	}
}
