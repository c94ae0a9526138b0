package sqlitestore_test

import (
	"path/filepath"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/storetest"
)

func TestStore_KeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) func() auth.Store {
		path := filepath.Join(t.TempDir(), "sessions.db")
		return func() auth.Store { return open(t, path) }
	})
}

func TestStore_KeepsTheContractWhenShared(t *testing.T) {
	t.Setenv("AUTH_LONG", "") // the long rounds are of the other; not parallel, so for this test alone
	storetest.Run(t, func(t *testing.T) func() auth.Store {
		s := open(t, filepath.Join(t.TempDir(), "sessions.db"))
		return func() auth.Store { return s }
	})
}

// rotateFrom returns r with a From.
func rotateFrom(generation int64, r auth.Rotation) auth.Rotation {
	r.From = generation
	return r
}
