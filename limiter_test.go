package auth_test

import (
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/storetest"
)

func TestMemoryLimiter_Conformance(t *testing.T) {
	t.Parallel()
	storetest.RunLimiter(t, func(_ *testing.T, now func() time.Time) func() auth.Limiter {
		l := auth.NewMemoryLimiter(now)
		return func() auth.Limiter { return l }
	})
}
