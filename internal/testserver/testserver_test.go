package testserver

import (
	"io"
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRedis_RestartsAfterKill(t *testing.T) {
	s := Redis(t)
	reply, err := redisCommand(s.Addr, "SET", "a", "1")
	require.NoError(t, err)
	require.Equal(t, "+OK", reply)
	s.Kill()
	_, err = redisCommand(s.Addr, "PING")
	require.Error(t, err)
	s.Start()
	reply, err = redisCommand(s.Addr, "GET", "a")
	require.NoError(t, err)
	require.Equal(t, "1", reply)
}

func TestRedisCluster_HasThreeNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: starts a cluster")
	}
	require.Len(t, RedisCluster(t), 3)
}

func TestPostgres_RestartsAfterKill(t *testing.T) {
	s := Postgres(t)
	s.Kill()
	require.Error(t, pgReady(s.Addr))
	s.Start()
	require.NoError(t, pgReady(s.Addr))
}

// TestProcess_DetectsAnotherServerOnItsPort starts servers on a port that another
// server already uses.
func TestProcess_DetectsAnotherServerOnItsPort(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: takes several seconds")
	}
	for name, other := range map[string]*Process{"Redis": Redis(t), "Postgres": Postgres(t)} {
		require.NoError(t, other.ready(other.PID()), name)
		require.Error(t, other.ready(other.PID()+1), name)
	}
	other := Redis(t)
	_, port, err := net.SplitHostPort(other.Addr)
	require.NoError(t, err)
	anyServer := func(int) error {
		time.Sleep(time.Second) // on a busy machine Redis needs time to find that its port is taken
		return nil
	}
	for name, ready := range map[string]func(int) error{"ready checks the process": other.ready, "ready accepts any server": anyServer} {
		p := &Process{Addr: other.Addr, tb: t, ready: ready, command: func() *exec.Cmd {
			return exec.Command(program("redis-server", "valkey-server"), "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir())
		}}
		require.ErrorContains(t, p.start(), "the server exited", name)
	}
}

// echo starts a server that sends back everything that it reads, and returns its
// address.
func echo(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().String()
}

func TestProxy_Faults(t *testing.T) {
	p := NewProxy(t, echo(t))
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.Addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	send := func(c net.Conn, text string, wait time.Duration) (string, error) {
		_, _ = c.Write([]byte(text))
		_ = c.SetReadDeadline(time.Now().Add(wait))
		b := make([]byte, len(text))
		n, err := io.ReadFull(c, b)
		return string(b[:n]), err
	}
	c := dial()
	got, err := send(c, "hello", time.Minute)
	require.NoError(t, err)
	require.Equal(t, "hello", got)

	p.CutResponses(2)
	got, err = send(c, "hello", time.Minute)
	require.Error(t, err)
	require.Equal(t, "he", got)

	c = dial()
	p.CutRequests(0)
	got, err = send(c, "hello", time.Minute)
	require.Error(t, err)
	require.Empty(t, got)

	c = dial()
	p.Hang()
	_, err = send(c, "hello", 50*time.Millisecond)
	var failed net.Error
	require.ErrorAs(t, err, &failed)
	require.True(t, failed.Timeout())
	p.Resume()
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 5)
	_, err = io.ReadFull(c, b)
	require.NoError(t, err)
	require.Equal(t, "hello", string(b))

	p.Refuse(true)
	_, err = send(c, "hello", time.Minute)
	require.Error(t, err)
	_, err = send(dial(), "hello", time.Minute)
	require.Error(t, err)
	p.Refuse(false)
	_, err = send(dial(), "hello", time.Minute)
	require.NoError(t, err)
}
