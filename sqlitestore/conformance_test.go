package sqlitestore_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/faults"
	"github.com/ratchet-go/auth/storetest"
)

func TestStore_Conformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) func() auth.Store {
		path := filepath.Join(t.TempDir(), "sessions.db")
		return func() auth.Store { return open(t, path) }
	})
}

func TestStore_ConformanceShared(t *testing.T) {
	if os.Getenv("AUTH_LONG") != "1" {
		t.Skip("runs only with AUTH_LONG=1")
	}
	t.Setenv("AUTH_LONG", "") // TestStore_Conformance runs the long rounds; not parallel because of Setenv
	storetest.Run(t, func(t *testing.T) func() auth.Store {
		s := open(t, filepath.Join(t.TempDir(), "sessions.db"))
		return func() auth.Store { return s }
	})
}

func TestStore_CarriesTheReasonOfATheft(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	faults.Theft(t, func() auth.Store { return open(t, path) })
}
