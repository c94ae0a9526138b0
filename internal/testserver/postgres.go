package testserver

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// InstallPostgres says what Postgres needs.
const InstallPostgres = "postgres and initdb, 13 or newer (Debian's package postgresql)"

// nobody is the user as whom PostgreSQL runs where the test is root, which it
// refuses.
const nobody = 65534

// Postgres starts a PostgreSQL server, with the database "postgres" and the
// superuser "postgres", who needs no password. What was committed survives
// Kill, which ends the postmaster alone: its other processes see that and end
// too. args come last on its command line.
func Postgres(tb testing.TB, args ...string) *Process {
	tb.Helper()
	initdb, postgres := postgresPrograms()
	if initdb == "" || postgres == "" {
		Need(tb, InstallPostgres)
	}
	dir, err := os.MkdirTemp("", "postgres-test-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	var as *syscall.SysProcAttr
	if os.Getuid() == 0 {
		as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			tb.Fatal(err)
		}
	}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(name, args...)
		cmd.SysProcAttr, cmd.Dir = as, dir
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "HOME="+dir)
		return cmd
	}
	data := filepath.Join(dir, "data")
	out, err := command(initdb, "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8").CombinedOutput()
	if err != nil {
		tb.Fatalf("initdb: %v\n%s", err, out)
	}
	port := FreePort(tb)
	addr := net.JoinHostPort("127.0.0.1", port)
	return newProcess(tb, addr, func() *exec.Cmd {
		return command(postgres, append([]string{
			"-D", data, "-p", port,
			"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200",
		}, args...)...)
	}, pgReady(addr))
}

// pgReady returns a check that PostgreSQL at addr accepts sessions: it answers
// a startup packet with anything but an error.
func pgReady(addr string) func() error {
	return func() error {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		body := "\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
		if _, err := c.Write(append([]byte{0, 0, 0, byte(len(body) + 4)}, body...)); err != nil {
			return err
		}
		kind := make([]byte, 1)
		if _, err := c.Read(kind); err != nil {
			return err
		}
		if kind[0] != 'R' {
			return fmt.Errorf("it answers %q", kind)
		}
		return nil
	}
}

// postgresPrograms finds the newest installed; Debian keeps them off the path.
func postgresPrograms() (initdb, postgres string) {
	initdb, postgres = program("initdb"), program("postgres")
	if initdb != "" && postgres != "" {
		return initdb, postgres
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		return "", ""
	}
	slices.Sort(found)
	bin := filepath.Dir(found[len(found)-1])
	return program(filepath.Join(bin, "initdb")), program(filepath.Join(bin, "postgres"))
}
