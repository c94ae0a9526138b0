// Package testserver starts private servers on loopback for tests and
// benchmarks: real ones, from the programs that are installed, each in a
// folder and on a port of its own. They end with the test, by their own
// process.
package testserver

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// patience is how long a server may take to come up.
	patience = 30 * time.Second

	// settled is how long it must then live to count as started: what answered
	// may be another server, that took the port first.
	settled = 50 * time.Millisecond
)

// Need skips the test, or fails it with AUTH_REQUIRE_SERVICES=1: install says
// what is missing.
func Need(tb testing.TB, install string) {
	tb.Helper()
	if os.Getenv("AUTH_REQUIRE_SERVICES") == "1" {
		tb.Fatalf("not installed: %s", install)
	}
	tb.Skipf("not installed: %s", install)
}

// program returns the path of the first of names that is installed, or "".
func program(names ...string) string {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// FreePort returns a TCP port of 127.0.0.1 on which nothing listens.
func FreePort(tb testing.TB) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("no free port: %v", err)
	}
	defer ln.Close()
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}

// Process is a server that can be killed, stopped and started again.
type Process struct {
	Addr string // host:port

	tb    testing.TB
	make  func() *exec.Cmd
	ready func(pid int) error

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	out    output
}

// output is what a server printed.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// newProcess starts a server, and ends it with the test.
func newProcess(tb testing.TB, addr string, cmd func() *exec.Cmd, ready func(pid int) error) *Process {
	tb.Helper()
	p := &Process{Addr: addr, tb: tb, make: cmd, ready: ready}
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			lines := strings.Split(strings.TrimSpace(p.out.String()), "\n")
			tb.Logf("%s:\n%s", addr, strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	})
	p.Start()
	return p
}

// Start starts the server, and waits until it answers.
func (p *Process) Start() {
	p.tb.Helper()
	err := p.start()
	for end := time.Now().Add(patience); err != nil && time.Now().Before(end); err = p.start() {
		time.Sleep(100 * time.Millisecond) // children of one that was killed may still hold what it needs
	}
	if err != nil {
		p.tb.Fatalf("starting the server at %s: %v\n%s", p.Addr, err, p.out.String())
	}
}

func (p *Process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := p.make()
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	endWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	p.cmd, p.exited = cmd, exited
	end := time.Now().Add(patience)
	for {
		err := p.ready(cmd.Process.Pid)
		pause := 20 * time.Millisecond
		if err == nil {
			pause = settled
		}
		select {
		case <-exited:
			return fmt.Errorf("it ended by itself (%s); another server may have its port", cmd.ProcessState)
		case <-time.After(pause):
		}
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("it did not answer within %s: %w", patience, err)
		}
	}
}

// Kill ends the server at once, as a fault would (SIGKILL).
func (p *Process) Kill() { p.end(os.Kill) }

// Stop ends the server in an orderly way (SIGTERM).
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

// Pause stops the server from running, without closing anything (SIGSTOP).
func (p *Process) Pause() { p.do(Pause) }

// Resume lets it run again.
func (p *Process) Resume() { p.do(Resume) }

// PID returns the process id.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

func (p *Process) do(f func(*os.Process) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = f(p.cmd.Process)
	}
}

func (p *Process) end(s os.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	if p.cmd.Process.Signal(s) != nil {
		_ = p.cmd.Process.Kill() // this system knows no other way; or it has ended
	}
	if s != os.Kill {
		_ = Resume(p.cmd.Process)
	}
	<-p.exited
}
