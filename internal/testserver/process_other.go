//go:build !unix

package testserver

import (
	"errors"
	"os"
	"syscall"
)

const nobody = -1

// AsNobody returns nil: on this system no test runs as root.
func AsNobody() *syscall.SysProcAttr { return nil }

// Pause is not supported on this system.
func Pause(*os.Process) error { return errors.ErrUnsupported }

// Resume is not supported on this system.
func Resume(*os.Process) error { return errors.ErrUnsupported }
