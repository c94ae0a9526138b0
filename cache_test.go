package auth_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

var otherSecret = []byte("another secret of 32 bytes or more!")

// TestTokenCache_DoesNotChangeResults runs random operations on two nodes with
// one store and one clock, one with a token cache and one without, and compares
// all results.
func TestTokenCache_DoesNotChangeResults(t *testing.T) {
	t.Parallel()
	base := seed(t)
	refresh := auth.Keys{auth.HS256([]byte("a refresh secret of 32 bytes or more"))}
	keys := []auth.Key{
		auth.HS256(secret), auth.HS256(otherSecret),
		auth.HS512([]byte("sixty-four bytes of a secret, and a few more so that it is long enough")),
	}
	rebuilt := []func() auth.Key{
		func() auth.Key { return auth.HS256(secret) },
		func() auth.Key { return keys[1] },
		func() auth.Key { return auth.ES256(privateKeys()["ES256"]).SignFrom(time.Unix(1, 0)) },
	}
	hits := 0
	for i := range iterations(300, 3_000) {
		r := rand.New(rand.NewPCG(base+uint64(i), 3))
		var log []string
		note := func(format string, args ...any) { log = append(log, fmt.Sprintf(format, args...)) }
		with := newFixture(t, func(c *auth.Config) {
			c.Secrets, c.AccessKeys, c.RefreshKeys = nil, keys, refresh
			c.AccessTTL, c.Leeway = 5*time.Minute, 5*time.Second
			c.TokenCacheSize = []int{1, 8, 0}[r.IntN(3)]
		})
		without, err := auth.New(auth.Config{
			Issuer: issuer, Audience: []string{audience}, AccessKeys: keys, RefreshKeys: refresh,
			Users: with.users, Now: with.clock.Now, TokenCacheSize: -1, AccessTTL: 5 * time.Minute, Leeway: 5 * time.Second,
			Store: database{auth.NewMemoryStore()},
		})
		require.NoError(t, err)
		runNodes(t, without)
		both := func(f func(a *auth.Authenticator) error) {
			require.NoError(t, f(with.Authenticator))
			require.NoError(t, f(without))
		}
		// Within one second of another call, ExpireAccess would wait, and
		// RevokeAll would list sessions, which only one of the stores has.
		var last time.Time
		beyond := func() {
			if wait := last.Add(time.Second).Sub(with.clock.Now()); wait > 0 {
				with.clock.Advance(wait)
			}
			last = with.clock.Now()
		}
		var tokens []auth.Tokens
		for range 40 {
			ctx := context.Background()
			switch op := r.IntN(16); {
			case op < 3 || len(tokens) == 0:
				got, err := with.StartSession(ctx, "u1", auth.SessionOptions{})
				require.NoError(t, err)
				tokens = append(tokens, got)
			case op == 3:
				s := tokens[r.IntN(len(tokens))].SessionID
				note("revoke %s", s[:4])
				both(func(a *auth.Authenticator) error { return a.Revoke(ctx, "u1", s) })
			case op == 4 && r.IntN(4) == 0:
				note("revoke all")
				beyond()
				both(func(a *auth.Authenticator) error { return a.RevokeAll(ctx, "u1") })
				var ids []string // which only one of the stores contains
				for _, t := range tokens {
					ids = append(ids, t.SessionID)
				}
				both(func(a *auth.Authenticator) error { return a.Revoke(ctx, "u1", ids...) })
			case op == 5 && r.IntN(2) == 0:
				note("expire access")
				beyond()
				both(func(a *auth.Authenticator) error { return a.ExpireAccess(ctx, "u1") })
			case op == 6:
				some := []auth.Key{rebuilt[r.IntN(3)]()}
				if other := rebuilt[r.IntN(3)](); other.ID() != some[0].ID() {
					some = append(some, other)
				}
				note("keys %v", some)
				both(func(a *auth.Authenticator) error { return a.SetKeys(some, nil) })
			case op == 7:
				d := []time.Duration{time.Second, time.Minute, -8 * time.Second, 5 * time.Minute}[r.IntN(4)]
				note("clock + %s", d)
				with.clock.Advance(d)
			default:
				token := tokens[r.IntN(len(tokens))].Access
				if r.IntN(8) == 0 { // a token that differs in one character
					at := r.IntN(len(token))
					token = token[:at] + "A" + token[at+1:]
				}
				got, err1 := with.Verify(ctx, token)
				want, err2 := without.Verify(ctx, token)
				note("verify: %v", err2)
				if fmt.Sprint(err1) != fmt.Sprint(err2) || (got == nil) != (want == nil) {
					t.Fatalf("with cache %v, without %v; seed %d\n%s", err1, err2, base+uint64(i), strings.Join(log, "\n"))
				}
				if got != nil {
					hits++
					require.Equal(t, want, got)
				}
			}
		}
	}
	t.Logf("%d accepted", hits)
}

func TestTokenCache_ReturnsACopyOfTheClaims(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	tokens := fx.login(t)
	seen := 0
	h := fx.Require(auth.Role("admin"))(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		require.Equal(t, []string{"admin", "user"}, c.Roles)
		require.Equal(t, []string{"pay", "read"}, c.Scopes)
		require.Equal(t, []string{audience}, c.Audience)
		require.Equal(t, "u1", c.Subject)
		c.Roles[0], c.Scopes[0], c.Audience[0], c.Subject = "root", "all", "x", "u2"
		c.Roles = append(c.Roles, "more")
		require.Equal(t, "all", c.Scopes[0], "appending to a list does not change the next one")
		seen++
	}))
	for range 5 {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+tokens.Access)
		h.ServeHTTP(httptest.NewRecorder(), r)
		c, err := fx.Verify(context.Background(), tokens.Access)
		require.NoError(t, err)
		c.Roles[0] = "root"
	}
	require.Equal(t, 5, seen)
}

func TestTokenCache_IsBoundedUnderAFloodOfTokens(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *auth.Config) { c.TokenCacheSize, c.MaxSessions = 64, -1 })
	fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": strings.Repeat("y", 3000)} })
	ctx := context.Background()
	mine, err := fx.StartSession(ctx, "u2", auth.SessionOptions{})
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				other, err := fx.StartSession(ctx, "u1", auth.SessionOptions{})
				if err == nil {
					_, err = fx.Verify(ctx, other.Access)
				}
				if err == nil {
					_, err = fx.Verify(ctx, mine.Access)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestTokenCache_ConcurrentUseWhileKeysChange(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withSeparateKeys)
	ctx := context.Background()
	tokens := fx.login(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := fx.Verify(ctx, tokens.Access); err != nil && !errors.Is(err, auth.ErrInvalidToken) {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 200 {
		require.NoError(t, fx.SetKeys(auth.Keys{auth.HS256(otherSecret)}, nil))
		_, err := fx.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrInvalidToken, "its key was removed, so the cache must not accept it")
		require.NoError(t, fx.SetKeys(auth.Keys{auth.HS256(otherSecret), auth.HS256(secret)}, nil))
		_, err = fx.Verify(ctx, tokens.Access)
		require.NoError(t, err)
	}
	close(stop)
	wg.Wait()
}
