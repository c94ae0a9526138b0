package redisstore_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/redisstore"
)

// TestSpend_RecognizesItsRecord loses the reply, so that the driver sends the
// command again.
func TestSpend_RecognizesItsRecord(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	proxy := testserver.NewProxy(t, server.Addr)
	st, ctx, until := store(t, single(t, proxy.Addr), redisstore.Config{}), t.Context(), now().Add(time.Hour)
	require.NoError(t, st.Spend(ctx, "ada", "zero", until)) // connects, and loads the script
	proxy.CutResponses(0)
	require.NoError(t, st.Spend(ctx, "ada", "one", until))
	require.ErrorIs(t, st.Spend(ctx, "ada", "one", until), auth.ErrSpent)
}
