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

// keyLists are the ways in which a process is told its keys: each returns one
// process of several that share a store, and how it is told others.
var keyLists = map[string]func(t *testing.T, shared *bench, keys ...[]byte) (now *bench, change func(keys ...[]byte) *bench){
	"Secrets and a restart": func(t *testing.T, shared *bench, keys ...[]byte) (*bench, func(...[]byte) *bench) {
		start := func(keys ...[]byte) *bench {
			return another(t, shared, func(c *auth.Config) { c.Secrets = keys })
		}
		return start(keys...), start
	},
	"keys and a restart": func(t *testing.T, shared *bench, keys ...[]byte) (*bench, func(...[]byte) *bench) {
		start := func(keys ...[]byte) *bench {
			return another(t, shared, func(c *auth.Config) {
				c.Secrets = nil
				c.AccessKeys, c.RefreshKeys = bothKinds(keys)
			})
		}
		return start(keys...), start
	},
	"SetKeys": func(t *testing.T, shared *bench, keys ...[]byte) (*bench, func(...[]byte) *bench) {
		b := another(t, shared, func(c *auth.Config) {
			c.Secrets = nil
			c.AccessKeys, c.RefreshKeys = bothKinds(keys)
		})
		return b, func(keys ...[]byte) *bench {
			require.NoError(t, b.SetKeys(bothKinds(keys)))
			return b
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

// another returns another process on the store, the clock and the users of b.
func another(t *testing.T, b *bench, change func(c *auth.Config)) *bench {
	t.Helper()
	other := newBench(t, func(c *auth.Config) {
		c.Store, c.Now, c.Users = b.store, b.clock.Now, b.users
		change(c)
	})
	other.clock, other.users = b.clock, b.users
	return other
}

// TestKeyChange_InTwoStepsNoProcessRefusesAnother plays a rolling deployment of
// two processes: {old}, {old, new}, {new, old}, {new}, one process after the
// other. After each change each process has new logins, and a client goes from
// the one to the other with all the tokens that it was ever given and that have
// not expired.
func TestKeyChange_InTwoStepsNoProcessRefusesAnother(t *testing.T) {
	t.Parallel()
	older, newer := []byte("the older secret of these tests, 1"), []byte("the newer secret of these tests, 2")
	for way, start := range keyLists {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			shared := newBench(t)
			var nodes [2]*bench
			var change [2]func(...[]byte) *bench
			for i := range nodes {
				nodes[i], change[i] = start(t, shared, older)
			}
			var clients []auth.Tokens
			use := func() {
				t.Helper()
				for _, b := range nodes {
					clients = append(clients, b.login(t))
				}
				for i := range clients {
					for _, b := range []*bench{nodes[i%2], nodes[1-i%2]} {
						if shared.clock.Now().Before(clients[i].AccessExpiresAt) {
							_, err := b.Verify(context.Background(), clients[i].Access)
							require.NoError(t, err)
						}
						shared.clock.advance(time.Minute)
						next, err := b.Refresh(context.Background(), clients[i].Refresh, auth.RefreshOptions{})
						require.NoError(t, err)
						clients[i] = next
						for _, b := range nodes {
							_, err := b.Verify(context.Background(), next.Access)
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
			// The last step waits until all that the old secret signed has expired.
			idle := clients
			clients = nil
			for range 8 {
				shared.clock.advance(24 * time.Hour)
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

// TestKeyChange_InOneStepSignsPeopleOut is why there are two: the processes that
// do not know the new secret yet refuse what it has signed, and a client that
// is told to sign in again drops a good session.
func TestKeyChange_InOneStepSignsPeopleOut(t *testing.T) {
	t.Parallel()
	older, newer := []byte("the older secret of these tests, 1"), []byte("the newer secret of these tests, 2")
	for way, start := range keyLists {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			shared := newBench(t)
			behind, _ := start(t, shared, older)
			_, change := start(t, shared, older)
			ahead := change(newer, older)
			tokens := ahead.login(t)
			_, err := behind.Verify(context.Background(), tokens.Access)
			require.ErrorIs(t, err, auth.ErrInvalidToken)
			require.ErrorContains(t, err, "unknown kid")
			_, err = behind.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrInvalidToken, "it is not authenticated")
			r := httptest.NewRequest(http.MethodPost, "/refresh", strings.NewReader("refresh_token="+tokens.Refresh))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			behind.Handler().ServeHTTP(w, r)
			require.Equal(t, http.StatusUnauthorized, w.Code)
			require.Contains(t, w.Body.String(), `"action":"login"`)
			_, err = ahead.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
			require.NoError(t, err, "and yet the session is good")
		})
	}
}

// TestKeyChange_BySignFromIsOneStep: all processes are told the same time, one
// after the other, and sign by the new key from then on. It works for secrets
// as well as for public keys.
func TestKeyChange_BySignFromIsOneStep(t *testing.T) {
	t.Parallel()
	older, newer := []byte("the older secret of these tests, 1"), []byte("the newer secret of these tests, 2")
	for _, restart := range []bool{true, false} {
		shared := newBench(t)
		at := shared.clock.Now().Add(time.Hour)
		lists := func(secrets ...[]byte) (auth.Keys, auth.Keys) {
			access, refresh := bothKinds(secrets)
			if len(secrets) > 1 {
				access[0], refresh[0] = access[0].SignFrom(at), refresh[0].SignFrom(at)
			}
			return access, refresh
		}
		start := func(secrets ...[]byte) *bench {
			return another(t, shared, func(c *auth.Config) {
				c.Secrets = nil
				c.AccessKeys, c.RefreshKeys = lists(secrets...)
			})
		}
		nodes := [2]*bench{start(older), start(older)}
		oldKid, newKid := headerOf(t, start(older).login(t).Access)["kid"], headerOf(t, start(newer).login(t).Access)["kid"]
		all := []auth.Tokens{nodes[0].login(t)}
		use := func(kid string) {
			t.Helper()
			for i, b := range nodes {
				tokens := b.login(t)
				require.Equal(t, kid, headerOf(t, tokens.Access)["kid"])
				shared.clock.advance(time.Minute)
				_, err := nodes[1-i].Verify(context.Background(), tokens.Access)
				require.NoError(t, err)
				tokens, err = nodes[1-i].Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
				require.NoError(t, err)
				_, err = b.Verify(context.Background(), tokens.Access)
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
		shared.clock.advance(at.Sub(shared.clock.Now()))
		use(newKid)
		for _, tokens := range all {
			_, err := nodes[1].Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
			require.NoError(t, err, "what the old secret signed goes on")
		}
		// A process that starts now is given the time again, and agrees.
		nodes[0] = start(newer, older)
		use(newKid)
	}
}

// TestKeyRing_IsGoneAfterTheFirstTakeover: a key signs until the first of those
// before it does, in whatever order they stand.
func TestKeyRing_IsGoneAfterTheFirstTakeover(t *testing.T) {
	t.Parallel()
	at := newClock().Now()
	soon, late := at.Add(30*time.Minute), at.Add(5*time.Hour)
	ed, es, es384 := auth.EdDSA(privateKeys()["EdDSA"]), auth.ES256(privateKeys()["ES256"]), auth.ES384(privateKeys()["ES384"])
	for _, list := range []auth.Keys{{es384.SignFrom(late), es.SignFrom(soon), ed}, {es.SignFrom(soon), es384.SignFrom(late), ed}} {
		b := newBench(t, withAccessKeys(list...))
		b.clock.advance(30*time.Minute - time.Second)
		require.Equal(t, "EdDSA", headerOf(t, b.login(t).Access)["alg"])
		b.clock.advance(time.Second)
		require.Equal(t, "ES256", headerOf(t, b.login(t).Access)["alg"])
		b.clock.advance(15*time.Minute + 20*time.Second - time.Second)
		kids, _ := published(t, b)
		require.Len(t, kids, 3)
		b.clock.advance(time.Second)
		kids, _ = published(t, b)
		require.NotContains(t, kids, ed.ID())
		require.Contains(t, kids, es.ID())
	}
	// Behind one that signs from nobody knows when, nobody knows when it ended.
	for _, list := range []auth.Keys{{es384, es.SignFrom(soon), ed}, {es.SignFrom(soon), es384, ed}} {
		b := newBench(t, withAccessKeys(list...))
		b.clock.advance(24 * time.Hour)
		kids, _ := published(t, b)
		require.Contains(t, kids, ed.ID())
	}
	// One that only verifies takes over from nobody.
	b := newBench(t, withAccessKeys(auth.ES256(privateKeys()["ES256"].Public()).SignFrom(soon), ed))
	b.clock.advance(24 * time.Hour)
	require.Equal(t, "EdDSA", headerOf(t, b.login(t).Access)["alg"])
	kids, _ := published(t, b)
	require.Len(t, kids, 2)
}

// TestVerifier_KeepsKeysWhateverTheirSignFrom: it does not know how long the
// tokens of another service live.
func TestVerifier_KeepsKeysWhateverTheirSignFrom(t *testing.T) {
	t.Parallel()
	ed, es := auth.EdDSA(privateKeys()["EdDSA"]), auth.ES256(privateKeys()["ES256"])
	c := newClock()
	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{es.SignFrom(c.Now()), ed}, Now: c.Now})
	require.NoError(t, err)
	c.advance(1000 * time.Hour)
	for _, k := range []auth.Key{ed, es} {
		token := newBench(t, withAccessKeys(k), func(config *auth.Config) { config.Now = c.Now }).login(t).Access
		_, err := v.Verify(context.Background(), token)
		require.NoError(t, err)
	}
}

func TestAccessKeys_APublicKeyInFrontSignsNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, withAccessKeys(auth.EdDSA(privateKeys()["EdDSA"].Public()), auth.ES256(privateKeys()["ES256"])))
	require.Equal(t, "ES256", headerOf(t, b.login(t).Access)["alg"])
	kids, _ := published(t, b)
	require.Len(t, kids, 2, "it is published all the same")
	// A public key that has been there is no reason to let a new key wait: there
	// is nothing that signs meanwhile.
	require.ErrorContains(t, b.SetKeys(auth.Keys{auth.EdDSA(privateKeys()["EdDSA"].Public()), auth.ES384(privateKeys()["ES384"])}, nil), "no access key may sign yet")
	require.Equal(t, "ES256", headerOf(t, b.login(t).Access)["alg"])
}

// TestSetKeys_AnotherNameOrAnotherKeyIsNew to those who fetch the key set.
func TestSetKeys_AnotherNameOrAnotherKeyIsNew(t *testing.T) {
	t.Parallel()
	ed, es := auth.EdDSA(privateKeys()["EdDSA"]), auth.ES256(privateKeys()["ES256"])
	kid := func(b *bench) string { return headerOf(t, b.login(t).Access)["kid"] }

	// The same key under another kid.
	b := newBench(t, withAccessKeys(es))
	require.ErrorContains(t, b.SetKeys(auth.Keys{es.WithID("renamed")}, nil), "may sign yet")
	require.NoError(t, b.SetKeys(auth.Keys{es.WithID("renamed"), es}, nil))
	require.Equal(t, es.ID(), kid(b))
	b.clock.advance(5*time.Minute + 10*time.Second)
	require.Equal(t, "renamed", kid(b))

	// Another key under the kid of one that signs, also with a time that has
	// passed: what it was given is not when it was published.
	_, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	for _, other := range []auth.Key{auth.EdDSA(private), es} {
		b = newBench(t, withAccessKeys(ed.WithID("main"), es))
		b.clock.advance(time.Hour)
		require.NoError(t, b.SetKeys(auth.Keys{other.WithID("main"), auth.ES384(privateKeys()["ES384"]), es}, nil))
		require.Equal(t, es.ID(), kid(b))
		b.clock.advance(5*time.Minute + 10*time.Second)
		require.Equal(t, "main", kid(b))
	}

	// A time that has passed stays the time of a key that is there: what it took
	// over from is gone when it would have been.
	b = newBench(t, withAccessKeys(es))
	from := b.clock.Now().Add(5*time.Minute + 10*time.Second)
	require.NoError(t, b.SetKeys(auth.Keys{ed, es}, nil))
	b.clock.advance(10 * time.Minute)
	require.NoError(t, b.SetKeys(auth.Keys{ed.SignFrom(from), es}, nil))
	b.clock.advance(from.Add(15*time.Minute + 20*time.Second).Sub(b.clock.Now()))
	kids, _ := published(t, b)
	require.Equal(t, []string{ed.ID()}, kids)

	// A time that is set again for a key that is there counts; without one, the
	// time that it has stays.
	b = newBench(t, withAccessKeys(es))
	later := b.clock.Now().Add(time.Hour)
	require.NoError(t, b.SetKeys(auth.Keys{ed, es}, nil))
	require.NoError(t, b.SetKeys(auth.Keys{ed.SignFrom(later), es}, nil))
	b.clock.advance(30 * time.Minute)
	require.Equal(t, es.ID(), kid(b))
	require.NoError(t, b.SetKeys(auth.Keys{ed, es}, nil))
	require.Equal(t, es.ID(), kid(b))
	b.clock.advance(30 * time.Minute)
	require.Equal(t, ed.ID(), kid(b))
	require.NoError(t, b.SetKeys(auth.Keys{es.SignFrom(later.Add(-time.Second)), ed}, nil), "one that was gone, or not")
}
