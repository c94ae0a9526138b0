package auth_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

// newDirect returns an Authenticator on a MemoryStore itself, or on one that New
// creates if store is nil. Nothing calls its Run.
func newDirect(t *testing.T, store *auth.MemoryStore, change ...func(*auth.Config)) (*auth.Authenticator, *events) {
	t.Helper()
	return newNode(t, nil, append([]func(*auth.Config){func(c *auth.Config) {
		if store != nil {
			c.Store = store
		}
	}}, change...)...)
}

func newFeedVerifier(t *testing.T, feed auth.Feed, change ...func(*auth.VerifierConfig)) *auth.Verifier {
	t.Helper()
	c := auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: derivedAccessKeys(), Feed: feed}
	for _, f := range change {
		f(&c)
	}
	v, err := auth.NewVerifier(c)
	require.NoError(t, err)
	return v
}

func TestRestart_AccessTokensOfAnEarlierProcessAreRefused(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, newStore := range map[string]func() *auth.MemoryStore{
		"created by New": func() *auth.MemoryStore { return nil }, "passed to New": auth.NewMemoryStore,
	} {
		for _, cache := range []int{0, -1} {
			change := func(c *auth.Config) { c.TokenCacheSize = cache }
			before, _ := newDirect(t, newStore(), change)
			loggedOut, signedIn := startSession(t, before), startSession(t, before)
			verifiedClaims(t, before, loggedOut.Access)
			require.NoError(t, before.Logout(ctx, loggedOut.Access))

			after, _ := newDirect(t, newStore(), change)
			own := startSession(t, after)
			protected := after.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			for range 2 { // the second time from the cache, if there is one
				verifiedClaims(t, after, own.Access)
				for _, old := range []auth.Tokens{loggedOut, signedIn} {
					_, err := after.Verify(ctx, old.Access)
					require.ErrorIs(t, err, auth.ErrTokenExpired, name)
					require.NotErrorIs(t, err, auth.ErrSessionRevoked, name)
					r := httptest.NewRequest("GET", "/", nil)
					r.Header.Set("Authorization", "Bearer "+old.Access)
					w := httptest.NewRecorder()
					protected.ServeHTTP(w, r)
					require.Equal(t, 401, w.Code)
					require.JSONEq(t, `{"error":"invalid_token","error_description":"the token has expired","action":"refresh"}`, w.Body.String())

					_, err = after.Refresh(ctx, old.Refresh, auth.RefreshOptions{})
					require.ErrorIs(t, err, auth.ErrSessionRevoked)
					require.Equal(t, "login", auth.ResponseFor(err).Action)
				}
			}
			verifiedClaims(t, before, signedIn.Access) // its own store has the session
			_, err := before.Verify(ctx, own.Access)
			require.ErrorIs(t, err, auth.ErrTokenExpired)
		}
	}
}

// Two processes with their sessions in memory sign users out.
func TestRestart_TokensOfAnotherMemoryStoreAreReported(t *testing.T) {
	t.Parallel()
	clock := newClock()
	now := func(c *auth.Config) { c.Now = clock.Now }
	first, _ := newDirect(t, nil, now)
	second, es := newDirect(t, nil, now)
	tokens := startSession(t, first)
	protected := second.Require()(hello)
	for range 3 {
		send(t, protected, "GET", "/", reqBearer(tokens.Access)).requireRefused(t, 401, "invalid_token", "refresh")
	}
	events := es.take(auth.EventRefused)
	require.Len(t, events, 1)
	require.Equal(t, "invalid_token", events[0].Reason)
	require.Equal(t, tokens.SessionID, events[0].Session.ID)
	require.ErrorContains(t, events[0].Err, "several processes need a Config.Store that they share")
	clock.Advance(time.Minute)
	send(t, protected, "GET", "/", reqBearer(tokens.Access))
	require.EqualValues(t, 2, es.take(auth.EventRefused)[0].Suppressed)
	clock.Advance(time.Hour)
	send(t, protected, "GET", "/", reqBearer(tokens.Access))
	require.Empty(t, es.take(auth.EventRefused), "it has expired")
}

func TestRestart_OnlyThoseOnAMemoryStoreCheck(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	store := auth.NewMemoryStore()
	a, _ := newDirect(t, store)
	b, _ := newDirect(t, store)
	wrapped, _ := newNode(t, database{store})
	elsewhere, _ := newNode(t, newTestStore())
	runNodes(t, wrapped, elsewhere)
	tokens := startSession(t, a)
	_, payload := decodeToken(t, tokens.Access)
	require.Len(t, payload["mem_store"], 22)
	for i, v := range []*auth.Verifier{
		a.Verifier, b.Verifier, wrapped.Verifier, elsewhere.Verifier,
		newFeedVerifier(t, nil), newFeedVerifier(t, store),
	} {
		c, err := v.Verify(ctx, tokens.Access)
		require.NoError(t, err, i)
		var own struct {
			Store string `json:"mem_store"`
		}
		require.NoError(t, c.Decode(&own))
		require.Equal(t, payload["mem_store"], own.Store)
	}

	// A store that wraps a MemoryStore is another kind of store.
	tokens = startSession(t, wrapped)
	_, payload = decodeToken(t, tokens.Access)
	require.NotContains(t, payload, "mem_store")
	_, err := a.Verify(ctx, tokens.Access)
	require.ErrorIs(t, err, auth.ErrTokenExpired)
	fresh, err := a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	verifiedClaims(t, a, fresh.Access)
	_, payload = decodeToken(t, fresh.Refresh)
	require.NotContains(t, payload, "mem_store", "an older version would not accept a refresh token with it")
}

// The revocations of other stores cannot reach a Verifier on a MemoryStore.
func TestMemoryStore_VerifierRefusesTokensOfOtherStores(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	store := auth.NewMemoryStore()
	own, _ := newDirect(t, store)
	another, _ := newDirect(t, nil)
	wrapped, _ := newNode(t, database{store})
	elsewhere, _ := newNode(t, newTestStore())
	for _, cache := range []int{0, -1} {
		v := newFeedVerifier(t, store, func(c *auth.VerifierConfig) { c.TokenCacheSize = cache })
		protected := v.Require()(hello)
		accepted := startSession(t, own)
		for range 2 { // the second time from the cache, if there is one
			_, err := v.Verify(ctx, accepted.Access)
			require.NoError(t, err)
			for name, a := range map[string]*auth.Authenticator{"another MemoryStore": another, "a wrapped MemoryStore": wrapped, "another kind": elsewhere} {
				tokens := startSession(t, a)
				_, err := v.Verify(ctx, tokens.Access)
				require.ErrorIs(t, err, auth.ErrTokenExpired, name)
				require.NoError(t, a.Logout(ctx, tokens.Access))
				send(t, protected, "GET", "/", reqBearer(tokens.Access)).requireRefused(t, 401, "invalid_token", "refresh")
			}
		}
	}

	// An Authenticator that was created anew in the same process, without its store.
	v := newFeedVerifier(t, store)
	again, _ := newDirect(t, store)
	anew, _ := newDirect(t, auth.NewMemoryStore())
	_, err := v.Verify(ctx, startSession(t, again).Access)
	require.NoError(t, err)
	_, err = v.Verify(ctx, startSession(t, anew).Access)
	require.ErrorIs(t, err, auth.ErrTokenExpired)
}

func TestMemoryStore_VerifierReportsTokensOfOtherStores(t *testing.T) {
	t.Parallel()
	clock, es := newClock(), &events{}
	a, _ := newNode(t, newTestStore(), func(c *auth.Config) { c.Now = clock.Now })
	v := newFeedVerifier(t, auth.NewMemoryStore(), func(c *auth.VerifierConfig) { c.Now, c.OnEvent = clock.Now, es.add })
	tokens := startSession(t, a)
	for range 3 {
		send(t, v.Require()(hello), "GET", "/", reqBearer(tokens.Access)).requireRefused(t, 401, "invalid_token", "refresh")
	}
	events := es.take(auth.EventRefused)
	require.Len(t, events, 1)
	require.Equal(t, "invalid_token", events[0].Reason)
	require.Equal(t, auth.Session{Subject: "u1", ID: tokens.SessionID}, events[0].Session)
	require.ErrorContains(t, events[0].Err, "issued with a store other than this MemoryStore")
	require.ErrorContains(t, events[0].Err, "also the Feed of their Verifiers")
	clock.Advance(time.Minute)
	send(t, v.Require()(hello), "GET", "/", reqBearer(tokens.Access))
	require.EqualValues(t, 2, es.take(auth.EventRefused)[0].Suppressed)
}

func TestRestart_LogoutWithTokensOfAnEarlierProcessWritesNothing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	before, _ := newDirect(t, nil)
	old := startSession(t, before)
	store := auth.NewMemoryStore()
	after, es := newDirect(t, store, withAccessTTL(time.Minute)) // which needs no notice
	own := startSession(t, after)
	for _, tokens := range [][]string{{old.Access}, {old.Refresh}, {old.Access, old.Refresh}} {
		r := httptest.NewRequest("POST", "/logout", strings.NewReader("refresh_token="+tokens[len(tokens)-1]))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", "Bearer "+tokens[0])
		w := httptest.NewRecorder()
		after.LogoutHandler().ServeHTTP(w, r)
		require.Equal(t, 204, w.Code)
		require.Empty(t, readFeed(t, store))
		require.Zero(t, after.Health().Revocations)
	}
	require.Empty(t, es.take(auth.EventLogout))
	require.NoError(t, after.Logout(ctx, old.Access, own.Refresh, old.Refresh))
	require.Len(t, readFeed(t, store), 1)
	_, err := after.Verify(ctx, own.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}

// An access token of this process ends its session even if the record is gone,
// for example because a clock was wrong for a while.
func TestLogout_EndsASessionOfAMemoryStoreThatHasLostItsRecord(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	store, clock := auth.NewMemoryStore(), newClock()
	a, _ := newDirect(t, store, func(c *auth.Config) { c.Now = clock.Now })
	tokens := startSession(t, a)
	clock.Advance(365 * 24 * time.Hour)
	startSession(t, a)
	clock.Advance(-365 * 24 * time.Hour)
	_, err := store.Get(ctx, "u1", tokens.SessionID)
	require.ErrorIs(t, err, auth.ErrSessionNotFound)
	verifiedClaims(t, a, tokens.Access)
	require.NoError(t, a.Logout(ctx, tokens.Refresh, tokens.Access))
	_, err = a.Verify(ctx, tokens.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
}

func TestMemoryStore_RevocationsTakeEffectEverywhereAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		store := auth.NewMemoryStore()
		a, _ := newDirect(t, store)
		b, _ := newDirect(t, store)
		v := newFeedVerifier(t, store)
		wrapped, _ := newNode(t, database{store})
		all := []*auth.Verifier{a.Verifier, b.Verifier, v}
		for _, x := range all {
			<-x.Ready()
			require.Equal(t, auth.Health{Ready: true}, x.Health())
		}
		by := map[string]func(s auth.Tokens) error{
			"Revoke":       func(s auth.Tokens) error { return a.Revoke(ctx, "u1", s.SessionID) },
			"RevokeAll":    func(auth.Tokens) error { return a.RevokeAll(ctx, "u1") },
			"Logout":       func(s auth.Tokens) error { return a.Logout(ctx, s.Access) },
			"the other":    func(s auth.Tokens) error { return b.Logout(ctx, s.Refresh) },
			"the wrapping": func(s auth.Tokens) error { return wrapped.Revoke(ctx, "u1", s.SessionID) },
			"its own Revoke": func(s auth.Tokens) error {
				return store.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{s.SessionID}, Until: time.Now().Add(time.Hour)})
			},
		}
		for name, revoke := range by {
			tokens, others := startSession(t, a), startOtherSession(t, b)
			var streams []context.Context
			for _, x := range all {
				c, err := x.Verify(ctx, tokens.Access)
				require.NoError(t, err, name)
				stream, cancel := x.SessionContext(ctx, c)
				defer cancel()
				streams = append(streams, stream)
			}
			require.NoError(t, revoke(tokens), name)
			for i, x := range append(all, newFeedVerifier(t, store)) {
				_, err := x.Verify(ctx, tokens.Access)
				require.ErrorIs(t, err, auth.ErrSessionRevoked, "%s, %d", name, i)
				_, err = x.Verify(ctx, others.Access)
				require.NoError(t, err, "%s, %d", name, i)
				if i < len(streams) {
					require.ErrorIs(t, context.Cause(streams[i]), auth.ErrSessionRevoked, "%s, %d", name, i)
				}
			}
			later, _ := newDirect(t, store)
			_, err := later.Verify(ctx, tokens.Access)
			require.ErrorIs(t, err, auth.ErrSessionRevoked, name)
			_, err = later.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrSessionRevoked, name)
			time.Sleep(time.Minute)
		}

		tokens := startSession(t, b)
		require.NoError(t, a.ExpireAccess(ctx, "u1"))
		for _, x := range all {
			_, err := x.Verify(ctx, tokens.Access)
			require.ErrorIs(t, err, auth.ErrTokenExpired)
		}
		fresh, err := b.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		for _, x := range all {
			_, err := x.Verify(ctx, fresh.Access)
			require.NoError(t, err)
		}
	})
}

func TestMemoryStore_RunOnlyWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := auth.NewMemoryStore()
		a, es := newDirect(t, store, func(c *auth.Config) { c.StalePolicy, c.MaxStale = auth.StaleRefuse, time.Second })
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		returned := make(chan error)
		for _, v := range []*auth.Verifier{a.Verifier, a.Verifier, newFeedVerifier(t, store)} {
			go func() { returned <- v.Run(ctx) }()
		}
		tokens := startSession(t, a)
		time.Sleep(10 * time.Minute)
		verifiedClaims(t, a, tokens.Access)
		require.Zero(t, a.Health().FeedAge)
		for range 3 {
			require.ErrorIs(t, <-returned, context.DeadlineExceeded)
		}
		require.Empty(t, es.take(auth.EventStale))
	})
}

func TestMemoryStore_RevokesTokensOfALongerAccessTTL(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	store, clock := auth.NewMemoryStore(), newClock()
	now := func(c *auth.Config) { c.Now = clock.Now }
	short, _ := newDirect(t, store, now, withAccessTTL(time.Minute))
	long, _ := newDirect(t, store, now, withAccessTTL(time.Hour))
	tokens := startSession(t, long)
	require.Equal(t, time.Hour, tokens.AccessExpiresAt.Sub(clock.Now()))
	require.NoError(t, short.Revoke(ctx, "u1", tokens.SessionID))
	for range 59 {
		clock.Advance(time.Minute)
		require.NoError(t, short.Revoke(ctx, "u2", "none")) // which removes what has ended
		for _, a := range []*auth.Authenticator{short, long} {
			_, err := a.Verify(ctx, tokens.Access)
			require.ErrorIs(t, err, auth.ErrSessionRevoked)
		}
	}
	// Without Run, the notice is renewed when a token is issued.
	clock.Advance(time.Hour)
	require.Equal(t, time.Hour, startSession(t, long).AccessExpiresAt.Sub(clock.Now()))
}

// A refresh reads the user, another Authenticator expires the access tokens, and
// only then the first notice of the longer lifetime is stored.
func TestMemoryStore_AFirstNoticeExtendsEarlierRevocations(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, pause := range []time.Duration{0, 3 * time.Hour} { // after it, an earlier notice has ended
		store, clock, lookup := auth.NewMemoryStore(), newClock(), newUsers()
		change := func(c *auth.Config) { c.Now, c.Users = clock.Now, lookup }
		short, _ := newDirect(t, store, change, withAccessTTL(time.Minute))
		long, _ := newDirect(t, store, change, withAccessTTL(time.Hour))
		if pause > 0 {
			startSession(t, long)
			clock.Advance(pause)
		}
		tokens := startSession(t, short)
		clock.Advance(time.Second)
		lookup.onFind = func() {
			lookup.onFind = nil
			require.NoError(t, short.ExpireAccess(ctx, "u1"))
		}
		fresh, err := long.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
		require.Equal(t, time.Hour, fresh.AccessExpiresAt.Sub(clock.Now()))
		for range 59 {
			clock.Advance(time.Minute)
			require.NoError(t, short.Revoke(ctx, "u2", "none")) // which removes what has ended
			_, err = long.Verify(ctx, fresh.Access)
			require.ErrorIs(t, err, auth.ErrTokenExpired)
		}
		clock.Advance(2 * time.Hour)
		require.NoError(t, short.Revoke(ctx, "u2", "none"))
		require.LessOrEqual(t, short.Health().Revocations, 2)
	}
}

func TestAccessTTL_ACanceledRequestDoesNotShortenTheTokensOfOthers(t *testing.T) {
	t.Parallel()
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	for range 20 {
		clock := newClock()
		a, _ := newDirect(t, auth.NewMemoryStore(), func(c *auth.Config) { c.Now = clock.Now })
		_, err := a.StartSession(canceled, "u1", auth.SessionOptions{})
		require.Error(t, err)
		require.Equal(t, 15*time.Minute, startSession(t, a).AccessExpiresAt.Sub(clock.Now()))
	}
}

func TestMemoryStore_ARevocationMayRevokeFromItsCallbacks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		store := auth.NewMemoryStore()
		b, _ := newDirect(t, store)
		second, third := startSession(t, b), startSession(t, b)
		a, _ := newDirect(t, store, func(c *auth.Config) {
			c.OnEvent = func(ctx context.Context, e auth.Event) {
				if e.Type == auth.EventRevoked && e.Session.ID != second.SessionID {
					_ = b.Revoke(ctx, "u1", second.SessionID)
				}
			}
		})
		first := startSession(t, a)
		stream, cancel := b.SessionContext(ctx, verifiedClaims(t, b, first.Access))
		defer cancel()
		context.AfterFunc(stream, func() {
			_ = store.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{third.SessionID}, Until: time.Now().Add(time.Hour)})
		})
		require.NoError(t, a.Revoke(ctx, "u1", first.SessionID))
		synctest.Wait()
		for _, tokens := range []auth.Tokens{first, second, third} {
			_, err := a.Verify(ctx, tokens.Access)
			require.ErrorIs(t, err, auth.ErrSessionRevoked)
		}
	})
}

// The store knows only the time of the last login or refresh.
func TestMemoryStore_KeepsRevocationsAfterItsClockWasSetBack(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, revoke := range map[string]func(a *auth.Authenticator, store *auth.MemoryStore, now time.Time, id string) error{
		"by an Authenticator": func(a *auth.Authenticator, _ *auth.MemoryStore, _ time.Time, id string) error {
			return a.Revoke(ctx, "u1", id)
		},
		"by its own Revoke": func(_ *auth.Authenticator, store *auth.MemoryStore, now time.Time, id string) error {
			return store.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{id}, Until: now.Add(time.Hour)})
		},
	} {
		store, clock := auth.NewMemoryStore(), newClock()
		a, _ := newDirect(t, store, func(c *auth.Config) { c.Now = clock.Now })
		tokens := startSession(t, a)
		clock.Advance(24 * time.Hour)
		startSession(t, a)
		clock.Advance(-24 * time.Hour)
		require.NoError(t, revoke(a, store, clock.Now(), tokens.SessionID))
		_, err := a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked, name)
		clock.Advance(time.Minute)
		require.NoError(t, a.Revoke(ctx, "u2", "one"))
		_, err = a.Verify(ctx, tokens.Access)
		require.ErrorIs(t, err, auth.ErrSessionRevoked, name)
	}
}

// A store that only others use for revocations forgets those that have ended.
func TestMemoryStore_DropsRevocationsOfOthersThatHaveEnded(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	store, clock := auth.NewMemoryStore(), newClock()
	v := newFeedVerifier(t, store)
	wrapped, _ := newNode(t, database{store}, func(c *auth.Config) { c.Now = clock.Now })
	for range 100 {
		s := startSession(t, wrapped)
		require.NoError(t, store.Revoke(ctx, auth.Revocation{Subject: "u1", Sessions: []string{s.SessionID}, Until: clock.Now().Add(16 * time.Minute)}))
		clock.Advance(time.Minute)
	}
	require.LessOrEqual(t, v.Health().Revocations, 20)
}

// The race detector reports a New that reads what Revoke writes.
func TestNew_OnAMemoryStoreInUse(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 100 {
			require.NoError(t, fx.Revoke(context.Background(), "u1", "session"))
		}
	})
	for range 10 {
		_, err := auth.New(auth.Config{
			Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: fx.users, Store: fx.store.Store, TokenCacheSize: -1,
		})
		require.NoError(t, err)
	}
	wg.Wait()
}
