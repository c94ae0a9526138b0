package auth_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

// testKey returns a retry key that depends only on n.
func testKey(n byte) string {
	return base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{n}, 32))
}

// digestOf returns what the first request with a retry key has in its header.
func digestOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "sha256=" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// tagOf computes a tag as docs/design.md defines it.
func tagOf(key string, generation int64, sid string) []byte {
	inner := sha256.Sum256([]byte(key))
	var g [8]byte
	binary.BigEndian.PutUint64(g[:], uint64(generation))
	sum := sha256.Sum256([]byte("refresh-key\x00" + string(inner[:]) + string(g[:]) + sid))
	return sum[:16]
}

// refreshWith refreshes with a retry key, which may be "".
func (fx *fixture) refreshWith(t testing.TB, token, key string) auth.Tokens {
	t.Helper()
	tokens, err := fx.Refresh(context.Background(), token, auth.RefreshOptions{Device: laptop, RetryKey: key})
	require.NoError(t, err)
	return tokens
}

func (fx *fixture) stored(t testing.TB, id string) auth.Session {
	t.Helper()
	s, err := fx.store.Store.Get(context.Background(), "u1", id)
	require.NoError(t, err)
	return s
}

func TestRetryKey_LateRetryReturnsTheSameGeneration(t *testing.T) {
	t.Parallel()
	for name, firstRequest := range map[string]func(string) string{
		"the first request has the digest": digestOf,
		"the first request has the key":    func(key string) string { return key },
	} {
		for _, late := range []time.Duration{defaultWindow + time.Millisecond, time.Minute, time.Hour, 7*24*time.Hour - time.Millisecond} {
			fx := newFixture(t)
			first, key := fx.login(t), testKey(1)
			second := fx.refreshWith(t, first.Refresh, firstRequest(key))
			require.True(t, second.Rotated)
			before := fx.stored(t, first.SessionID)
			require.Equal(t, tagOf(key, 1, first.SessionID), before.RetryTag)

			fx.clock.Advance(late)
			fx.events.take("")
			for range 2 {
				repeat, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: thief, RetryKey: key})
				require.NoError(t, err, "%s, %s", name, late)
				require.True(t, repeat.Rotated)
				_, claims := decodeToken(t, repeat.Refresh)
				_, original := decodeToken(t, second.Refresh)
				require.InDelta(t, seconds(fx.clock.Now().Add(time.Second-1)), claims["iat"], 0, "iat is rounded up")
				require.EqualValues(t, 2, claims["gen"])
				delete(claims, "iat")
				delete(original, "iat")
				require.Equal(t, original, claims, "only iat differs")
				require.Equal(t, before, fx.stored(t, first.SessionID), "nothing is written")
			}
			repeats := fx.events.take(auth.EventLateRetry)
			require.Len(t, repeats, 2, "each late retry emits an event")
			require.Equal(t, thief, repeats[0].Device)
			require.Equal(t, laptop, repeats[0].Session.Device)
			require.Equal(t, before.RotatedAt, repeats[0].Session.RotatedAt)
			require.EqualValues(t, 1, repeats[0].Generation)
			require.EqualValues(t, 2, repeats[0].Session.Generation)
		}
	}
}

func TestRetryKey_LateRetryContinuesTheSession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	tokens := fx.login(t)
	for i := range byte(20) { // every answer is lost once
		key := testKey(i)
		fx.refreshWith(t, tokens.Refresh, digestOf(key))
		fx.clock.Advance(time.Hour)
		next := fx.refreshWith(t, tokens.Refresh, key)
		require.NotEqual(t, tokens.Refresh, next.Refresh)
		_, err := fx.Verify(context.Background(), next.Access)
		require.NoError(t, err)
		tokens = next
		fx.clock.Advance(time.Hour)
	}
	require.Empty(t, fx.events.take(auth.EventReuse))
	require.EqualValues(t, 21, fx.stored(t, tokens.SessionID).Generation)
}

// Everything but the key itself, with the token that the key belongs to, is
// reuse after the window.
func TestRetryKey_OnlyTheKeyItselfIsALateRetry(t *testing.T) {
	t.Parallel()
	key, other := testKey(1), testKey(2)
	for name, c := range map[string]struct{ first, second string }{
		"no key in the second request":           {digestOf(key), ""},
		"another key":                            {digestOf(key), other},
		"the digest again":                       {digestOf(key), digestOf(key)},
		"a key that the first had not":           {"", key},
		"the digest, taken for a key":            {digestOf(key), strings.TrimPrefix(digestOf(key), "sha256=")},
		"the digest, when the first had the key": {key, digestOf(key)},
	} {
		fx := newFixture(t)
		first := fx.login(t)
		second := fx.refreshWith(t, first.Refresh, c.first)
		fx.clock.Advance(defaultWindow)
		require.Equal(t, second.Refresh, fx.refreshWith(t, first.Refresh, c.second).Refresh, "%s: within the window, any request is a retry", name)
		fx.clock.Advance(time.Millisecond)
		fx.events.take("")
		_, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: laptop, RetryKey: c.second})
		require.ErrorIs(t, err, auth.ErrTokenReused, name)
		require.Len(t, fx.events.take(auth.EventReuse), 1, name)
	}
}

func TestRetryKey_OfAnotherSessionOrGenerationIsNoLateRetry(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	key := testKey(1)
	one, two := fx.login(t), fx.login(t)
	fx.refreshWith(t, one.Refresh, digestOf(key))
	fx.refreshWith(t, two.Refresh, "")
	fx.clock.Advance(time.Minute)
	_, err := fx.Refresh(context.Background(), two.Refresh, auth.RefreshOptions{RetryKey: key})
	require.ErrorIs(t, err, auth.ErrTokenReused, "the key of another session")

	// Two generations behind.
	fx = newFixture(t)
	first := fx.login(t)
	second := fx.refreshWith(t, first.Refresh, digestOf(key))
	fx.clock.Advance(defaultCooldown)
	fx.refreshWith(t, second.Refresh, digestOf(testKey(2)))
	_, err = fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{RetryKey: key})
	require.ErrorIs(t, err, auth.ErrTokenReused)
}

// A rotation without a key removes the tag of the rotation before.
func TestRetryKey_ARotationWithoutAKeyHasNoTag(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first := fx.login(t)
	second := fx.refreshWith(t, first.Refresh, digestOf(testKey(1)))
	fx.clock.Advance(defaultCooldown)
	fx.refreshWith(t, second.Refresh, "")
	require.Empty(t, fx.stored(t, first.SessionID).RetryTag)
}

// A client that uses one key for ever is as without a key in every second
// generation, and an event says so.
func TestRetryKey_UsedAgainIsNotKept(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	key, tokens := testKey(1), fx.login(t)
	for i := range 6 {
		presented := tokens
		fx.events.take("")
		tokens = fx.refreshWith(t, presented.Refresh, key)
		faults := fx.events.take(auth.EventFault)
		if i%2 == 0 {
			require.Len(t, fx.stored(t, tokens.SessionID).RetryTag, 16)
			require.Empty(t, faults)
		} else {
			require.Empty(t, fx.stored(t, tokens.SessionID).RetryTag)
			require.Len(t, faults, 1)
			require.ErrorContains(t, faults[0].Err, "retry key of its previous refresh token again")
			require.Equal(t, laptop, faults[0].Device)
			require.Equal(t, tokens.SessionID, faults[0].Session.ID)
			require.EqualValues(t, i+1, faults[0].Generation)
			require.NotContains(t, faults[0].Err.Error(), key)
		}
		fx.clock.Advance(2 * time.Minute)
		if i == 5 {
			_, err := fx.Refresh(context.Background(), presented.Refresh, auth.RefreshOptions{RetryKey: key})
			require.ErrorIs(t, err, auth.ErrTokenReused)
		}
	}
}

func TestRetryKey_ARepairedRecordHasTheTagOfThePresentedGeneration(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first := fx.login(t)
	lost := fx.stored(t, first.SessionID)
	second := fx.refreshWith(t, first.Refresh, digestOf(testKey(1)))
	memory := auth.NewMemoryStore()
	require.NoError(t, memory.Create(context.Background(), lost))
	fx.store.mu.Lock()
	fx.store.Store = memory
	fx.store.mu.Unlock()
	fx.clock.Advance(time.Hour)
	again := fx.refreshWith(t, second.Refresh, digestOf(testKey(2)))
	require.Equal(t, second.Refresh, again.Refresh)
	require.False(t, again.Rotated, "the same generation")
	s := fx.stored(t, first.SessionID)
	require.EqualValues(t, 2, s.Generation)
	require.Equal(t, tagOf(testKey(2), 2, first.SessionID), s.RetryTag)
	require.Empty(t, fx.events.take(auth.EventLateRetry))
}

// The token of a late retry does not rotate its session for a cooldown, so
// other requests of its client may still arrive.
func TestRetryKey_LateRetryHasACooldownOfItsOwn(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first, key := fx.login(t), testKey(1)
	second := fx.refreshWith(t, first.Refresh, digestOf(key))
	fx.clock.Advance(time.Hour + 300*time.Millisecond)
	repeat := fx.refreshWith(t, first.Refresh, key)
	_, claims := decodeToken(t, repeat.Refresh)
	require.Equal(t, seconds(fx.clock.Now().Add(700*time.Millisecond)), claims["iat"])

	fx.clock.Advance(700*time.Millisecond + defaultCooldown - time.Millisecond)
	rest := fx.refreshWith(t, repeat.Refresh, "")
	require.Equal(t, repeat.Refresh, rest.Refresh)
	require.False(t, rest.Rotated)
	c, err := fx.Verify(context.Background(), rest.Access)
	require.NoError(t, err)
	require.False(t, c.SessionExpiresAt.After(fx.stored(t, first.SessionID).ExpiresAt), "the access token does not promise more")
	// Another request with the spent token arrives late.
	require.EqualValues(t, 2, generationOf(t, fx.refreshWith(t, first.Refresh, key).Refresh))

	fx.clock.Advance(time.Millisecond)
	third := fx.refreshWith(t, repeat.Refresh, "")
	require.EqualValues(t, 3, generationOf(t, third.Refresh))
	require.Empty(t, fx.events.take(auth.EventReuse))
	_ = second
}

// A late retry may come less than a cooldown before the session expires. Then its
// token rotates the session at once, or the session of an active client would end.
func TestRetryKey_LateRetryBeforeTheEndKeepsTheSessionAlive(t *testing.T) {
	t.Parallel()
	for left, rotates := range map[time.Duration]bool{
		defaultCooldown + time.Second: false, defaultCooldown: true, time.Minute: true, time.Second: true,
	} {
		fx := newFixture(t)
		first, key := fx.login(t), testKey(1)
		fx.clock.Advance(time.Second) // so that the first token does not expire before the second
		other := newProcess(t, fx, func(c *auth.Config) { c.IdleTTL = 24 * time.Hour })
		other.refreshWith(t, first.Refresh, digestOf(key))
		fx.clock.Advance(24*time.Hour - left)
		repeat := fx.refreshWith(t, first.Refresh, key)
		fx.clock.Advance(500 * time.Millisecond)
		next := fx.refreshWith(t, repeat.Refresh, "")
		require.Equal(t, rotates, next.Rotated, left)
		fx.clock.Advance(time.Hour)
		if rotates {
			fx.refreshWith(t, next.Refresh, "")
		}
	}
}

func generationOf(t testing.TB, token string) any {
	t.Helper()
	_, claims := decodeToken(t, token)
	return claims["gen"]
}

// The original successor, whose iat is old, rotates as usual: it is another
// token of the same generation.
func TestRetryKey_TheFirstAnswerStillRotatesAfterALateRetry(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first, key := fx.login(t), testKey(1)
	second := fx.refreshWith(t, first.Refresh, digestOf(key))
	fx.clock.Advance(time.Hour)
	fx.refreshWith(t, first.Refresh, key)
	require.EqualValues(t, 3, generationOf(t, fx.refreshWith(t, second.Refresh, "").Refresh))
}

// A cooldown of its own never prevents the repair of a record that has lost
// writes.
func TestRetryKey_CooldownOfALateRetryDoesNotPreventRepairs(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first, key := fx.login(t), testKey(1)
	lost := fx.stored(t, first.SessionID)
	fx.refreshWith(t, first.Refresh, digestOf(key))
	fx.clock.Advance(time.Hour)
	repeat := fx.refreshWith(t, first.Refresh, key)
	memory := auth.NewMemoryStore()
	require.NoError(t, memory.Create(context.Background(), lost))
	fx.store.mu.Lock()
	fx.store.Store = memory
	fx.store.mu.Unlock()
	again := fx.refreshWith(t, repeat.Refresh, "")
	require.Equal(t, repeat.Refresh, again.Refresh)
	require.EqualValues(t, 2, fx.stored(t, first.SessionID).Generation)
}

// An iat that is ahead of the clock by more than the clocks may differ starts no
// cooldown. One that is ahead by less does.
func TestRetryKey_AnIatOfAWrongClockStartsNoCooldown(t *testing.T) {
	t.Parallel()
	for ahead, rotates := range map[time.Duration]bool{
		time.Second: false, 10 * time.Second: false, // iat is rounded up, to 10.7 s ahead
		10*time.Second + 701*time.Millisecond: true, time.Hour: true,
	} {
		fx := newFixture(t)
		first, key := fx.login(t), testKey(1)
		fx.refreshWith(t, first.Refresh, digestOf(key))
		fx.clock.Advance(24*time.Hour + 300*time.Millisecond)
		// The other process has the clock that is ahead.
		other := newProcess(t, fx, func(c *auth.Config) { c.Now = func() time.Time { return fx.clock.Now().Add(ahead) } })
		repeat := other.refreshWith(t, first.Refresh, key)
		next := fx.refreshWith(t, repeat.Refresh, "")
		require.Equal(t, rotates, next.Rotated, ahead)
	}
}

// The access token of a late retry ends by the record's ExpiresAt, which no
// rotation has moved.
func TestRetryKey_LateAccessTokenEndsWithTheSession(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *auth.Config) { c.IdleTTL = time.Hour })
	first, key := fx.login(t), testKey(1)
	second := fx.refreshWith(t, first.Refresh, digestOf(key))
	fx.clock.Advance(time.Hour - 5*time.Minute)
	repeat := fx.refreshWith(t, first.Refresh, key)
	end := fx.stored(t, first.SessionID).ExpiresAt
	require.Equal(t, end, second.RefreshExpiresAt)
	require.Equal(t, end, repeat.RefreshExpiresAt)
	require.Equal(t, end, repeat.AccessExpiresAt)
	c, err := fx.Verify(context.Background(), repeat.Access)
	require.NoError(t, err)
	require.Equal(t, end, c.SessionExpiresAt)
}

// The presented token's own expiry bounds how late a repeat may be. If the
// record has expired before, because IdleTTL was shortened, it is expired too.
func TestRetryKey_ExpiredIsExpired(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, c := range map[string]struct {
		idle time.Duration // of the process that rotates; 0 means the default
		late time.Duration
		want error
	}{
		"the token, a millisecond before":  {late: 7*24*time.Hour - time.Millisecond},
		"the token":                        {late: 7 * 24 * time.Hour, want: auth.ErrTokenExpired},
		"the record, a millisecond before": {idle: time.Hour, late: time.Hour - time.Millisecond},
		"the record":                       {idle: time.Hour, late: time.Hour, want: auth.ErrTokenExpired},
	} {
		fx := newFixture(t)
		first, key := fx.login(t), testKey(1)
		other := newProcess(t, fx, func(config *auth.Config) { config.IdleTTL = c.idle })
		other.refreshWith(t, first.Refresh, digestOf(key))
		fx.clock.Advance(c.late)
		_, err := fx.Refresh(ctx, first.Refresh, auth.RefreshOptions{RetryKey: key})
		require.ErrorIs(t, err, c.want, name)
		require.Empty(t, fx.store.passed(), "%s: nothing ends", name)
		if c.want != nil {
			require.Equal(t, "login", auth.ResponseFor(err).Action)
			require.Empty(t, fx.events.take(auth.EventLateRetry), name)
		}
	}
	// Without the key, it is reuse as ever.
	fx := newFixture(t)
	first := fx.login(t)
	newProcess(t, fx, func(config *auth.Config) { config.IdleTTL = time.Hour }).refreshWith(t, first.Refresh, digestOf(testKey(1)))
	fx.clock.Advance(time.Hour + time.Second)
	_, err := fx.Refresh(ctx, first.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrTokenReused)
}

// failingClaims fails in the nth MarshalJSON.
type failingClaims struct{ n int }

func (f *failingClaims) MarshalJSON() ([]byte, error) {
	if f.n--; f.n == 0 {
		return nil, errors.New("claims fault of a test")
	}
	return []byte(`"x"`), nil
}

func TestRetryKey_FailureAfterRotateIs503AndCanBeRepeated(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	first, key := fx.login(t), testKey(1)
	fx.refreshWith(t, first.Refresh, digestOf(key))
	fx.clock.Advance(time.Hour)
	before := fx.stored(t, first.SessionID)
	fx.users.change("u1", func(u *auth.User) { u.Extra = map[string]any{"x": &failingClaims{2}} })
	fx.events.take("")
	_, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{RetryKey: key})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.Equal(t, 503, auth.ResponseFor(err).Status)
	require.Len(t, fx.events.take(auth.EventFault), 1)
	require.Equal(t, before, fx.stored(t, first.SessionID))
	require.EqualValues(t, 2, generationOf(t, fx.refreshWith(t, first.Refresh, key).Refresh))
}

func TestRetryKey_RevocationBeatsALateRetry(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, revoke := range map[string]func(fx, other *fixture, s auth.Tokens) error{
		"in this process":    func(fx, _ *fixture, s auth.Tokens) error { return fx.Revoke(ctx, "u1", s.SessionID) },
		"in another process": func(_, other *fixture, s auth.Tokens) error { return other.Revoke(ctx, "u1", s.SessionID) },
		"of all sessions":    func(_, other *fixture, _ auth.Tokens) error { return other.RevokeAll(ctx, "u1") },
		"a user that was disabled": func(fx, _ *fixture, _ auth.Tokens) error {
			fx.users.change("u1", func(u *auth.User) { u.Disabled = true })
			return nil
		},
		"while Rotate returns a late": func(fx, _ *fixture, s auth.Tokens) error {
			fx.store.rotate = func(stored auth.Session) (auth.Session, bool) {
				if err := fx.Revoke(ctx, "u1", s.SessionID); err != nil {
					panic(err)
				}
				return stored, false
			}
			return nil
		},
	} {
		fx := newFixture(t)
		other := newProcess(t, fx, func(*auth.Config) {})
		first, key := fx.login(t), testKey(1)
		fx.refreshWith(t, first.Refresh, digestOf(key))
		fx.clock.Advance(time.Hour)
		require.NoError(t, revoke(fx, other, first), name)
		fx.events.take("")
		_, err := fx.Refresh(ctx, first.Refresh, auth.RefreshOptions{RetryKey: key})
		require.ErrorIs(t, err, auth.ErrSessionRevoked, name)
		require.Empty(t, fx.events.take(auth.EventLateRetry), name)
	}
}

// Without a retry window, a request with the key is a late retry at once.
func TestRetryKey_WithoutAWindow(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, func(c *auth.Config) { c.RetryWindow = -1 })
	first, key := fx.login(t), testKey(1)
	fx.refreshWith(t, first.Refresh, digestOf(key))
	repeat := fx.refreshWith(t, first.Refresh, key)
	require.EqualValues(t, 2, generationOf(t, repeat.Refresh))
	require.EqualValues(t, 3, generationOf(t, fx.refreshWith(t, repeat.Refresh, "").Refresh), "there is no cooldown")
}

func TestRetryKey_ConcurrentLateRetrysReturnOneGeneration(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	tokens := fx.login(t)
	for i := range iterations(20, 200) {
		key := testKey(byte(i))
		fx.refreshWith(t, tokens.Refresh, digestOf(key))
		fx.clock.Advance(time.Hour)
		answers := make([]string, 64)
		var wg sync.WaitGroup
		for j := range answers {
			wg.Go(func() {
				if next, err := fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{RetryKey: key}); err == nil {
					answers[j] = next.Refresh
				}
			})
		}
		wg.Wait()
		for _, a := range answers {
			require.Equal(t, answers[0], a)
		}
		require.EqualValues(t, i+2, generationOf(t, answers[0]))
		tokens.Refresh = answers[0]
		fx.clock.Advance(time.Hour)
	}
	require.Empty(t, fx.events.take(auth.EventReuse))
}

// badKeys are values of Refresh-Key that are refused.
func badKeys() map[string]string {
	key := testKey(1)
	digest := digestOf(key)
	return map[string]string{
		"too short":               key[:42],
		"too long":                key + "A",
		"31 bytes":                key[:41] + "A",
		"33 bytes":                key + "AQ",
		"padding":                 key + "=",
		"padding of the digest":   digest + "=",
		"a space before":          " " + key,
		"a space after":           key + " ",
		"a space within":          key[:20] + " " + key[21:],
		"a line break within":     key[:20] + "\n" + key[20:],
		"a line break for a byte": key[:42] + "\n",
		"a carriage return":       "\r" + key[1:],
		"bits after the last":     key[:42] + "F",
		"bits after the digest":   nextBit(digest),
		"base64":                  "+" + key[1:],
		"base64 with a slash":     "/" + key[1:],
		"not ASCII":               "é" + key[2:],
		"a zero byte":             "\x00" + key[1:],
		"only the prefix":         "sha256=",
		"the prefix twice":        "sha256=" + digest,
		"another prefix":          "sha512=" + strings.TrimPrefix(digest, "sha256="),
		"an upper-case prefix":    "SHA256=" + strings.TrimPrefix(digest, "sha256="),
		"no equals sign":          "sha256" + strings.TrimPrefix(digest, "sha256="),
		"a colon":                 "sha256:" + strings.TrimPrefix(digest, "sha256="),
		"a structured field":      "sha256=:" + strings.TrimPrefix(digest, "sha256=") + ":",
		"quotes":                  `"` + key + `"`,
		"a list":                  key + "," + testKey(2),
		"a list with a space":     key + ", " + digest,
		"hexadecimal":             strings.Repeat("01", 32),
		"one character":           "A",
		"very long":               strings.Repeat("A", 100_000),
	}
}

// nextBit sets the lowest bit of the last character.
func nextBit(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, s[len(s)-1])
	return s[:len(s)-1] + alphabet[i+1:i+2]
}

func TestRetryKey_MalformedIsRefusedBeforeAnythingIsAsked(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(allowBody))
	first, other := fx.login(t), fx.login(t)
	fx.store.resetCounts()
	lookups := 0
	fx.users.onFind = func() { lookups++ }
	for name, value := range badKeys() {
		_, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{RetryKey: value})
		require.ErrorIs(t, err, auth.ErrInvalidRequest, name)
		require.Equal(t, 400, auth.ResponseFor(err).Status, name)
		require.NotContains(t, err.Error(), testKey(1)[:20], name)
		for _, more := range [][]requestOption{
			{reqHeader("Refresh-Token", first.Refresh)},
			{reqCookie(refreshCookie, first.Refresh)},
			{reqCookie(refreshCookie, first.Refresh), reqHeader("Refresh-Token", other.Refresh)}, // choosing one takes a call of the store
		} {
			r := send(t, fx.RefreshHandler(), "POST", "/refresh", append(more, reqHeader("Refresh-Key", value))...)
			r.requireRefused(t, 400, "invalid_request", "")
			require.NotContains(t, r.body, testKey(1)[:20], name)
			require.Empty(t, r.cookies, name)
		}
	}
	for _, values := range [][]string{{""}, {"", ""}, {testKey(1), testKey(1)}, {testKey(1), testKey(2)}, {testKey(1), ""}, {"", testKey(1)}} {
		send(t, fx.RefreshHandler(), "POST", "/refresh", reqHeader("Refresh-Token", first.Refresh), reqHeader("Refresh-Key", values...)).
			requireRefused(t, 400, "invalid_request", "")
	}
	require.Zero(t, lookups)
	for _, method := range []string{"Get", "Rotate", "List", "Revoke", "Spend"} {
		require.Zero(t, fx.store.count(method), method)
	}
	require.True(t, fx.refreshWith(t, first.Refresh, testKey(1)).Rotated, "the token was not spent")
}

func TestRefreshHandler_RotatedSaysWhetherTheGenerationIsLater(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(allowBody))
	for _, byCookie := range []bool{false, true} {
		carry := func(token string) requestOption {
			if byCookie {
				return reqCookie(refreshCookie, token)
			}
			return reqHeader("Refresh-Token", token)
		}
		next := func(r response) string {
			if byCookie {
				return r.cookies[refreshCookie].Value
			}
			return r.fields(t)["refresh_token"].(string)
		}
		first, key := fx.login(t), testKey(1)
		refresh := func(token, key string) response {
			t.Helper()
			r := send(t, fx.RefreshHandler(), "POST", "/refresh", carry(token), reqHeader("Refresh-Key", key), reqHeader("User-Agent", "laptop"))
			require.Equal(t, 200, r.status, r.body)
			return r
		}
		rotated := refresh(first.Refresh, digestOf(key))
		require.Equal(t, true, rotated.fields(t)["rotated"])
		require.Equal(t, true, refresh(first.Refresh, key).fields(t)["rotated"], "a retry")
		require.NotContains(t, refresh(next(rotated), key).fields(t), "rotated", "in its cooldown")
		fx.clock.Advance(time.Hour)
		late := refresh(first.Refresh, key)
		require.Equal(t, true, late.fields(t)["rotated"], "a late retry")
		require.NotEmpty(t, next(late))
		require.NotContains(t, refresh(next(late), digestOf(testKey(2))).fields(t), "rotated")
	}
	// A login has no earlier generation.
	r := send(t, fx.LoginHandler(), "POST", "/login", reqJSON(goodLogin))
	require.Equal(t, 200, r.status)
	require.NotContains(t, r.fields(t), "rotated")
}

func TestRefreshRequest_ReadsWhatARefreshNeeds(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(allowBody))
	first, second := fx.refreshed(t)
	key := testKey(1)
	request := func(options ...requestOption) *http.Request {
		r := newRequest(append(options, reqHeader("User-Agent", "robot/1"))...)
		r.Method = http.MethodPost
		return r
	}
	for _, c := range []struct {
		r      *http.Request
		inBody bool
		key    string
	}{
		{request(reqCookie(refreshCookie, second.Refresh)), false, ""},
		{request(reqCookie(refreshCookie, second.Refresh), reqHeader("Refresh-Key", key)), false, key},
		{request(reqHeader("Refresh-Token", second.Refresh), reqHeader("Refresh-Key", digestOf(key))), true, digestOf(key)},
		{request(reqCookie(refreshCookie, first.Refresh), reqHeader("Refresh-Token", second.Refresh)), false, ""},
	} {
		token, o, err := fx.RefreshRequest(c.r)
		require.NoError(t, err)
		require.Equal(t, second.Refresh, token)
		require.Equal(t, c.inBody, o.InBody)
		require.Equal(t, c.key, o.RetryKey)
		require.Equal(t, "robot/1", o.Device.UserAgent)
		require.Equal(t, "192.0.2.1", o.Device.IP.String())
	}
	// A handler of one's own replaces a cookie of an earlier generation as the
	// stock one does.
	own := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, o, err := fx.RefreshRequest(r)
		require.NoError(t, err)
		tokens, err := fx.Refresh(r.Context(), token, o)
		require.NoError(t, err)
		fx.WriteTokens(w, tokens, !o.InBody)
	})
	r := send(t, own, "POST", "/refresh", reqCookie(refreshCookie, first.Refresh), reqHeader("Refresh-Token", second.Refresh))
	require.Contains(t, r.cookies, refreshCookie)
	require.Equal(t, second.Refresh, r.cookies[refreshCookie].Value)
	r = send(t, own, "POST", "/refresh", reqCookie(refreshCookie, second.Refresh), reqHeader("Refresh-Token", second.Refresh))
	require.NotContains(t, r.cookies, refreshCookie)
}

// A page has no retry key: AutoRefresh does not read one, so its rotation has no
// tag, and it never repeats late.
func TestAutoRefresh_ReadsNoRetryKey(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(), func(c *auth.Config) { c.AutoRefresh = true })
	h := fx.Require()(hello)
	first, key := fx.login(t), testKey(1)
	r := send(t, h, "GET", "/", reqCookie(refreshCookie, first.Refresh), reqHeader("Refresh-Key", digestOf(key)))
	require.Equal(t, http.StatusTemporaryRedirect, r.status)
	require.Empty(t, fx.stored(t, first.SessionID).RetryTag)
	require.NotContains(t, r.header.Get("Vary"), "Refresh-Key")
	// It does not refuse a malformed one either.
	first = fx.login(t)
	require.Equal(t, http.StatusTemporaryRedirect, send(t, h, "GET", "/", reqCookie(refreshCookie, first.Refresh), reqHeader("Refresh-Key", "x")).status)

	first = fx.login(t)
	fx.refreshWith(t, first.Refresh, digestOf(key))
	fx.clock.Advance(time.Hour)
	fx.events.take("")
	send(t, h, "GET", "/", reqCookie(refreshCookie, first.Refresh), reqHeader("Refresh-Key", key)).requireRefused(t, 401, "invalid_token", "login")
	require.Len(t, fx.events.take(auth.EventReuse), 1)
}

// A request that AutoRefresh serves spends no token for half of IdleTTL. The
// later iat of a late retry does not extend that, or the session could expire.
func TestAutoRefresh_ALateRetryDoesNotKeepASessionFromRotating(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, withCookies(), func(c *auth.Config) { c.AutoRefresh = true })
	first, key := fx.login(t), testKey(1)
	fx.refreshWith(t, first.Refresh, digestOf(key))
	fx.clock.Advance(3 * 24 * time.Hour)
	repeat := fx.refreshWith(t, first.Refresh, key)
	fx.clock.Advance(24 * time.Hour) // four of seven days since the rotation, one since the late retry
	r := send(t, fx.Require()(hello), "POST", "/", reqCookie(refreshCookie, repeat.Refresh))
	require.Equal(t, 200, r.status)
	require.EqualValues(t, 3, generationOf(t, r.cookies[refreshCookie].Value))
}

func TestLogEvents_LateRetryIsAWarningWithBothDevices(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	fx := newFixture(t, func(c *auth.Config) { c.OnEvent = auth.LogEvents(slog.New(slog.NewTextHandler(&b, nil))) })
	first, key := fx.login(t), testKey(1)
	second := fx.refreshWith(t, first.Refresh, digestOf(key))
	fx.clock.Advance(time.Hour)
	b.Reset()
	repeat, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{Device: thief, RetryKey: key})
	require.NoError(t, err)
	log := b.String()
	require.Contains(t, log, "level=WARN")
	require.Contains(t, log, `msg="auth: late_retry"`)
	for _, want := range []string{"ip=198.51.100.9", "user_agent=thief", "holder_ip=192.0.2.1", "holder_user_agent=laptop", "generation=1", "current=2", "rotated_at="} {
		require.Contains(t, log, want)
	}
	for _, secret := range []string{key, digestOf(key)[7:], first.Refresh, second.Refresh, repeat.Refresh, repeat.Access} {
		require.NotContains(t, log, secret)
	}
}

func TestRetryKey_ClientsPageShowsAKeyAndItsDigest(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/clients.md")
	require.NoError(t, err)
	require.Contains(t, string(page), "Refresh-Key: "+digestOf(testKey(1))+"\n")
	require.Contains(t, string(page), "Refresh-Key: "+testKey(1)+"\n")
}
