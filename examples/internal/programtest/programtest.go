// Package programtest runs a program of the examples in its tests.
package programtest

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ratchet-go/auth/internal/testserver"
)

// Program is a running program.
type Program struct {
	Base   string            // its URL, such as http://127.0.0.1:8080
	Output testserver.Output // what it has written so far
	Stop   func() error      // sends SIGTERM, once, and returns the error of the exit
}

// Start starts the program of testserver.RunMain with -addr addr, and returns when
// it listens. env is added to its environment. The program ends with the test.
func Start(t *testing.T, addr string, env []string, args ...string) *Program {
	t.Helper()
	cmd := testserver.Self(t, append([]string{"-addr", addr}, args...)...)
	cmd.Env = append(cmd.Env, env...)
	p := &Program{}
	cmd.Stdout, cmd.Stderr = &p.Output, &p.Output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	var exit error
	go func() {
		exit = cmd.Wait()
		close(exited)
	}()
	var once sync.Once
	p.Stop = func() error {
		once.Do(func() { end(cmd, exited) })
		return exit
	}
	t.Cleanup(func() {
		_ = p.Stop()
		if t.Failed() {
			t.Logf("output of the program at %s:\n%s", p.Base, p.Output.String())
		}
	})
	for range time.Tick(10 * time.Millisecond) {
		_, rest, found := strings.Cut(p.Output.String(), "listening on ")
		if line, _, ended := strings.Cut(rest, "\n"); found && ended {
			p.Base = line
			break
		}
		select {
		case <-exited:
			t.Fatalf("the program exited: %v: %s", exit, p.Output.String())
		default:
		}
	}
	return p
}

func end(cmd *exec.Cmd, exited <-chan struct{}) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-exited:
	case <-time.After(15 * time.Second):
		_ = cmd.Process.Signal(os.Kill)
		<-exited
	}
}
