package sqlitestore_test

import (
	"path/filepath"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/faults"
)

// earlier is a node of an earlier version.
const earlier = `package main

import (
	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/faults"
	"github.com/ratchet-go/auth/sqlitestore"
)

func main() {
	faults.Main(nil, func(path string) (auth.Store, error) { return sqlitestore.Open(path, sqlitestore.Config{}) })
}
`

func TestOpen_WorksBesideAnEarlierVersion(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	faults.Upgrade(t, "sqlitestore", earlier, path, func() auth.Store { return open(t, path) })
}
