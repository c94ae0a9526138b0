package testserver

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// installRedis names the program of Redis, Sentinel and RedisCluster.
const installRedis = "redis-server (Debian package redis-server; Valkey works too)"

// Redis starts a Redis server. The server writes every command to its
// append-only file before it responds, so that acknowledged writes survive Kill.
// args are appended to its command line.
func Redis(tb testing.TB, args ...string) *Process {
	tb.Helper()
	return Server(tb, "redis-server", args...)
}

// Server is Redis with the program name, for example "valkey-server".
func Server(tb testing.TB, name string, args ...string) *Process {
	tb.Helper()
	path := program(name)
	if path == "" && name == "redis-server" {
		path = program("valkey-server")
	}
	if path == "" {
		missing(tb, installRedis)
	}
	dir, port := tb.TempDir(), FreePort(tb)
	addr := net.JoinHostPort("127.0.0.1", port)
	return newProcess(tb, addr, func() *exec.Cmd {
		return exec.Command(path, append([]string{
			"--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--daemonize", "no",
			"--appendonly", "yes", "--appendfsync", "no", // everysec delays writes during a sync
		}, args...)...)
	}, redisReady(addr))
}

// redisReady returns a function that checks that the process pid serves addr.
func redisReady(addr string) func(pid int) error {
	return func(pid int) error {
		reply, err := redisCommand(addr, "PING")
		if err != nil {
			return err
		}
		if reply != "+PONG" {
			return fmt.Errorf("PING returned %s", reply)
		}
		info, err := redisCommand(addr, "INFO", "server")
		if err == nil && !strings.Contains(info, fmt.Sprintf("\nprocess_id:%d\r", pid)) {
			err = errors.New("another server uses its port")
		}
		return err
	}
}

// Sentinel starts a Sentinel that monitors the master at addr under the name
// "master". Its quorum is 1: it starts a failover by itself when the master has
// not replied for half a second.
func Sentinel(tb testing.TB, addr string) *Process {
	tb.Helper()
	path := program("redis-server", "valkey-server")
	if path == "" {
		missing(tb, installRedis)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		tb.Fatal(err)
	}
	dir, own := tb.TempDir(), FreePort(tb)
	config := filepath.Join(dir, "sentinel.conf") // Sentinel rewrites this file
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor master %s %s 1\n"+
		"sentinel down-after-milliseconds master 500\nsentinel failover-timeout master 5000\n", own, dir, host, port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	at := net.JoinHostPort("127.0.0.1", own)
	return newProcess(tb, at, func() *exec.Cmd { return exec.Command(path, config, "--sentinel") }, redisReady(at))
}

// RedisCluster starts a cluster of three masters.
func RedisCluster(tb testing.TB) []*Process {
	tb.Helper()
	nodes := make([]*Process, 3)
	for i := range nodes {
		nodes[i] = Redis(tb, "--cluster-enabled", "yes", "--cluster-port", FreePort(tb))
	}
	do := func(addr string, command ...string) {
		tb.Helper()
		if reply, err := redisCommand(addr, command...); err != nil || strings.HasPrefix(reply, "-") {
			tb.Fatalf("%s at %s: %s %v", command[0], addr, reply, err)
		}
	}
	const slots = 16384
	for i, n := range nodes {
		do(n.Addr, "CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(i*slots/3), fmt.Sprint((i+1)*slots/3-1))
	}
	for _, n := range nodes {
		info, err := redisCommand(n.Addr, "CLUSTER", "NODES")
		if err != nil {
			tb.Fatal(err)
		}
		// <id> <ip:port@busport> ...
		_, bus, _ := strings.Cut(strings.Fields(info)[1], "@")
		bus, _, _ = strings.Cut(bus, ",")
		_, port, _ := net.SplitHostPort(n.Addr)
		do(nodes[0].Addr, "CLUSTER", "MEET", "127.0.0.1", port, bus)
	}
	end := time.Now().Add(startTimeout)
	for _, n := range nodes {
		for {
			info, err := redisCommand(n.Addr, "CLUSTER", "INFO")
			if err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3") {
				break
			}
			if time.Now().After(end) {
				tb.Fatalf("the cluster is not complete: %s %v", info, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nodes
}

// redisCommand sends a command and returns the reply, without the length line
// of a bulk string.
func redisCommand(addr string, command ...string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(command))
	for _, arg := range command {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := c.Write([]byte(b.String())); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	line = strings.TrimRight(line, "\r\n")
	if err != nil || !strings.HasPrefix(line, "$") {
		return line, err
	}
	var n int
	if _, err := fmt.Sscanf(line, "$%d", &n); err != nil || n < 0 {
		return "", err
	}
	body := make([]byte, n)
	for read := 0; read < n; {
		m, err := r.Read(body[read:])
		if err != nil {
			return "", err
		}
		read += m
	}
	return string(body), nil
}
