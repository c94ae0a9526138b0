//go:build unix

package main

import (
	"os/exec"
	"syscall"
	"time"
)

// contain lets the end of a context also end the programs that a test has started.
func contain(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
}
