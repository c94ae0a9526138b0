package main

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

// TestFleet_NodesBehaveLikeOne runs the program on each store.
func TestFleet_NodesBehaveLikeOne(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts many processes")
	}
	t.Parallel()
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
			out, err := testserver.Self(t, "-nodes", "3", "-users", "6", "-store", store(t)).CombinedOutput()
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
	for _, o := range []options{{nodes: 1, users: 1}, {nodes: 17, users: 1}, {nodes: 2, users: 0}} {
		require.ErrorContains(t, runDemo(t.Context(), t.Output(), o), "must be between")
	}
	out, err := testserver.Self(t, "sqlite").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), `unexpected argument "sqlite"`)
}

// TestFleet_RefusesStoresItCannotUse also checks that no password of a URL is
// printed.
func TestFleet_RefusesStoresItCannotUse(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: waits for timeouts")
	}
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and says nothing
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	closed := "127.0.0.1:" + testserver.FreePort(t)
	for store, want := range map[string]string{
		"nowhere":                                               "is not a URL",
		"SQLITE":                                                "is not a URL",
		"/tmp/sessions.db":                                      "is not a URL",
		"sqlite:sessions.db":                                    `unknown scheme "sqlite"`,
		"mysql://u:hunter2@127.0.0.1/":                          `unknown scheme "mysql"`,
		"http://127.0.0.1":                                      `unknown scheme "http"`,
		"redis://":                                              "has no host",
		"redis:127.0.0.1":                                       "has no host",
		"rediss://:6379/0":                                      "has no host",
		"postgres:///db":                                        "has no host",
		"redis://u:hunter2%zz@h/0":                              "not a valid URL",
		"postgres://u:hunter2#x@h/db":                           "not a valid URL",
		"redis://u:hunter2@" + closed + "/first":                "invalid database number",
		"redis://u:hunter2@" + closed:                           "Redis at " + closed + ": dial tcp",
		"REDIS://u:hunter2@" + closed:                           "Redis at " + closed + ": dial tcp",
		"redis://u:hunter2@" + silent.Addr().String():           "no response within 5s",
		"postgres://u:hunter2@" + closed + "/db":                "PostgreSQL at " + closed + "/db: failed to connect",
		"Postgresql://u@" + closed + "/db?password=hunter2":     "PostgreSQL at " + closed + "/db: failed to connect",
		"postgres://u@127.0.0.1:99999/db?password=hunter2":      "invalid port",
		"postgres://u:hunter2@" + closed + "/db?sslmode=hunter": "sslmode is invalid",
	} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			out, err := testserver.Self(t, "-store", store).CombinedOutput()
			require.Error(t, err)
			require.Contains(t, string(out), want, store)
			require.True(t, strings.HasPrefix(string(out), "fleet: -store"), "%s: %s", store, out)
			require.NotContains(t, string(out), "hunter2")
			require.NotContains(t, string(out), "node 1")
		})
	}
}

// TestFleet_ServePrintsCommandsThatWork pastes the commands into a shell.
func TestFleet_ServePrintsCommandsThatWork(t *testing.T) {
	t.Parallel()
	testserver.Need(t, "curl", "curl")
	cmd := testserver.Self(t, "-nodes", "2", "-users", "1", "-store", "sqlite", "-serve")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		require.NoError(t, cmd.Wait())
	}()
	script := ""
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Serving until interrupted") {
	}
	require.True(t, lines.Scan(), "the program must print commands")
	for lines.Scan() && lines.Text() != "" {
		script += lines.Text() + "\n"
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Regexp(t, `^(user-1, session \S+, served by pid \d+\n){2}204\n\{.*"action":"login","reason":"revoked"\}\n? 401\n$`, string(out))
	served := regexp.MustCompile(`pid (\d+)`).FindAllStringSubmatch(string(out), -1)
	require.NotEqual(t, served[0][1], served[1][1], "the nodes take turns")
}
