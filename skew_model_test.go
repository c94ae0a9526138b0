package auth_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// skewedSession is what a refresh must do if clocks differ by more than Leeway:
// a session whose rotation is more than Leeway ahead of the node's clock has no
// cooldown, and rotating it sets its time back. Neither has a token whose iat is
// that much ahead.
type skewedSession struct {
	id      string
	gen     int64
	rotated time.Time
	tag     []byte
	dead    bool
}

// refresh returns the generation of the response, and whether it is a late
// repeat. iat is that of the presented token.
func (s *skewedSession) refresh(g int64, iat time.Time, k mKey, now time.Time) (want int64, late bool, err error) {
	age := now.Sub(s.rotated)
	young := now.Before(iat.Add(3*mWindow)) && !iat.After(ceilSecond(now.Add(mLeeway)))
	switch {
	case s.dead:
		return 0, false, auth.ErrSessionRevoked
	case g == s.gen && (g == 1 || age >= 3*mWindow && !young || age < -mLeeway):
		if tag := k.tag(g-1, s.id); tag != nil && bytes.Equal(tag, s.tag) {
			s.tag = nil
		} else {
			s.tag = k.tag(g, s.id)
		}
		s.gen, s.rotated = s.gen+1, now
		return s.gen, false, nil
	case g == s.gen, g == s.gen-1 && age <= mWindow:
		return s.gen, false, nil
	case g == s.gen-1 && k.key != "" && !k.digest && bytes.Equal(k.tag(g, s.id), s.tag):
		return s.gen, true, nil
	}
	s.dead = true
	return 0, false, auth.ErrTokenReused
}

func ceilSecond(t time.Time) time.Time { return t.Add(time.Second - 1).Truncate(time.Second) }

// skews are the deviations of the nodes' clocks. The first two are correct.
var skews = []time.Duration{0, 0, 30 * time.Minute, -30 * time.Minute, mLeeway, -mLeeway, mLeeway + time.Millisecond, 25 * time.Hour, -25 * time.Hour}

type skewModel struct {
	t      *testing.T
	r      *rand.Rand
	clock  *authtest.Clock
	nodes  []*auth.Authenticator
	events *events
	s      skewedSession
	first  map[int64]string    // the token of each generation, except late retries
	tokens map[int64]string    // the one that was received last
	iat    map[int64]time.Time // and its iat
	log    []string
}

func newSkewModel(t *testing.T, seed uint64) *skewModel {
	w := &skewModel{t: t, r: rand.New(rand.NewPCG(seed, 33)), clock: newClock(), first: map[int64]string{}, tokens: map[int64]string{}, iat: map[int64]time.Time{}}
	w.note("seed %d", seed)
	store, us := database{auth.NewMemoryStore()}, newUsers()
	w.events = &events{}
	for _, skew := range skews {
		a, err := auth.New(auth.Config{
			Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: us, Hasher: fastHasher, Store: store, OnEvent: w.events.add,
			AccessTTL: mAcc, RetryWindow: mWindow, Leeway: mLeeway, TokenCacheSize: -1, Now: func() time.Time { return w.clock.Now().Add(skew) },
		})
		require.NoError(t, err)
		w.nodes = append(w.nodes, a)
	}
	n := w.r.IntN(len(skews))
	login, err := w.nodes[n].StartSession(context.Background(), "u1", auth.SessionOptions{})
	require.NoError(t, err)
	w.note("login at the node that is %s ahead", skews[n])
	w.s, w.tokens[1] = skewedSession{id: login.SessionID, gen: 1, rotated: w.now(n)}, login.Refresh
	return w
}

func (w *skewModel) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// now returns the time of a node's clock, in milliseconds.
func (w *skewModel) now(n int) time.Time {
	return w.clock.Now().Add(skews[n]).Truncate(time.Millisecond)
}

func (w *skewModel) ok(cond bool, format string, args ...any) {
	if !cond {
		w.t.Fatalf("%s\nafter:\n%s", fmt.Sprintf(format, args...), strings.Join(w.log, "\n"))
	}
}

// refresh presents a generation to a node, and compares the result with the
// model.
func (w *skewModel) refresh(who string, n int, g int64) (int64, error) {
	return w.refreshWith(who, n, g, mKey{})
}

// refreshWith is refresh with a retry key.
func (w *skewModel) refreshWith(who string, n int, g int64, k mKey) (int64, error) {
	want, late, wantErr := w.s.refresh(g, w.iat[g], k, w.now(n))
	w.note("%s %s presents %d, key %v, to the node that is %s ahead: %d %v %v", w.clock.Now().Format("15:04:05.000"), who, g, k, skews[n], want, late, wantErr)
	t, err := w.nodes[n].Refresh(context.Background(), w.tokens[g], auth.RefreshOptions{RetryKey: k.header()})
	w.ok((err == nil) == (wantErr == nil), "want %v, got %v", wantErr, err)
	if err != nil {
		require.ErrorIs(w.t, err, wantErr)
		return 0, err
	}
	switch {
	case want == g:
		w.ok(t.Refresh == w.tokens[g], "not the token that was presented")
	case late:
		w.tokens[want], w.iat[want] = t.Refresh, ceilSecond(w.now(n))
	default:
		if w.first[want] == "" {
			w.first[want] = t.Refresh
		}
		w.ok(t.Refresh == w.first[want], "not the token of generation %d", want)
		w.tokens[want], w.iat[want] = t.Refresh, w.s.rotated
	}
	_, claims := decodeToken(w.t, t.Refresh)
	w.ok(claims["gen"] == float64(want), "not generation %d", want)
	_, payload := decodeToken(w.t, t.Access)
	w.ok(payload["iat"] == seconds(w.now(n)), "iat is not the clock's time")
	return want, nil
}

func (w *skewModel) wait() {
	w.clock.Advance([]time.Duration{0, time.Second, mWindow, mWindow + time.Second, 3 * mWindow, time.Minute, mAcc, time.Hour}[w.r.IntN(8)])
}

// A client that presents its latest token is never signed out, however wrong
// the clocks of the nodes are. Neither is a client whose response was lost and
// that repeats the request at the same node within the window.
func TestModel_WrongClocksKeepTheLatestTokenValid(t *testing.T) {
	t.Parallel()
	base := seed(t)
	for i := range histories(300, 5000) {
		w := newSkewModel(t, base+uint64(i))
		held := int64(1)
		for range 40 {
			w.wait()
			n := w.r.IntN(len(skews))
			got, err := w.refresh("the client", n, held)
			w.ok(err == nil, "the client is signed out: %v", err)
			if w.r.IntN(3) == 0 { // the response was lost
				w.clock.Advance(time.Duration(w.r.Int64N(int64(mWindow))))
				again, err := w.refresh("the client, again,", n, held)
				w.ok(err == nil && again >= got, "a retry: %d, %v", again, err) // the cooldown may be over
				got = again
			}
			held = got
		}
	}
}

// A client with retry keys whose responses are lost is not signed out either,
// however late it repeats a request, and at whichever node. Its requests do not
// overlap.
func TestModel_WrongClocksDoNotSignOutAClientWithRetryKeys(t *testing.T) {
	t.Parallel()
	base := seed(t)
	late := 0
	for i := range histories(300, 5000) {
		w := newSkewModel(t, base+uint64(i))
		held, key, sent := int64(1), byte(0), false
		for range 40 {
			w.wait()
			got, err := w.refreshWith("the client", w.r.IntN(len(skews)), held, mKey{testKey(key), !sent})
			sent = true
			w.ok(err == nil, "the client is signed out: %v", err)
			if got > held && w.r.IntN(2) == 0 { // otherwise the response is lost
				held, key, sent = got, key+1, false
			}
		}
		for _, e := range w.events.take(auth.EventLateRetry) {
			late++
			w.ok(e.Generation == e.Session.Generation-1, "a late retry of another generation")
		}
	}
	t.Logf("%d late retries", late)
	require.Positive(t, late)
}

// For any token at any node, the result is that of the model.
func TestModel_WrongClocksAndCopiesOfTokens(t *testing.T) {
	t.Parallel()
	base := seed(t)
	for i := range histories(500, 10_000) {
		w := newSkewModel(t, base+uint64(i))
		for range 30 {
			w.wait()
			g := w.s.gen
			if w.r.IntN(4) == 0 {
				g = max(1, g-w.r.Int64N(3))
			}
			k := mKey{}
			if w.r.IntN(3) > 0 {
				k = mKey{testKey([]byte{byte(g), byte(g), 1}[w.r.IntN(3)]), w.r.IntN(3) == 0}
			}
			_, _ = w.refreshWith("somebody", w.r.IntN(len(skews)), g, k)
		}
	}
}

// A node whose clock is ahead rotates a session. Correct nodes accept the
// predecessor until their clocks have caught up, or until the holder of the
// current token refreshes at one of them. Then the window applies again.
func TestModel_TheNextRefreshLimitsTheSpentTokenAgain(t *testing.T) {
	t.Parallel()
	base := seed(t)
	for i := range histories(300, 5000) {
		w := newSkewModel(t, base+uint64(i))
		held := int64(1)
		for range 1 + w.r.IntN(6) { // any earlier history
			w.wait()
			got, err := w.refresh("the holder", w.r.IntN(len(skews)), held)
			w.ok(err == nil, "%v", err)
			held = got
		}
		correct := w.r.IntN(2)
		spent := held
		w.clock.Advance(3*mWindow + 2*mLeeway) // the cooldown is over at all nodes that are nearly correct
		held, err := w.refresh("the holder", correct, held)
		w.ok(err == nil && held == spent+1, "it must rotate: %d, %v", held, err)
		w.clock.Advance(mWindow)
		_, err = w.refresh("the holder, again,", correct, spent)
		w.ok(err == nil, "within the window: %v", err)
		w.clock.Advance(time.Millisecond)
		stolen := spent
		if w.r.IntN(2) == 0 {
			stolen = max(1, spent-1)
		}
		_, err = w.refresh("a thief", 1-correct, stolen)
		w.ok(err != nil, "after the window the spent token is accepted")
		require.ErrorIs(t, err, auth.ErrTokenReused)
	}
}
