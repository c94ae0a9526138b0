package exampletest

import (
	"bufio"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ratchet-go/auth/internal/testserver"
)

// Program is a server that runs in a process of its own.
type Program struct {
	URL string // where it listens

	end    func(os.Signal) error
	stderr testserver.Output
}

// Start starts the program of testserver.RunMain, and waits until it listens. env
// are additional environment variables. The program ends with the test.
func Start(t testing.TB, env []string, args ...string) *Program {
	t.Helper()
	p := &Program{}
	cmd := testserver.Self(t, args...)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = &p.stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	var exit error
	p.end = func(sig os.Signal) error {
		once.Do(func() {
			if cmd.Process.Signal(sig) != nil {
				_ = cmd.Process.Kill()
			}
			kill := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
			defer kill.Stop()
			exit = cmd.Wait()
		})
		return exit
	}
	t.Cleanup(func() { _ = p.end(os.Kill) })
	tooLate := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer tooLate.Stop()
	lines := bufio.NewScanner(out)
	for p.URL == "" && lines.Scan() {
		_, p.URL, _ = strings.Cut(lines.Text(), "listening on ")
	}
	if p.URL == "" {
		t.Fatalf("the program did not start: %v: %s", p.end(os.Kill), p.stderr.String())
	}
	return p
}

// Stop shuts the program down, and returns the error of its exit.
func (p *Program) Stop() error { return p.end(syscall.SIGTERM) }

// Kill kills the program.
func (p *Program) Kill() { _ = p.end(os.Kill) }

// Stderr returns what the program has written to its standard error so far.
func (p *Program) Stderr() string { return p.stderr.String() }
