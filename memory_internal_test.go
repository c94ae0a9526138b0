package auth

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// callHookContext is a context that calls a function when a call of a MemoryStore
// begins.
type callHookContext struct {
	context.Context
	f func()
}

func (c callHookContext) Err() error {
	c.f()
	return c.Context.Err()
}

func TestPublish_CoversALongerAccessTTLThatIsNoticedMeanwhile(t *testing.T) {
	t.Parallel()
	store := NewMemoryStore()
	newAt := func(ttl time.Duration) *Authenticator {
		a, err := New(Config{
			Issuer: "i", Audience: []string{"a"}, Secrets: [][]byte{[]byte("0123456789abcdef0123456789ABCDEF")}, Users: fuzzUsers{},
			Store: store, AccessTTL: ttl, Leeway: -1, Now: func() time.Time { return fuzzNow },
		})
		require.NoError(t, err)
		return a
	}
	short, long := newAt(time.Minute), newAt(time.Hour)
	ctx := callHookContext{context.Background(), func() {
		require.Equal(t, time.Hour, long.issuableTTL(context.Background(), fuzzNow))
	}}
	require.NoError(t, short.publish(ctx, Revocation{Subject: "u1", Sessions: []string{"s"}}, origin{own: true}))
	e, err := long.revoked.find(subjectTimes{subject: "u1", sid: "s"}, fuzzNow.Add(time.Hour))
	require.ErrorIs(t, err, ErrSessionRevoked)
	require.False(t, e.unconfirmed)
}
