package exampletest

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ratchet-go/auth/internal/testserver"
)

// address is the line with which a program reports that it listens.
var address = regexp.MustCompile(`(?m)^(?:Ratchet )?\w+ on (.*)\n`)

// Program is a server that runs in a process of its own.
type Program struct {
	URL string // what it prints after "listening on ", or after other words and " on "

	output testserver.Output
	end    func(os.Signal) error
}

// Start starts the program of testserver.RunMain as Run does. env are additional
// environment variables.
func Start(t testing.TB, env []string, args ...string) *Program {
	t.Helper()
	cmd := testserver.Self(t, args...)
	cmd.Env = append(cmd.Env, env...)
	return Run(t, cmd)
}

// Run starts the command, and returns when it listens. It ends with the test, which
// fails if the race detector has reported something in it.
func Run(t testing.TB, cmd *exec.Cmd) *Program {
	t.Helper()
	p := &Program{}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	var exit error
	go func() {
		exit = cmd.Wait()
		close(exited)
	}()
	p.end = func(sig os.Signal) error {
		if cmd.Process.Signal(sig) != nil {
			_ = cmd.Process.Kill()
		}
		select {
		case <-exited:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			<-exited
		}
		return exit
	}
	t.Cleanup(func() {
		p.Kill()
		if strings.Contains(p.Output(), "WARNING: DATA RACE") {
			t.Error("the program has a data race")
		}
		if t.Failed() {
			t.Logf("output of the program at %s:\n%s", p.URL, p.Output())
		}
	})
	tooLate := time.After(time.Minute)
	for {
		if line := address.FindStringSubmatch(p.Output()); line != nil {
			p.URL = line[1]
			return p
		}
		select {
		case <-exited:
			t.Fatalf("the program exited: %v: %s", exit, p.Output())
		case <-tooLate:
			t.Fatalf("the program does not listen: %s", p.Output())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Stop shuts the program down, and returns the error of its exit.
func (p *Program) Stop() error { return p.end(syscall.SIGTERM) }

// Kill kills the program.
func (p *Program) Kill() { _ = p.end(os.Kill) }

// Output returns what the program has written so far, also to its standard error.
func (p *Program) Output() string { return p.output.String() }
