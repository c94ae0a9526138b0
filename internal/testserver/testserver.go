// Package testserver starts servers on the loopback interface for tests and
// benchmarks. It runs the programs that are installed on the machine, each
// server in a directory and on a port of its own, and stops them when the test
// ends.
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
	// startTimeout is how long a server may take to start.
	startTimeout = 30 * time.Second

	// settleTime is how long a server must then keep running to count as started:
	// the response may be from another server that took the port first.
	settleTime = 50 * time.Millisecond
)

// missing skips the test, or fails it with AUTH_REQUIRE_SERVICES=1. install
// names the program that is missing and how to install it.
func missing(tb testing.TB, install string) {
	tb.Helper()
	unavailable(tb, "not installed: "+install)
}

// unavailable skips the test, or fails it with AUTH_REQUIRE_SERVICES=1.
func unavailable(tb testing.TB, why string) {
	tb.Helper()
	if os.Getenv("AUTH_REQUIRE_SERVICES") == "1" {
		tb.Fatal(why)
	}
	tb.Skip(why)
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

// FreePort returns a TCP port on which nothing listens at 127.0.0.1.
func FreePort(tb testing.TB) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("finding a free port: %v", err)
	}
	defer ln.Close()
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}

// Process is a server that can be killed, stopped, paused and started again.
type Process struct {
	Addr string // host:port

	tb      testing.TB
	command func() *exec.Cmd
	ready   func(pid int) error

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	out    Output
}

// Output holds what a program has written so far. It may be read while the
// program writes.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// newProcess starts a server, and kills it when the test ends. ready returns
// nil once the process pid accepts requests.
func newProcess(tb testing.TB, addr string, command func() *exec.Cmd, ready func(pid int) error) *Process {
	tb.Helper()
	p := &Process{Addr: addr, tb: tb, command: command, ready: ready}
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			lines := strings.Split(strings.TrimSpace(p.out.String()), "\n")
			tb.Logf("last output of the server at %s:\n%s", addr, strings.Join(lines[max(0, len(lines)-20):], "\n"))
		}
	})
	p.Start()
	return p
}

// Start starts the server, and waits until it accepts requests.
func (p *Process) Start() {
	p.tb.Helper()
	err := p.start()
	for end := time.Now().Add(startTimeout); err != nil && time.Now().Before(end); err = p.start() {
		time.Sleep(100 * time.Millisecond) // children of a killed server may still use its port or files
	}
	if err != nil {
		p.tb.Fatalf("starting the server at %s: %v\n%s", p.Addr, err, p.out.String())
	}
}

func (p *Process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := p.command()
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
	end := time.Now().Add(startTimeout)
	for {
		err := p.ready(cmd.Process.Pid)
		pause := 20 * time.Millisecond
		if err == nil {
			pause = settleTime
		}
		select {
		case <-exited:
			return fmt.Errorf("the server exited (%s); another server may use its port", cmd.ProcessState)
		case <-time.After(pause):
		}
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the server was not ready within %s: %w", startTimeout, err)
		}
	}
}

// Kill kills the server (SIGKILL), and waits until it has exited.
func (p *Process) Kill() { p.end(os.Kill) }

// Stop shuts the server down (SIGTERM), and waits until it has exited.
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

// Pause suspends the server, without closing its connections (SIGSTOP).
func (p *Process) Pause() { p.do(Pause) }

// Resume continues a paused server (SIGCONT).
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
		_ = p.cmd.Process.Kill() // the signal is not supported here, or the server has exited
	}
	if s != os.Kill {
		_ = Resume(p.cmd.Process)
	}
	<-p.exited
}
