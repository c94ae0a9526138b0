package testserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Earlier builds a program from the tree of an earlier commit, and returns its
// path. source is its main package, which is compiled in a directory of module,
// a module's directory in the repository. If the repository or the commit is
// missing, or the program cannot be built, Earlier skips the test, or fails it
// with AUTH_REQUIRE_SERVICES=1. With -short, it skips the test.
func Earlier(tb testing.TB, commit, module, source string) (path string) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("skipped by -short: builds an earlier version")
	}
	git, dir := Need(tb, "git", "git"), tb.TempDir()
	run := func(in, missing, name string, args ...string) {
		cmd := exec.Command(name, args...)
		cmd.Dir = in
		cmd.Env = append(os.Environ(), "GIT_INDEX_FILE="+filepath.Join(dir, "index"), "GOWORK=off", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			unavailable(tb, fmt.Sprintf("%s: %v\n%.4000s", missing, err, out))
		}
	}
	// read-tree and checkout-index use an index of their own, so they do not
	// change the repository.
	tree := filepath.Join(dir, "tree")
	run(".", "requires the commit "+commit+" (git fetch --unshallow)", git, "rev-parse", "--quiet", "--verify", commit+"^{commit}")
	run(".", "cannot read the earlier commit", git, "read-tree", commit)
	top, err := exec.Command(git, "rev-parse", "--show-toplevel").Output()
	if err != nil {
		tb.Fatal(err)
	}
	run(string(top[:len(top)-1]), "cannot read the earlier commit", git, "checkout-index", "--all", "--prefix="+tree+"/")
	main := filepath.Join(tree, module, "earlier")
	if err := os.Mkdir(main, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(main, "main.go"), []byte(source), 0o644); err != nil {
		tb.Fatal(err)
	}
	path = filepath.Join(dir, "program")
	// With -trimpath the compiled packages are in the build cache the next time.
	run(main, "cannot build the earlier version", "go", "build", "-trimpath", "-buildvcs=false", "-o", path, ".")
	return path
}
