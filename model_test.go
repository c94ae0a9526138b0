package auth_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// iterations returns normal, a tenth of it with -short, or long if AUTH_LONG is
// set.
func iterations(normal, long int) int {
	switch {
	case os.Getenv("AUTH_LONG") == "1":
		return long
	case testing.Short():
		return normal / 10
	}
	return normal
}

// histories is iterations for a model test, whose histories have one goroutine
// each. The race detector would only make the long ones ten times as slow.
func histories(normal, long int) int {
	if raceDetector {
		return iterations(normal, normal)
	}
	return iterations(normal, long)
}

func seed(t testing.TB) uint64 {
	s := rand.Uint64()
	if v := os.Getenv("AUTH_SEED"); v != "" {
		var err error
		s, err = strconv.ParseUint(v, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("AUTH_SEED=%d", s)
	return s
}

// mSession is a session of the model. Its method refresh is what a refresh must
// do.
type mSession struct {
	user, id                  string
	gen                       int64
	created, rotated, expires time.Time
	dead                      bool
	tag                       []byte              // the stored retry tag
	tokens                    map[int64]string    // the latest refresh token of each generation
	iat                       map[int64]time.Time // and its times
	exp                       map[int64]time.Time
}

// mKey is the retry key of a request, if any.
type mKey struct {
	key    string
	digest bool // the request shows only the digest
}

func (k mKey) header() string {
	if k.digest {
		return digestOf(k.key)
	}
	return k.key
}

func (k mKey) tag(generation int64, id string) []byte {
	if k.key == "" {
		return nil
	}
	return tagOf(k.key, generation, id)
}

// mOutcome is what a refresh does that succeeds.
type mOutcome int

const (
	mSame    mOutcome = iota // it returns the latest token that was issued, unless its response was lost
	mRotates                 // it returns a new token
	mLate                    // it is a late retry
)

type mAccess struct {
	token    string
	s        *mSession
	iat, exp time.Time // when it counts as issued, and its expiry
}

type mFault struct {
	method string // a method of the store, or "users", or "users2" for the second lookup
	after  bool
}

const (
	mIdle   = 40 * time.Minute
	mAbs    = 2 * time.Hour
	mAcc    = 5 * time.Minute
	mWindow = 10 * time.Second
	mLeeway = 2 * time.Second
)

func (s *mSession) refresh(g int64, k mKey, now time.Time, disabled bool, fault mFault) (mOutcome, error) {
	switch {
	case !now.Before(s.exp[g]):
		return 0, auth.ErrTokenExpired
	case s.dead:
		return 0, auth.ErrSessionRevoked
	case fault.method == "users":
		return 0, auth.ErrUnavailable
	case disabled:
		s.dead = true
		if fault.method == "Revoke" {
			return 0, auth.ErrUnavailable
		}
		return 0, auth.ErrSessionRevoked
	case fault.method == "Rotate" && !fault.after:
		return 0, auth.ErrUnavailable
	}
	// The response to a late retry has an iat, and so a cooldown, of its own.
	ownCooldown := s.iat[g].Add(3 * mWindow)
	rotates := g == s.gen && (g == 1 || now.Sub(s.rotated) >= 3*mWindow && (!now.Before(ownCooldown) || !ownCooldown.Before(s.exp[g])))
	if rotates {
		if tag := k.tag(g-1, s.id); tag != nil && bytes.Equal(tag, s.tag) {
			s.tag = nil // the key of the rotation before
		} else {
			s.tag = k.tag(g, s.id)
		}
		s.gen, s.rotated = s.gen+1, now
		s.expires = earliest(s.rotated.Add(mIdle), s.created.Truncate(time.Second).Add(mAbs))
	}
	switch {
	case fault.method == "Rotate":
		return 0, auth.ErrUnavailable
	case rotates:
		return mRotates, nil
	case g == s.gen, g == s.gen-1 && now.Sub(s.rotated) <= mWindow:
		return mSame, nil
	case g == s.gen-1 && k.key != "" && !k.digest && bytes.Equal(k.tag(g, s.id), s.tag):
		if !now.Before(s.expires.Truncate(time.Second)) {
			return 0, auth.ErrTokenExpired
		}
		return mLate, nil
	}
	s.dead = true
	if fault.method == "Revoke" {
		return 0, auth.ErrUnavailable
	}
	return 0, auth.ErrTokenReused
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

type model struct {
	t         *testing.T
	r         *rand.Rand
	b         *fixture
	raw       *auth.MemoryStore
	max       int
	sessions  []*mSession
	access    []mAccess
	notBefore map[string]time.Time
	log       []string

	lateRetries int
}

func (w *model) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *model) ok(cond bool, format string, args ...any) {
	if !cond {
		w.t.Fatalf("%s\nafter:\n%s", fmt.Sprintf(format, args...), strings.Join(w.log, "\n"))
	}
}

func (w *model) sameError(want, got error) {
	w.ok((want == nil) == (got == nil) && (want == nil || errors.Is(got, want)), "want error %v, got %v", want, got)
}

func (w *model) pick() *mSession {
	if len(w.sessions) == 0 {
		return nil
	}
	// Mostly pick the latest sessions, because they are live.
	return w.sessions[max(0, len(w.sessions)-1-w.r.IntN(4))]
}

// holder records the tokens of a result.
func (w *model) holder(s *mSession, t auth.Tokens) {
	c, err := w.b.Verify(context.Background(), t.Access)
	w.ok(err == nil, "a fresh access token is refused: %v", err)
	w.ok(c.Subject == s.user && c.SessionID == s.id, "claims are of another session")
	now := w.b.clock.Now()
	w.ok(!c.ExpiresAt.After(s.expires) && !c.SessionExpiresAt.After(s.expires), "an access token outlives its session")
	w.ok(!c.ExpiresAt.After(now.Add(mAcc)), "an access token lives too long")
	w.ok(!t.RefreshExpiresAt.After(s.expires), "a refresh token outlives its session")
	w.ok(c.AuthTime.Equal(s.created.Truncate(time.Second)), "auth_time is not the login")
	w.ok(c.IssuedAt.Equal(now.Truncate(time.Second)), "iat is not the clock's time")
	counts := c.IssuedAt
	for _, raised := range []time.Time{w.notBefore[s.user], s.created} {
		if raised.After(counts) {
			counts = raised.Truncate(time.Second)
		}
	}
	w.access = append(w.access, mAccess{t.Access, s, counts, c.ExpiresAt})
}

func (w *model) live(user string) []*mSession {
	var list []*mSession
	for _, s := range w.sessions {
		if s.user == user && !s.dead && w.b.clock.Now().Before(s.expires) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b *mSession) int {
		if c := b.rotated.Compare(a.rotated); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	})
	return list
}

func (w *model) step() {
	ctx := context.Background()
	now := w.b.clock.Now()
	user := []string{"u1", "u2"}[w.r.IntN(2)]
	w.b.users.mu.Lock()
	disabled := w.b.users.byID[user].Disabled
	w.b.users.mu.Unlock()

	var fault mFault
	if w.r.IntN(5) == 0 {
		fault = mFault{[]string{"Create", "Rotate", "Revoke", "List", "users", "users2"}[w.r.IntN(6)], w.r.IntN(2) == 0}
		switch fault.method {
		case "users":
			w.b.users.failIn(1)
		case "users2":
			w.b.users.failIn(2)
		default:
			if fault.after {
				w.b.store.failAfter(fault.method, errStore)
			} else {
				w.b.store.failBefore(fault.method, errStore)
			}
		}
		defer func() {
			w.b.users.failIn(0)
			w.b.store.failBefore(fault.method, nil)
			w.b.store.failAfter(fault.method, nil)
		}()
		w.note("  fault %+v", fault)
	}

	switch op := w.r.IntN(20); {
	case op < 3: // login
		w.note("%s start %s", now.Format("15:04:05.000"), user)
		created := now
		if w.notBefore[user].After(now) {
			created = w.notBefore[user]
		}
		t, err := w.b.StartSession(ctx, user, auth.SessionOptions{})
		s := &mSession{user: user, id: t.SessionID, gen: 1, created: created, rotated: now, tokens: map[int64]string{}, iat: map[int64]time.Time{}, exp: map[int64]time.Time{}}
		s.expires = earliest(now.Add(mIdle), created.Truncate(time.Second).Add(mAbs))
		switch {
		case fault.method == "users":
			w.sameError(auth.ErrUnavailable, err)
		case disabled:
			w.sameError(auth.ErrInvalidCredentials, err)
		case fault.method == "Create":
			w.sameError(auth.ErrUnavailable, err)
			w.adopt(s)
		case fault.method == "users2", fault.method == "List" && w.max > 0:
			w.sameError(auth.ErrUnavailable, err)
		default:
			if fault.method == "Revoke" && err != nil {
				// A session had to be evicted, and that failed.
				w.sameError(auth.ErrUnavailable, err)
				for _, x := range w.live(user) {
					stream, cancel := w.b.SessionContext(ctx, &auth.Claims{Subject: user, SessionID: x.id, AuthTime: x.created, IssuedAt: now.Add(time.Hour)})
					x.dead = stream.Err() != nil
					cancel()
				}
				w.ok(len(w.live(user)) >= w.max-1, "too many sessions were evicted")
				s.dead = true
				w.adopt(s)
				return
			}
			w.sessions = append(w.sessions, s)
			var gone []*mSession
			if others := slices.DeleteFunc(w.live(user), func(x *mSession) bool { return x == s }); w.max > 0 && len(others) >= w.max {
				gone = others[w.max-1:]
			}
			for _, x := range gone {
				x.dead = true
			}
			w.sameError(nil, err)
			s.tokens[1], s.exp[1] = t.Refresh, t.RefreshExpiresAt
			w.holder(s, t)
		}
	case op < 12: // a refresh with a token of any generation
		s := w.pick()
		if s == nil || len(s.tokens) == 0 {
			return
		}
		g := s.gen
		if w.r.IntN(3) == 0 {
			g = 1 + w.r.Int64N(s.gen)
		} else if w.r.IntN(3) == 0 {
			g = max(1, s.gen-1)
		}
		if s.tokens[g] == "" { // its result was lost
			return
		}
		w.b.users.mu.Lock()
		disabled = w.b.users.byID[s.user].Disabled
		w.b.users.mu.Unlock()
		before, wasDead := s.gen, s.dead
		var k mKey
		if w.r.IntN(3) > 0 { // mostly the key that an honest client would use
			k = mKey{testKey([]byte{byte(g), byte(g), byte(g), 1, 2}[w.r.IntN(5)]), w.r.IntN(3) == 0}
		}
		want, wantErr := s.refresh(g, k, now, disabled, fault)
		w.note("%s refresh %s gen %d of %d, key %v: %v %v", now.Format("15:04:05.000"), s.id[:4], g, before, k, want, wantErr)
		writes := w.b.store.count("Rotate")
		t, err := w.b.Refresh(ctx, s.tokens[g], auth.RefreshOptions{RetryKey: k.header()})
		if wasDead && fault.method != "" && errors.Is(err, auth.ErrUnavailable) {
			err = wantErr // the session has ended, but the call to the store or the lookup failed
		}
		w.sameError(wantErr, err)
		w.ok(w.b.store.count("Rotate")-writes <= 1, "more than one write")
		if s.dead && !errors.Is(wantErr, auth.ErrTokenExpired) {
			stored, err := w.raw.Get(ctx, s.user, s.id)
			w.ok(fault.method == "Revoke" || errors.Is(err, auth.ErrSessionNotFound), "an ended session is in the store: %v", stored.Generation)
		}
		if err != nil {
			return
		}
		w.ok(t.Rotated == (g < s.gen), "rotated is %v", t.Rotated)
		stored, err := w.raw.Get(ctx, s.user, s.id)
		w.ok(err == nil && bytes.Equal(stored.RetryTag, s.tag), "another retry tag is stored: %v", err)
		if want == mSame && s.tokens[s.gen] != "" {
			w.ok(t.Refresh == s.tokens[s.gen], "not the same token again")
		} else {
			s.tokens[s.gen], s.iat[s.gen], s.exp[s.gen] = t.Refresh, s.rotated, t.RefreshExpiresAt
		}
		if want == mLate {
			s.iat[s.gen] = now.Add(time.Second - 1).Truncate(time.Second)
			_, claims := decodeToken(w.t, t.Refresh)
			w.ok(claims["gen"] == float64(s.gen) && claims["iat"] == seconds(s.iat[s.gen]), "not a token of now")
			w.lateRetries++
		}
		w.holder(s, t)
	case op == 12: // a logout with a token of either kind and any age
		s := w.pick()
		if s == nil || len(s.tokens) == 0 {
			return
		}
		token, exp := s.tokens[1], s.exp[1]
		for _, a := range w.access {
			if a.s == s && w.r.IntN(2) == 0 {
				token, exp = a.token, a.exp
			}
		}
		_, err := w.raw.Get(ctx, s.user, s.id)
		nothing := !now.Before(exp) && err != nil // there is no session to end
		w.note("%s logout %s", now.Format("15:04:05.000"), s.id[:4])
		err = w.b.Logout(ctx, token, "rubbish")
		if fault.method == "Revoke" && !s.dead && !nothing {
			w.sameError(auth.ErrUnavailable, err)
		} else if fault.method != "Revoke" {
			w.sameError(nil, err)
		}
		s.dead = true
	case op == 13:
		s := w.pick()
		if s == nil {
			return
		}
		w.note("%s revoke %s", now.Format("15:04:05.000"), s.id[:4])
		w.sameError(w.unless(fault), w.b.Revoke(ctx, s.user, s.id, "no such session"))
		s.dead = true
	case op == 14 && w.r.IntN(2) == 0:
		var except []string
		if s := w.pick(); s != nil && w.r.IntN(2) == 0 {
			except = append(except, s.id)
		}
		w.note("%s revoke all of %s except %v", now.Format("15:04:05.000"), user, except)
		want := w.unless(fault)
		if fault.method == "List" {
			want = auth.ErrUnavailable
		}
		w.sameError(want, w.b.RevokeAll(ctx, user, except...))
		w.raiseNotBefore(user, now)
		for _, s := range w.sessions {
			if s.user == user && s.created.Before(w.notBefore[user]) && !slices.Contains(except, s.id) {
				s.dead = true
			}
		}
	case op == 15 && w.r.IntN(2) == 0:
		for range 1 + w.r.IntN(3) {
			w.raiseNotBefore(user, now)
			w.note("%s expire access of %s, before %s", now.Format("15:04:05.000"), user, w.notBefore[user].Format("15:04:05"))
			w.sameError(w.unless(fault), w.b.ExpireAccess(ctx, user))
		}
		for i, a := range w.access {
			if a.s.user == user && a.iat.Before(w.notBefore[user]) {
				w.access[i].iat = time.Time{} // expired
			}
		}
	case op == 16 && w.r.IntN(4) == 0:
		w.note("disable %s: %v", user, !disabled)
		w.b.users.change(user, func(u *auth.User) { u.Disabled = !u.Disabled })
	default:
		d := []time.Duration{
			time.Second, 3 * time.Second, mWindow - time.Millisecond, mWindow, mWindow + time.Millisecond, 3 * mWindow, 31 * time.Second,
			mAcc, mIdle - time.Second,
		}[w.r.IntN(9)]
		d += time.Duration(w.r.IntN(3)) * time.Millisecond
		w.note("clock + %s", d)
		w.b.clock.Advance(d)
	}
}

func (w *model) unless(f mFault) error {
	if f.method == "Revoke" {
		return auth.ErrUnavailable
	}
	return nil
}

func notBeforeAt(now time.Time) time.Time {
	return now.Add(mLeeway).Truncate(time.Second).Add(time.Second)
}

// raiseNotBefore sets the not-before instant of a user to a later second, even if the
// clock stands still.
func (w *model) raiseNotBefore(user string, now time.Time) {
	at := notBeforeAt(now)
	if next := w.notBefore[user].Add(time.Second); next.After(at) {
		at = next
	}
	w.notBefore[user] = at
}

// adopt adds a session that is in the store although its login failed, so that
// no client has its tokens.
func (w *model) adopt(s *mSession) {
	list, err := w.raw.List(context.Background(), s.user)
	require.NoError(w.t, err)
	for _, x := range list {
		if !slices.ContainsFunc(w.sessions, func(k *mSession) bool { return k.id == x.ID }) {
			s.id = x.ID
			w.sessions = append(w.sessions, s)
		}
	}
}

// verifyAll verifies every access token that was ever issued.
func (w *model) verifyAll() {
	now := w.b.clock.Now()
	for _, a := range w.access {
		var want error
		switch {
		case !now.Before(a.exp):
			want = auth.ErrTokenExpired
		case a.s.dead:
			want = auth.ErrSessionRevoked
		case a.iat.IsZero():
			want = auth.ErrTokenExpired
		}
		_, err := w.b.Verify(context.Background(), a.token)
		w.sameError(want, err)
	}
	// The store contains exactly the live sessions of the model.
	for _, user := range []string{"u1", "u2"} {
		list, err := w.b.Sessions(context.Background(), user)
		w.ok(err == nil, "listing: %v", err)
		for _, s := range w.live(user) {
			w.ok(slices.ContainsFunc(list, func(x auth.Session) bool {
				return x.ID == s.id && x.Generation == s.gen && x.RotatedAt.Equal(s.rotated)
			}), "session %s is gone or another", s.id)
		}
	}
}

func TestModel_RandomHistories(t *testing.T) {
	t.Parallel()
	base := seed(t)
	const workers = 4
	for n := range workers {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			late := 0
			for i := range histories(1_000, 10_000) / workers {
				s := base + uint64(i*workers+n)
				synctest.Test(t, func(t *testing.T) { // ExpireAccess may wait
					r := rand.New(rand.NewPCG(s, 1))
					w := &model{t: t, r: r, raw: auth.NewMemoryStore(), notBefore: map[string]time.Time{}}
					w.max = []int{0, 3}[r.IntN(2)]
					loud := r.IntN(4) == 0
					w.note("seed %d, max %d", s, w.max)
					w.b = newFixture(t, func(c *auth.Config) {
						c.Store = w.raw
						c.AccessTTL, c.IdleTTL, c.SessionTTL, c.RetryWindow, c.Leeway = mAcc, mIdle, mAbs, mWindow, mLeeway
						c.MaxSessions = w.max
						if w.max == 0 {
							c.MaxSessions = -1
						}
						if loud {
							c.OnEvent = func(context.Context, auth.Event) { panic("an event hook of the application") }
						}
					})
					for range 30 {
						w.step()
					}
					w.verifyAll()
					w.b.stop()
					late += w.lateRetries
				})
			}
			t.Logf("%d late retries", late)
		})
	}
}
