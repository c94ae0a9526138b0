package testserver

import (
	"os/exec"
	"syscall"
)

// endWithParent lets the kernel end a server whose test was killed or ran out
// of time, and so could not.
func endWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
