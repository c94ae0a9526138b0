package auth_test

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// keyLists are the ways to change the keys of a process. Each function returns
// one of several processes that share a store, and a function that changes its
// keys.
var keyLists = map[string]func(t *testing.T, shared *fixture, keys ...[]byte) (now *fixture, change func(keys ...[]byte) *fixture){
	"Secrets and a restart": func(t *testing.T, shared *fixture, keys ...[]byte) (*fixture, func(...[]byte) *fixture) {
		start := func(keys ...[]byte) *fixture {
			return newProcess(t, shared, func(c *auth.Config) { c.Secrets = keys })
		}
		return start(keys...), start
	},
	"keys and a restart": func(t *testing.T, shared *fixture, keys ...[]byte) (*fixture, func(...[]byte) *fixture) {
		start := func(keys ...[]byte) *fixture {
			return newProcess(t, shared, func(c *auth.Config) {
				c.Secrets = nil
				c.AccessKeys, c.RefreshKeys = bothKinds(keys)
			})
		}
		return start(keys...), start
	},
	"SetKeys": func(t *testing.T, shared *fixture, keys ...[]byte) (*fixture, func(...[]byte) *fixture) {
		fx := newProcess(t, shared, func(c *auth.Config) {
			c.Secrets = nil
			c.AccessKeys, c.RefreshKeys = bothKinds(keys)
		})
		return fx, func(keys ...[]byte) *fixture {
			require.NoError(t, fx.SetKeys(bothKinds(keys)))
			return fx
		}
	},
}

func bothKinds(secrets [][]byte) (access, refresh auth.Keys) {
	for _, s := range secrets {
		access = append(access, auth.HS256(append([]byte("access "), s...)))
		refresh = append(refresh, auth.HS256(append([]byte("refresh "), s...)))
	}
	return access, refresh
}

// TestKeyChange_InTwoStepsEveryProcessAcceptsAllTokens simulates a rolling
// deployment of two processes: {old}, {old, new}, {new, old}, {new}, one
// process after the other. After each change, each process has new logins, and
// a client presents to each process all its tokens that have not expired.
func TestKeyChange_InTwoStepsEveryProcessAcceptsAllTokens(t *testing.T) {
	t.Parallel()
	older, newer := []byte("the older secret of these tests, 1"), []byte("the newer secret of these tests, 2")
	for way, start := range keyLists {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			shared := newFixture(t)
			var nodes [2]*fixture
			var change [2]func(...[]byte) *fixture
			for i := range nodes {
				nodes[i], change[i] = start(t, shared, older)
			}
			var clients []auth.Tokens
			use := func() {
				t.Helper()
				for _, fx := range nodes {
					clients = append(clients, fx.login(t))
				}
				for i := range clients {
					for _, fx := range []*fixture{nodes[i%2], nodes[1-i%2]} {
						if shared.clock.Now().Before(clients[i].AccessExpiresAt) {
							_, err := fx.Verify(context.Background(), clients[i].Access)
							require.NoError(t, err)
						}
						shared.clock.Advance(2 * time.Minute)
						next, err := fx.Refresh(context.Background(), clients[i].Refresh, auth.RefreshOptions{})
						require.NoError(t, err)
						clients[i] = next
						for _, fx := range nodes {
							_, err := fx.Verify(context.Background(), next.Access)
							require.NoError(t, err)
						}
					}
				}
			}
			use()
			for _, list := range [][][]byte{{older, newer}, {newer, older}} {
				for i := range nodes {
					nodes[i] = change[i](list...)
					use()
				}
			}
			// The last step waits until all tokens signed by the old secret
			// have expired.
			idle := clients
			clients = nil
			for range 8 {
				shared.clock.Advance(24 * time.Hour)
				use()
			}
			for i := range nodes {
				nodes[i] = change[i](newer)
				use()
			}
			for _, tokens := range idle { // a week without a refresh
				_, err := nodes[0].Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
				require.Error(t, err)
			}
		})
	}
}

// TestKeyChange_InOneStepSignsUsersOut shows why two steps are needed:
// processes without the new secret refuse the tokens that it has signed, and a
// client that is told to sign in again drops a valid session.
func TestKeyChange_InOneStepSignsUsersOut(t *testing.T) {
	t.Parallel()
	older, newer := []byte("the older secret of these tests, 1"), []byte("the newer secret of these tests, 2")
	for way, start := range keyLists {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			shared := newFixture(t)
			behind, _ := start(t, shared, older)
			_, change := start(t, shared, older)
			ahead := change(newer, older)
			tokens := ahead.login(t)
			_, err := behind.Verify(context.Background(), tokens.Access)
			require.ErrorIs(t, err, auth.ErrInvalidToken)
			require.ErrorContains(t, err, "unknown kid")
			_, err = behind.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrInvalidToken, "the kid is not authenticated")
			r := httptest.NewRequest(http.MethodPost, "/refresh", strings.NewReader("refresh_token="+tokens.Refresh))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			behind.Handler().ServeHTTP(w, r)
			require.Equal(t, http.StatusUnauthorized, w.Code)
			require.Contains(t, w.Body.String(), `"action":"login"`)
			_, err = ahead.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
			require.NoError(t, err, "the session is still valid")
		})
	}
}

// TestKeyChange_WithSignFromTakesOneStep gives all processes the same time, one
// after the other. They sign with the new key from that time on. It works for
// secrets and for public keys.
func TestKeyChange_WithSignFromTakesOneStep(t *testing.T) {
	t.Parallel()
	older, newer := []byte("the older secret of these tests, 1"), []byte("the newer secret of these tests, 2")
	for _, restart := range []bool{true, false} {
		shared := newFixture(t)
		at := shared.clock.Now().Add(time.Hour)
		lists := func(secrets ...[]byte) (auth.Keys, auth.Keys) {
			access, refresh := bothKinds(secrets)
			if len(secrets) > 1 {
				access[0], refresh[0] = access[0].SignFrom(at), refresh[0].SignFrom(at)
			}
			return access, refresh
		}
		start := func(secrets ...[]byte) *fixture {
			return newProcess(t, shared, func(c *auth.Config) {
				c.Secrets = nil
				c.AccessKeys, c.RefreshKeys = lists(secrets...)
			})
		}
		nodes := [2]*fixture{start(older), start(older)}
		oldKid, newKid := headerOf(t, start(older).login(t).Access)["kid"], headerOf(t, start(newer).login(t).Access)["kid"]
		all := []auth.Tokens{nodes[0].login(t)}
		use := func(kid string) {
			t.Helper()
			for i, fx := range nodes {
				tokens := fx.login(t)
				require.Equal(t, kid, headerOf(t, tokens.Access)["kid"])
				shared.clock.Advance(time.Minute)
				_, err := nodes[1-i].Verify(context.Background(), tokens.Access)
				require.NoError(t, err)
				tokens, err = nodes[1-i].Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
				require.NoError(t, err)
				_, err = fx.Verify(context.Background(), tokens.Access)
				require.NoError(t, err)
				all = append(all, tokens)
			}
		}
		use(oldKid)
		for i := range nodes {
			if restart {
				nodes[i] = start(newer, older)
			} else {
				require.NoError(t, nodes[i].SetKeys(lists(newer, older)))
			}
			use(oldKid)
		}
		shared.clock.Advance(at.Sub(shared.clock.Now()))
		use(newKid)
		for _, tokens := range all {
			_, err := nodes[1].Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
			require.NoError(t, err, "tokens of the old secret must stay valid")
		}
		// A process that starts now with the same time signs with the same key.
		nodes[0] = start(newer, older)
		use(newKid)
	}
}

// TestKeyRing_DropsAKeyAfterTheFirstTakeover tests that a key signs until the
// first of the keys before it starts to sign, in any order of the list.
func TestKeyRing_DropsAKeyAfterTheFirstTakeover(t *testing.T) {
	t.Parallel()
	at := newClock().Now()
	soon, late := at.Add(30*time.Minute), at.Add(5*time.Hour)
	ed, es, es384 := auth.EdDSA(privateKeys()["EdDSA"]), auth.ES256(privateKeys()["ES256"]), auth.ES384(privateKeys()["ES384"])
	for _, list := range []auth.Keys{{es384.SignFrom(late), es.SignFrom(soon), ed}, {es.SignFrom(soon), es384.SignFrom(late), ed}} {
		fx := newFixture(t, withAccessKeys(list...))
		fx.clock.Advance(30*time.Minute - time.Second)
		require.Equal(t, "EdDSA", headerOf(t, fx.login(t).Access)["alg"])
		fx.clock.Advance(time.Second)
		require.Equal(t, "ES256", headerOf(t, fx.login(t).Access)["alg"])
		fx.clock.Advance(15*time.Minute + 20*time.Second - time.Second)
		kids, _ := published(t, fx)
		require.Len(t, kids, 3)
		fx.clock.Advance(time.Second)
		kids, _ = published(t, fx)
		require.NotContains(t, kids, ed.ID())
		require.Contains(t, kids, es.ID())
	}
	// If it is unknown when a key started to sign, it is unknown when the keys
	// after it stopped.
	for _, list := range []auth.Keys{{es384, es.SignFrom(soon), ed}, {es.SignFrom(soon), es384, ed}} {
		fx := newFixture(t, withAccessKeys(list...))
		fx.clock.Advance(24 * time.Hour)
		kids, _ := published(t, fx)
		require.Contains(t, kids, ed.ID())
	}
	// A key that only verifies does not take over.
	fx := newFixture(t, withAccessKeys(auth.ES256(privateKeys()["ES256"].Public()).SignFrom(soon), ed))
	fx.clock.Advance(24 * time.Hour)
	require.Equal(t, "EdDSA", headerOf(t, fx.login(t).Access)["alg"])
	kids, _ := published(t, fx)
	require.Len(t, kids, 2)
}

// TestVerifier_KeepsKeysWhateverTheirSignFrom is needed because a Verifier does
// not know how long the tokens of another service are valid.
func TestVerifier_KeepsKeysWhateverTheirSignFrom(t *testing.T) {
	t.Parallel()
	ed, es := auth.EdDSA(privateKeys()["EdDSA"]), auth.ES256(privateKeys()["ES256"])
	c := newClock()
	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{es.SignFrom(c.Now()), ed}, Now: c.Now})
	require.NoError(t, err)
	c.Advance(1000 * time.Hour)
	for _, k := range []auth.Key{ed, es} {
		token := newFixture(t, withAccessKeys(k), func(config *auth.Config) { config.Now = c.Now }).login(t).Access
		_, err := v.Verify(context.Background(), token)
		require.NoError(t, err)
	}
}

func TestAccessKeys_APublicKeyInFrontSignsNothing(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withAccessKeys(auth.EdDSA(privateKeys()["EdDSA"].Public()), auth.ES256(privateKeys()["ES256"])))
	require.Equal(t, "ES256", headerOf(t, fx.login(t).Access)["alg"])
	kids, _ := published(t, fx)
	require.Len(t, kids, 2, "it must be published as well")
	// The new key would have to wait, and the public key cannot sign meanwhile,
	// so SetKeys refuses them.
	require.ErrorContains(
		t, fx.SetKeys(auth.Keys{auth.EdDSA(privateKeys()["EdDSA"].Public()), auth.ES384(privateKeys()["ES384"])}, nil),
		"no access key may sign yet",
	)
	require.Equal(t, "ES256", headerOf(t, fx.login(t).Access)["alg"])
}

// TestSetKeys_AnotherNameOrAnotherKeyIsNew tests which keys are new to clients
// that fetch the key set.
func TestSetKeys_AnotherNameOrAnotherKeyIsNew(t *testing.T) {
	t.Parallel()
	ed, es := auth.EdDSA(privateKeys()["EdDSA"]), auth.ES256(privateKeys()["ES256"])
	kid := func(fx *fixture) string { return headerOf(t, fx.login(t).Access)["kid"] }

	// The same key has another kid.
	fx := newFixture(t, withAccessKeys(es))
	require.ErrorContains(t, fx.SetKeys(auth.Keys{es.WithID("renamed")}, nil), "may sign yet")
	require.NoError(t, fx.SetKeys(auth.Keys{es.WithID("renamed"), es}, nil))
	require.Equal(t, es.ID(), kid(fx))
	fx.clock.Advance(5*time.Minute + 10*time.Second)
	require.Equal(t, "renamed", kid(fx))

	// Another key has the kid of the signing key. A SignFrom in the past does
	// not help: it is not the time of publication.
	_, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	for _, other := range []auth.Key{auth.EdDSA(private), es} {
		fx = newFixture(t, withAccessKeys(ed.WithID("main"), es))
		fx.clock.Advance(time.Hour)
		require.NoError(t, fx.SetKeys(auth.Keys{other.WithID("main"), auth.ES384(privateKeys()["ES384"]), es}, nil))
		require.Equal(t, es.ID(), kid(fx))
		fx.clock.Advance(5*time.Minute + 10*time.Second)
		require.Equal(t, "main", kid(fx))
	}

	// A SignFrom in the past remains the time of a key that is already
	// configured. The key that it replaced is removed when it would have been.
	fx = newFixture(t, withAccessKeys(es))
	from := fx.clock.Now().Add(5*time.Minute + 10*time.Second)
	require.NoError(t, fx.SetKeys(auth.Keys{ed, es}, nil))
	fx.clock.Advance(10 * time.Minute)
	require.NoError(t, fx.SetKeys(auth.Keys{ed.SignFrom(from), es}, nil))
	fx.clock.Advance(from.Add(15*time.Minute + 20*time.Second).Sub(fx.clock.Now()))
	kids, _ := published(t, fx)
	require.Equal(t, []string{ed.ID()}, kids)

	// A new SignFrom of a configured key takes effect. Without a new one, the
	// key keeps its time.
	fx = newFixture(t, withAccessKeys(es))
	later := fx.clock.Now().Add(time.Hour)
	require.NoError(t, fx.SetKeys(auth.Keys{ed, es}, nil))
	require.NoError(t, fx.SetKeys(auth.Keys{ed.SignFrom(later), es}, nil))
	fx.clock.Advance(30 * time.Minute)
	require.Equal(t, es.ID(), kid(fx))
	require.NoError(t, fx.SetKeys(auth.Keys{ed, es}, nil))
	require.Equal(t, es.ID(), kid(fx))
	fx.clock.Advance(30 * time.Minute)
	require.Equal(t, ed.ID(), kid(fx))
	require.NoError(t, fx.SetKeys(auth.Keys{es.SignFrom(later.Add(-time.Second)), ed}, nil), "the key may have been removed")
}
