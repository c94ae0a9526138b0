//go:build unix

package testserver

import (
	"os"
	"syscall"
)

// nobody is the user ID that PostgreSQL and PgBouncer run as if the test runs as
// root: they refuse to run as root.
const nobody = 65534

// AsNobody returns process attributes to run a command as an unprivileged user.
// Only root can use them.
func AsNobody() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

// Pause suspends a process, without closing its connections (SIGSTOP).
func Pause(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// Resume continues a paused process (SIGCONT).
func Resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
