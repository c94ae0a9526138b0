package auth_test

import (
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/storetest"
)

func TestExampleStore_Conformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) func() auth.Store {
		store := newSkeletonStore()
		return func() auth.Store { return store }
	})
}
