package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/internal/testserver"
)

// TestFleet_IsOneApplication runs the program on each store.
func TestFleet_IsOneApplication(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "fleet")
	args := []string{"build", "-o", program}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(t.Context(), "go", append(args, ".")...).CombinedOutput()
	require.NoError(t, err, string(out))

	for name, store := range map[string]func(t *testing.T) string{
		"SQLite": func(*testing.T) string { return "sqlite" },
		"ItsOwn": func(*testing.T) string { return "" },
		"Redis":  func(t *testing.T) string { return "redis://" + testserver.Redis(t).Addr + "/0" },
		"PostgreSQL": func(t *testing.T) string {
			return "postgres://postgres@" + testserver.Postgres(t).Addr + "/postgres?sslmode=disable"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := exec.CommandContext(t.Context(), program, "-nodes", "3", "-users", "6", "-store", store(t)).CombinedOutput()
			said := string(out)
			t.Log("\n" + said)
			require.NoError(t, err)
			require.Contains(t, said, "presented 64 times at once over 3 nodes: one new token, the same in every answer.")
			require.Regexp(t, `(?m)^ +user-5( +\d+\.\d){4}$`, said)
			require.Regexp(t, `6 users, the other nodes: half within [\d.]+ ms`, said)
			require.Contains(t, said, "all 6 users went on at the others, 0 of 24 requests failed.")
			require.Contains(t, said, "from its first answer on it refuses who signed out meanwhile.")
			require.NotContains(t, said, "DATA RACE")
			for _, pid := range regexp.MustCompile(`\(pid (\d+)\)`).FindAllStringSubmatch(said, -1) {
				n, err := strconv.Atoi(pid[1])
				require.NoError(t, err)
				node, err := os.FindProcess(n)
				if err == nil {
					err = node.Signal(syscall.Signal(0))
				}
				require.ErrorIs(t, err, os.ErrProcessDone, "process %d is left", n)
			}
		})
	}
}

func TestFleet_RefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	for _, o := range []options{{nodes: 1, users: 1}, {nodes: 17, users: 1}, {nodes: 2, users: 0}, {nodes: 2, users: 1, store: "nowhere"}} {
		require.Error(t, show(t.Context(), t.Output(), o))
	}
}
