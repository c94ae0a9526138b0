package authclient

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, program) }

// program is the program that tests start as other processes.
func program() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(name string, args []string) error {
	ctx := context.Background()
	switch name {
	case "increment": // FILE TIMES
		n, err := strconv.Atoi(args[1])
		for range n {
			if err == nil {
				err = increment(ctx, FileStore(args[0]))
			}
		}
		return err
	case "lock": // FILE: until it is killed
		return FileStore(args[0]).Update(ctx, func([]byte) ([]byte, error) {
			fmt.Println("locked")
			select {}
		})
	}
	return fmt.Errorf("no program %s", name)
}

func command(t *testing.T, name string, args ...string) *exec.Cmd {
	return testserver.Self(t, append([]string{name}, args...)...)
}
