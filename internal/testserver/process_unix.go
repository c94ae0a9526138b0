//go:build unix

package testserver

import (
	"os"
	"syscall"
)

// nobody is the user as whom PostgreSQL and PgBouncer run where the test is
// root, which they refuse.
const nobody = 65534

// AsNobody makes a command run as a user without rights. It takes root.
func AsNobody() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

// Pause stops a process from running, without closing anything (SIGSTOP).
func Pause(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// Resume lets it run again (SIGCONT).
func Resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
