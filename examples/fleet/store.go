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

// location is where the store is: a file, or a server if url is set.
type location struct {
	file string
	url  string // may contain a password
}

// openStore opens the store that all nodes share. It pings a server first. close
// closes its connections.
func openStore(ctx context.Context, where location) (store auth.Store, closeStore func(), err error) {
	scheme, _, _ := strings.Cut(where.url, ":")
	switch scheme {
	case "":
		s, err := sqlitestore.Open(where.file, sqlitestore.Config{})
		if err != nil {
			return nil, nil, err
		}
		return s, func() { _ = s.Close() }, nil
	case "redis", "rediss":
		o, err := redis.ParseURL(where.url)
		if err != nil {
			return nil, nil, err
		}
		o.ContextTimeoutEnabled = true
		client := redis.NewClient(o)
		s, err := redisstore.New(client, redisstore.Config{Prefix: "fleet"})
		if err == nil {
			err = client.Ping(ctx).Err()
		}
		if err != nil {
			_ = client.Close()
			return nil, nil, err
		}
		return s, func() { _ = client.Close() }, nil
	}
	config, err := pgxpool.ParseConfig(where.url)
	if err != nil {
		text := err.Error() // cannot parse `URL`: reason
		return nil, nil, errors.New("invalid URL" + text[strings.LastIndex(text, "`")+1:])
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, nil, err
	}
	s, err := pgstore.New(pool, pgstore.Config{})
	if err == nil {
		err = pool.Ping(ctx)
	}
	if err == nil {
		err = s.Migrate(ctx) // safe to call from every node: they take turns
	}
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	return s, pool.Close, nil
}

// parseStoreURL checks the URL of a server. The result has a lower-case scheme,
// and a description that contains no password. Errors do not contain the URL,
// because it may contain one.
func parseStoreURL(named string) (where location, description string, err error) {
	const want = "want the word sqlite, or a URL such as redis://HOST:PORT/DB or postgres://USER:PASSWORD@HOST:PORT/DB"
	u, err := url.Parse(named)
	if err != nil {
		return location{}, "", errors.New("-store is not a valid URL; " + want)
	}
	var kind string
	switch u.Scheme {
	case "redis", "rediss":
		kind = "Redis"
	case "postgres", "postgresql":
		kind = "PostgreSQL"
	case "":
		return location{}, "", errors.New("-store is not a URL; " + want)
	default:
		return location{}, "", fmt.Errorf("-store: unknown scheme %q; %s", u.Scheme, want)
	}
	if u.Hostname() == "" {
		return location{}, "", fmt.Errorf("-store: the %s URL has no host; %s", u.Scheme, want)
	}
	return location{url: u.Scheme + named[len(u.Scheme):]}, kind + " at " + u.Host + u.Path, nil
}

// pingTimeout is how long the store may take to respond when the program starts.
const pingTimeout = 5 * time.Second

// chosenStore is the store of the nodes, and its description for the output.
type chosenStore struct {
	location
	description string
}

// startStore returns the named store. Without a name it starts a private redis-server
// if one is installed, and otherwise uses a temporary SQLite file.
func startStore(ctx context.Context, named string) (chosenStore, func(), error) {
	if named != "" && named != "sqlite" {
		where, description, err := parseStoreURL(named)
		if err != nil {
			return chosenStore{}, nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		_, closeStore, err := openStore(ctx, where) // so that one process reports an error, not each node
		if err != nil {
			if ctx.Err() != nil {
				err = fmt.Errorf("no response within %s: %w", pingTimeout, err)
			}
			return chosenStore{}, nil, fmt.Errorf("-store: %s: %w", description, err)
		}
		closeStore()
		return chosenStore{where, description}, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "fleet-")
	if err != nil {
		return chosenStore{}, nil, err
	}
	remove := func() { _ = os.RemoveAll(dir) }
	program, err := exec.LookPath("redis-server")
	if err != nil || named == "sqlite" {
		file := filepath.Join(dir, "sessions.db")
		return chosenStore{location{file: file}, "SQLite, " + file}, remove, nil
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
			return chosenStore{location{url: "redis://" + addr + "/0"}, fmt.Sprintf("%s on %s (private, pid %d)", program, addr, cmd.Process.Pid)}, end, nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	end()
	return chosenStore{}, nil, fmt.Errorf("%s is not ready: %w", program, err)
}
