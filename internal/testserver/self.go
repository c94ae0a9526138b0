package testserver

import (
	"os"
	"os/exec"
	"testing"
)

// selfEnv is set in the environment of the processes that Self starts.
const selfEnv = "TESTSERVER_RUN_MAIN"

// RunMain is for the TestMain of a program. In a process that Self started, it
// runs the program, which is main, instead of the tests. So tests use the program
// like a user, with flags, an environment, signals and an exit code, and need no
// other build of it.
func RunMain(m *testing.M, main func()) {
	if os.Getenv(selfEnv) == "1" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Self returns a command that runs the program of RunMain.
func Self(tb testing.TB, args ...string) *exec.Cmd {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), selfEnv+"=1")
	return cmd
}

// Need returns the path of a program. If it is not installed, Need skips the
// test, or fails it with AUTH_REQUIRE_SERVICES=1; debian is the package that has
// the program. With -short, it skips tests that need chromium.
func Need(tb testing.TB, name, debian string) string {
	tb.Helper()
	if testing.Short() && name == "chromium" {
		tb.Skip("skipped by -short: starts a browser")
	}
	path := program(name)
	if path == "" {
		missing(tb, name+": apt-get install "+debian)
	}
	return path
}
