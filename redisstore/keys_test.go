package redisstore_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/redisstore"
)

// Retry tags and keys. They have zero bytes, and bytes that look like the
// beginning of a section.
var (
	tagA = append([]byte{0}, bytes.Repeat([]byte{1, 0, 17}, 5)...)
	tagB = make([]byte, 16)
	keyA = append([]byte{2, 1, 0, 17, 0}, make([]byte, 28)...)
	keyB = bytes.Repeat([]byte{0xff}, 33)
)

// newerSections are sections that this version does not know: complete, and
// broken off at any byte.
var newerSections = []string{
	"",
	"\x07\x00\x03key",
	"\x07\x00\x00\xfe\x00\x04a\x00b\xff\x01\x00\x10" + strings.Repeat("\x01", 16),
	"\x09\x10\x00" + strings.Repeat("\x00x", 0x800),
	"\x07\xff\xff",
	"\x07\x00",
	"\x07",
	"\x01\x01\x11" + strings.Repeat("\x01", 17), // the length of a tag, but for its first byte
	"\x01\x00\x11" + strings.Repeat("\x01", 16), // a tag without its last byte
	"\x01\x00\x12" + strings.Repeat("\xfe", 18), // a byte more than a tag, of generation 254
}

// TestRotate_SetsTagAndKey tries combinations of what is stored and what is
// given: one of eleven, or all with AUTH_LONG=1.
func TestRotate_SetsTagAndKey(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	tags, keys := [][]byte{nil, tagA, tagB}, [][]byte{nil, keyA, keyB}
	opaque := [][]byte{nil, []byte("\x00data\x00"), make([]byte, 1280)}
	combinations := 2 * len(tags) * len(keys) * len(opaque) * len(newerSections) * len(tags) * len(tags) * len(keys)
	step := 11 // no factor of combinations
	if os.Getenv("AUTH_LONG") == "1" {
		step = 1
	}
	for i := 0; i < combinations; i += step {
		n := i
		pick := func(list [][]byte) []byte {
			value := list[n%len(list)]
			n /= len(list)
			return value
		}
		u := auth.Rotation{RetryTag: pick(tags), SpentTag: pick(tags), Key: pick(keys)}
		s := session("ada", "one")
		s.Generation, s.RetryTag, s.Key, s.Opaque = int64(250+i%10), pick(tags), pick(keys), pick(opaque)
		newer := newerSections[n%len(newerSections)]
		healed := n/len(newerSections) == 1
		name := fmt.Sprintf("%+v\n%+v\nnewer %.50q, healed %t", s, u, newer, healed)

		const key = "ratchet:{ada}"
		require.NoError(t, c.Del(ctx, key).Err())
		require.NoError(t, st.Create(ctx, s))
		if newer != "" {
			record := c.HGet(ctx, key, "one").Val()
			if s.RetryTag == nil {
				record += "\x00"
			}
			require.NoError(t, c.HSet(ctx, key, "one", record+newer).Err())
		}
		got, err := st.Get(ctx, "ada", "one")
		require.NoError(t, err, name)
		require.Equal(t, s, got, name)

		u.From, u.At, u.NotAfter, u.ExpiresAt = s.Generation, now(), now(), s.ExpiresAt
		u.Device = auth.Device{UserAgent: "another agent", IP: addresses[i%len(addresses)]}
		if healed {
			u.From++
		}
		got, rotated, err := st.Rotate(ctx, "ada", "one", u)
		require.NoError(t, err, name)
		if s.Key != nil && !bytes.Equal(s.Key, u.Key) {
			require.False(t, rotated, name)
			require.Equal(t, s, got, name)
			continue
		}
		require.True(t, rotated, name)
		s.Generation++
		s.RotatedAt, s.Device, s.Key = u.At, u.Device, u.Key
		if s.RetryTag != nil && bytes.Equal(s.RetryTag, u.SpentTag) {
			s.RetryTag = nil
		} else {
			s.RetryTag = u.RetryTag
		}
		require.Equal(t, s, got, name)
		got, err = st.Get(ctx, "ada", "one")
		require.NoError(t, err, name)
		require.Equal(t, s, got, name)

		// The other sections are kept in order.
		want := newer
		if s.RetryTag != nil {
			want = "\x01\x00\x11" + string([]byte{byte(s.Generation)}) + string(s.RetryTag) + want
		}
		if want != "" {
			want = "\x00" + want
		}
		_, after, _ := strings.Cut(c.HGet(ctx, key, "one").Val(), "another agent")
		require.Equal(t, want, after, name)

		got, rotated, err = st.Rotate(ctx, "ada", "one", u) // the loser of a race
		require.NoError(t, err, name)
		require.Equal(t, healed, rotated, name)
		if !healed {
			require.Equal(t, s, got, name)
		}
	}
}

// olderScript returns a script of commit 171e720, which knew neither tags nor
// keys.
func olderScript(t testing.TB, name string) *redis.Script {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + "-171e720.lua")
	require.NoError(t, err)
	return redis.NewScript(string(text))
}

// olderRotate rotates ada's session as a process of commit 171e720 does.
func olderRotate(t testing.TB, c *redis.Client, id string, from int64) error {
	t.Helper()
	at := now().UnixMilli()
	device := "\x00older agent"
	return olderScript(t, "rotate").Run(t.Context(), c, []string{"ratchet:{ada}"},
		id, from, at, at, at+3_600_000, at+3_660_000, device).Err()
}

func TestStore_OlderProcessDropsTheTag(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	s := session("ada", "one")
	require.NoError(t, st.Create(ctx, s))
	newer := "\x07\x00\x03key"
	for generation := int64(1); generation < 600; generation += 2 {
		u := rotateFrom(generation, use(s))
		u.RetryTag = tagA
		got, rotated, err := st.Rotate(ctx, "ada", "one", u)
		require.NoError(t, err)
		require.True(t, rotated)
		require.Equal(t, tagA, got.RetryTag)
		record := c.HGet(ctx, "ratchet:{ada}", "one").Val()
		require.Equal(t, 1, strings.Count(record, string(tagA)), "the section of the older process must be replaced")
		if generation == 1 {
			require.NoError(t, c.HSet(ctx, "ratchet:{ada}", "one", record+newer).Err())
		}

		require.NoError(t, olderRotate(t, c, "one", got.Generation))
		record = c.HGet(ctx, "ratchet:{ada}", "one").Val()
		require.Contains(t, record, string(tagA), "this test is about a section that is kept")
		require.True(t, strings.HasSuffix(record, newer))
		got, err = st.Get(ctx, "ada", "one")
		require.NoError(t, err)
		require.Equal(t, generation+2, got.Generation)
		require.Equal(t, auth.Device{UserAgent: "older agent"}, got.Device)
		require.Nil(t, got.RetryTag)
	}
	// The tag that was dropped does not count as used again.
	u := rotateFrom(601, use(s))
	u.RetryTag, u.SpentTag = tagB, tagA
	got, rotated, err := st.Rotate(ctx, "ada", "one", u)
	require.NoError(t, err)
	require.True(t, rotated)
	require.Equal(t, tagB, got.RetryTag)

	// Correcting a lost write leaves Generation equal to that of the token, for
	// which the tag is. When an older process then rotates the session for
	// another client, the tag would fit.
	u = rotateFrom(700, use(s))
	u.RetryTag = tagA
	got, rotated, err = st.Rotate(ctx, "ada", "one", u)
	require.NoError(t, err)
	require.True(t, rotated)
	require.Equal(t, int64(700), got.Generation)
	require.Equal(t, tagA, got.RetryTag)
	require.NoError(t, olderRotate(t, c, "one", 700))
	got, err = st.Get(ctx, "ada", "one")
	require.NoError(t, err)
	require.Equal(t, int64(701), got.Generation)
	require.Nil(t, got.RetryTag)
	require.NoError(t, olderRotate(t, c, "one", 900)) // corrects a lost write too
	got, err = st.Get(ctx, "ada", "one")
	require.NoError(t, err)
	require.Equal(t, int64(900), got.Generation)
	require.Nil(t, got.RetryTag)
}

// TestStore_OlderProcessCannotRotateABoundSession checks what a process that does
// not know of keys does with a session that has one.
func TestStore_OlderProcessCannotRotateABoundSession(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	bound := session("ada", "bound")
	bound.Key, bound.RetryTag = keyA, tagA
	require.NoError(t, st.Create(ctx, bound))
	require.NoError(t, st.Create(ctx, session("ada", "plain")))
	require.ErrorContains(t, olderRotate(t, c, "bound", 1), "unknown version")
	got, err := st.Get(ctx, "ada", "bound")
	require.NoError(t, err)
	require.Equal(t, bound, got)
	require.NoError(t, olderRotate(t, c, "plain", 1))
	// It deletes only by the ID, or with all others.
	revoke := func(args ...any) {
		require.NoError(t, olderScript(t, "revoke").Run(ctx, c, []string{"ratchet:{ada}"}, args...).Err())
	}
	revoke("", 1, "plain")
	require.True(t, c.HExists(ctx, "ratchet:{ada}", "bound").Val())
	revoke(0, 0, "bound")
	require.True(t, c.HExists(ctx, "ratchet:{ada}", "bound").Val())
	revoke(0, 0)
	require.False(t, c.HExists(ctx, "ratchet:{ada}", "bound").Val())
}
