package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/pgstore"
	"github.com/ratchet-go/auth/redisstore"
	"github.com/ratchet-go/auth/sqlitestore"
)

// openStore opens the store that all nodes share.
func openStore(ctx context.Context, where string) (auth.Store, error) {
	switch {
	case strings.HasPrefix(where, "redis://"), strings.HasPrefix(where, "rediss://"):
		o, err := redis.ParseURL(where)
		if err != nil {
			return nil, err
		}
		o.ContextTimeoutEnabled = true
		return redisstore.New(redis.NewClient(o), redisstore.Config{Prefix: "fleet"})
	case strings.HasPrefix(where, "postgres://"), strings.HasPrefix(where, "postgresql://"):
		pool, err := pgxpool.New(ctx, where)
		if err != nil {
			return nil, err
		}
		s, err := pgstore.New(pool, pgstore.Config{})
		if err != nil {
			return nil, err
		}
		return s, s.Migrate(ctx) // safe to call from every node: they take turns
	}
	return sqlitestore.Open(where, sqlitestore.Config{})
}

// chosenStore is the store of the nodes, and its description for the output.
type chosenStore struct{ url, description string }

// startStore returns the named store. Without a name it starts a private redis-server
// if one is installed, and otherwise uses a temporary SQLite file.
func startStore(ctx context.Context, named string) (chosenStore, func(), error) {
	if named != "" && named != "sqlite" {
		u, err := url.Parse(named)
		if err != nil || u.Host == "" {
			return chosenStore{}, nil, errors.New("-store must be \"sqlite\" or the URL of a Redis or PostgreSQL server")
		}
		return chosenStore{named, u.Redacted()}, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "fleet-")
	if err != nil {
		return chosenStore{}, nil, err
	}
	remove := func() { _ = os.RemoveAll(dir) }
	program, err := exec.LookPath("redis-server")
	if err != nil || named == "sqlite" {
		file := filepath.Join(dir, "sessions.db")
		return chosenStore{file, "SQLite, " + file}, remove, nil
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		remove()
		return chosenStore{}, nil, err
	}
	addr := ln.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	_ = ln.Close()
	cmd := exec.CommandContext(ctx, program, "--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "yes")
	if err := cmd.Start(); err != nil {
		remove()
		return chosenStore{}, nil, err
	}
	end := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		remove()
	}
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer client.Close()
	for range 200 {
		if err = client.Ping(ctx).Err(); err == nil {
			return chosenStore{"redis://" + addr + "/0", fmt.Sprintf("%s on %s (private, pid %d)", program, addr, cmd.Process.Pid)}, end, nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	end()
	return chosenStore{}, nil, fmt.Errorf("%s is not ready: %w", program, err)
}
