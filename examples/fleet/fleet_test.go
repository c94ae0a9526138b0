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

// TestFleet_NodesBehaveLikeOne runs the program on each store.
func TestFleet_NodesBehaveLikeOne(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "fleet")
	args := []string{"build", "-o", program}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(t.Context(), "go", append(args, ".")...).CombinedOutput()
	require.NoError(t, err, string(out))

	for name, store := range map[string]func(t *testing.T) string{
		"SQLite":  func(*testing.T) string { return "sqlite" },
		"Default": func(*testing.T) string { return "" },
		"Redis":   func(t *testing.T) string { return "redis://" + testserver.Redis(t).Addr + "/0" },
		"PostgreSQL": func(t *testing.T) string {
			return "postgres://postgres@" + testserver.Postgres(t).Addr + "/postgres?sslmode=disable"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := exec.CommandContext(t.Context(), program, "-nodes", "3", "-users", "6", "-store", store(t)).CombinedOutput()
			output := string(out)
			t.Log("\n" + output)
			require.NoError(t, err)
			require.Contains(t, output, "64 concurrent refreshes of one token on 3 nodes: every response has the same new token.")
			require.Regexp(t, `(?m)^ +user-5( +\d+\.\d){4}$`, output)
			require.Regexp(t, `6 users, nodes other than node 1: 50% within [\d.]+ ms`, output)
			require.Contains(t, output, "all 6 users stay signed in, 0 of 24 requests failed.")
			require.Contains(t, output, "from its first response on it refuses the session that was revoked meanwhile.")
			require.NotContains(t, output, "DATA RACE")
			for _, pid := range regexp.MustCompile(`\(pid (\d+)\)`).FindAllStringSubmatch(output, -1) {
				n, err := strconv.Atoi(pid[1])
				require.NoError(t, err)
				node, err := os.FindProcess(n)
				if err == nil {
					err = node.Signal(syscall.Signal(0))
				}
				require.ErrorIs(t, err, os.ErrProcessDone, "process %d is still running", n)
			}
		})
	}
}

func TestFleet_RefusesInvalidOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []options{{nodes: 1, users: 1}, {nodes: 17, users: 1}, {nodes: 2, users: 0}, {nodes: 2, users: 1, store: "nowhere"}} {
		require.Error(t, runDemo(t.Context(), t.Output(), o))
	}
}
