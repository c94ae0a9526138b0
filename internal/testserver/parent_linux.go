package testserver

import (
	"os/exec"
	"syscall"
)

// endWithParent makes the kernel kill a server when its test process exits, also
// if the test was killed or timed out.
func endWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
