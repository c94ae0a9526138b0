package testserver

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// installPostgres names the programs of Postgres.
const installPostgres = "postgres and initdb, 13 or newer (Debian package postgresql)"

// Postgres starts a PostgreSQL server with the database "postgres" and the
// superuser "postgres", which needs no password. Committed data survives Kill.
// Kill kills only the postmaster; its other processes notice that and exit.
// args are appended to its command line.
func Postgres(tb testing.TB, args ...string) *Process {
	tb.Helper()
	if testing.Short() {
		tb.Skip("skipped by -short: starts PostgreSQL")
	}
	initdb, postgres := postgresPrograms()
	if initdb == "" || postgres == "" {
		missing(tb, installPostgres)
	}
	dir, as := privateDir(tb, "postgres-test-")
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
	settings := []string{
		"-D", data, "-p", port,
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200",
	}
	if names, err := command(postgres, "--describe-config").Output(); err == nil && strings.Contains(string(names), "recovery_init_sync_method") {
		settings = append(settings, "-c", "recovery_init_sync_method=syncfs") // syncing each file takes seconds
	}
	return newProcess(tb, addr, func() *exec.Cmd {
		return command(postgres, append(slices.Clone(settings), args...)...)
	}, func(pid int) error {
		lock, err := os.ReadFile(filepath.Join(data, "postmaster.pid")) // the first line is the process ID
		if lines := strings.Split(string(lock), "\n"); err == nil && lines[0] != strconv.Itoa(pid) {
			err = errors.New("the server has not written its postmaster.pid")
		}
		if err != nil {
			return err
		}
		return pgReady(addr)
	})
}

// pgReady checks that the PostgreSQL server at addr accepts sessions: it sends a
// startup packet and expects an authentication message.
func pgReady(addr string) error {
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
		return fmt.Errorf("the response to a startup packet is %q, want %q", kind, "R")
	}
	return nil
}

// postgresPrograms returns the paths of initdb and postgres, in $PATH or of the
// newest version in Debian's directories, which are not in $PATH.
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

// installPgBouncer names the program of PgBouncer.
const installPgBouncer = "pgbouncer (Debian package pgbouncer)"

// PgBouncer starts a PgBouncer for the PostgreSQL server at addr, with
// transaction pooling: consecutive transactions on one client connection may run
// on different server connections. settings are lines of the section [pgbouncer]
// of its configuration.
func PgBouncer(tb testing.TB, addr string, settings ...string) *Process {
	tb.Helper()
	path := program("pgbouncer", "/usr/sbin/pgbouncer")
	if path == "" {
		missing(tb, installPgBouncer)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		tb.Fatal(err)
	}
	dir, as := privateDir(tb, "pgbouncer-test-")
	own := FreePort(tb)
	config := filepath.Join(dir, "pgbouncer.ini")
	lines := append([]string{
		"[databases]",
		"* = host=" + host + " port=" + port,
		"[pgbouncer]",
		"listen_addr = 127.0.0.1", "listen_port = " + own, "unix_socket_dir =",
		"auth_type = any", "pool_mode = transaction", "default_pool_size = 20", "max_client_conn = 1000",
		"ignore_startup_parameters = extra_float_digits",
	}, settings...)
	// With auth_type any, every client logs in as the user of the database line.
	lines[1] += " user=postgres"
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		tb.Fatal(err)
	}
	own = net.JoinHostPort("127.0.0.1", own)
	return newProcess(tb, own, func() *exec.Cmd {
		cmd := exec.Command(path, config)
		cmd.SysProcAttr, cmd.Dir = as, dir
		return cmd
	}, func(int) error { return pgReady(own) })
}

// privateDir creates a directory for a server that refuses to run as root. It
// returns the process attributes to run the server as the directory's owner.
func privateDir(tb testing.TB, pattern string) (dir string, as *syscall.SysProcAttr) {
	tb.Helper()
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	if os.Getuid() == 0 {
		as = AsNobody()
		if err := os.Chown(dir, nobody, nobody); err != nil {
			tb.Fatal(err)
		}
	}
	return dir, as
}
