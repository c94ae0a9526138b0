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

// InstallPostgres says what Postgres needs.
const InstallPostgres = "postgres and initdb, 13 or newer (Debian's package postgresql)"

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
	dir, as := privateFolder(tb, "postgres-test-")
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
	if knows, err := command(postgres, "--describe-config").Output(); err == nil && strings.Contains(string(knows), "recovery_init_sync_method") {
		settings = append(settings, "-c", "recovery_init_sync_method=syncfs") // not every file by itself, which takes seconds
	}
	return newProcess(tb, addr, func() *exec.Cmd {
		return command(postgres, append(slices.Clone(settings), args...)...)
	}, func(pid int) error {
		lock, err := os.ReadFile(filepath.Join(data, "postmaster.pid")) // its first line is its process
		if lines := strings.Split(string(lock), "\n"); err == nil && lines[0] != strconv.Itoa(pid) {
			err = errors.New("it has not begun")
		}
		if err != nil {
			return err
		}
		return pgReady(addr)
	})
}

// pgReady checks that PostgreSQL at addr accepts sessions: it answers a startup
// packet with anything but an error.
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
		return fmt.Errorf("it answers %q", kind)
	}
	return nil
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

// InstallPgBouncer says what PgBouncer needs.
const InstallPgBouncer = "pgbouncer (Debian's package pgbouncer)"

// PgBouncer starts a PgBouncer before the PostgreSQL server at addr, that pools
// transactions: two that follow each other on one connection of a client may
// run on different ones of the server. settings are lines of its section
// [pgbouncer].
func PgBouncer(tb testing.TB, addr string, settings ...string) *Process {
	tb.Helper()
	path := program("pgbouncer", "/usr/sbin/pgbouncer")
	if path == "" {
		Need(tb, InstallPgBouncer)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		tb.Fatal(err)
	}
	dir, as := privateFolder(tb, "pgbouncer-test-")
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
	// auth_type any logs everybody in as the user that the database line names.
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

// privateFolder makes a folder for a server that refuses to run as root, and
// says as whom it runs.
func privateFolder(tb testing.TB, pattern string) (dir string, as *syscall.SysProcAttr) {
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
