//go:build !unix

package testserver

import (
	"errors"
	"os"
	"syscall"
)

const nobody = -1

// AsNobody does nothing here, where no test is root.
func AsNobody() *syscall.SysProcAttr { return nil }

// Pause is not possible here.
func Pause(*os.Process) error { return errors.ErrUnsupported }

// Resume is not possible here.
func Resume(*os.Process) error { return errors.ErrUnsupported }
