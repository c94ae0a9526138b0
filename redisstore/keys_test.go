package redisstore_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/redisstore"
)

// Retry tags and keys, which may have zero bytes anywhere.
var (
	tagA = append([]byte{0}, bytes.Repeat([]byte{1, 0, 17}, 5)...)
	tagB = make([]byte, 16)
	keyA = append([]byte{2, 0, 33}, make([]byte, 30)...)
	keyB = bytes.Repeat([]byte{0xff}, 33)
)

// sections returns the sections that a newer version could write.
func sections(t testing.TB, record, agent string) string {
	t.Helper()
	i := bytes.LastIndex([]byte(record), []byte(agent))
	require.GreaterOrEqual(t, i, 0)
	return record[i+len(agent):]
}

// TestRotate_SetsTagAndKey tries every combination of what is stored and what is
// given, with sections of a newer version and without, and checks every change of
// the record.
func TestRotate_SetsTagAndKey(t *testing.T) {
	t.Parallel()
	c := single(t, testserver.Redis(t).Addr)
	st, ctx := store(t, c, redisstore.Config{}), t.Context()
	n := 0
	for _, newer := range []string{"", "\x07\x00\x03key", "\x07\x00\x00\x01\x00\x04a\x00b\xff\xfe\x00\x00", "\x07\xff\xff", "\x07", "\x01\x01\x11" + string(tagA)} {
		for _, tag := range [][]byte{nil, tagA} {
			for _, key := range [][]byte{nil, keyA} {
				for _, opaque := range [][]byte{nil, []byte("\x00data\x00"), make([]byte, 1280)} {
					for _, next := range [][]byte{nil, tagA, tagB} {
						for _, spent := range [][]byte{nil, tagA, tagB} {
							for _, proved := range [][]byte{nil, keyA, keyB} {
								n++
								s := session(fmt.Sprint("ada-", n), "one")
								s.RetryTag, s.Key, s.Opaque, s.Generation = tag, key, opaque, int64(250+n%10)
								name := fmt.Sprintf("%+v, newer %q, next %x, spent %x, proved %x", s, newer, next, spent, proved)
								hash := "ratchet:{" + s.Subject + "}"
								require.NoError(t, st.Create(ctx, s))
								if newer != "" {
									record := c.HGet(ctx, hash, "one").Val()
									if tag == nil {
										record += "\x00"
									}
									require.NoError(t, c.HSet(ctx, hash, "one", record+newer).Err())
								}
								got, err := st.Get(ctx, s.Subject, "one")
								require.NoError(t, err, name)
								require.Equal(t, s, got, name)

								u := rotateFrom(s.Generation+int64(n%2), use(s)) // the odd ones are healed
								u.Device = auth.Device{UserAgent: "another agent", IP: addresses[n%4]}
								u.RetryTag, u.SpentTag, u.Key = next, spent, proved
								got, rotated, err := st.Rotate(ctx, s.Subject, "one", u)
								require.NoError(t, err, name)
								if key != nil && !bytes.Equal(key, proved) {
									require.False(t, rotated, name)
									require.Equal(t, s, got, name)
									continue
								}
								require.True(t, rotated, name)
								s.Generation++
								s.RotatedAt, s.ExpiresAt, s.Device, s.Key = u.At, u.ExpiresAt, u.Device, proved
								s.RetryTag = next
								if tag != nil && bytes.Equal(tag, spent) {
									s.RetryTag = nil
								}
								require.Equal(t, s, got, name)
								got, err = st.Get(ctx, s.Subject, "one")
								require.NoError(t, err, name)
								require.Equal(t, s, got, name)
								want := newer
								if s.RetryTag != nil {
									want = "\x01\x00\x11" + string([]byte{byte(s.Generation)}) + string(s.RetryTag) + want
								}
								if want != "" {
									want = "\x00" + want
								}
								require.Equal(t, want, sections(t, c.HGet(ctx, hash, "one").Val(), "another agent"), name)
							}
						}
					}
				}
			}
		}
	}
}
