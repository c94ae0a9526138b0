// Command fleet runs an application as several processes on one store, behind a
// round-robin proxy. It shows that they behave like one process:
//
//   - 64 concurrent refreshes of one token, spread over all nodes, rotate it once;
//   - after "sign out everywhere" every node refuses the user, and the program
//     prints how long that took;
//   - killing a node signs no user out.
//
// Usage:
//
//	go run ./examples/fleet                                  a private redis-server if installed, otherwise an SQLite file
//	go run ./examples/fleet -nodes 5 -serve                  keep serving, to try it with curl
//	go run ./examples/fleet -store redis://127.0.0.1:6379/0
//	go run ./examples/fleet -store postgres://user@127.0.0.1/db
//	go run ./examples/fleet -store sqlite
//
// A server that -store names keeps the sessions of the program until they expire.
// Without -serve the program exits after a few seconds. If a check fails, it
// exits with an error.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9/logging"
)

func main() {
	node := flag.Bool("node", false, "run one node; for internal use")
	var o options
	flag.IntVar(&o.nodes, "nodes", 3, "number of processes, 2 to 16")
	flag.IntVar(&o.users, "users", 20, "number of users that sign out everywhere, 1 to 1000")
	flag.StringVar(&o.store, "store", "", "URL of a Redis or PostgreSQL server, or \"sqlite\"")
	flag.BoolVar(&o.serve, "serve", false, "keep serving until interrupted")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "fleet: unexpected argument %q; there are only flags (see -help)\n", flag.Arg(0))
		os.Exit(2)
	}
	logging.Disable() // go-redis logs each attempt to connect; the program reports the error itself
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *node {
		err = serveNode(os.Stdin, os.Stdout)
	} else {
		err = runDemo(ctx, os.Stdout, o)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "fleet: %v\n", err)
		os.Exit(1)
	}
}

type options struct {
	nodes, users int
	store        string
	serve        bool
}

// runDemo starts the nodes and runs the steps of the demo.
func runDemo(ctx context.Context, out io.Writer, o options) error {
	if o.nodes < 2 || o.nodes > 16 || o.users < 1 || o.users > 1000 {
		return errors.New("-nodes must be between 2 and 16, and -users between 1 and 1000")
	}
	store, endStore, err := startStore(ctx, o.store)
	if err != nil {
		return err
	}
	defer endStore()
	fmt.Fprintf(out, "store: %s\n", store.description)

	f := &fleet{setup: nodeSetup{File: store.file, URL: store.url, Secret: rand.Text() + rand.Text()}}
	defer f.end()
	for range o.nodes {
		n, err := f.start(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "node %d: http://%s (pid %d)\n", n.number, n.addr, n.pid())
	}
	proxy, err := startProxy(f)
	if err != nil {
		return err
	}
	defer proxy.Close()
	fmt.Fprintf(out, "proxy:  http://%s (round robin)\n\n", proxy.Addr)

	d := &demo{ctx: ctx, out: out, fleet: f, proxy: proxy.Addr}
	for _, step := range []func(users int) error{d.refreshAtOnce, d.signOutEverywhere, d.killOne} {
		if err := step(o.users); err != nil {
			return err
		}
	}
	if o.serve {
		fmt.Fprintf(out, "\nServing until interrupted (Ctrl-C). Paste these lines into another shell:\n\n"+serveCommands, proxy.Addr, demoPassword)
		<-ctx.Done()
	}
	return nil
}

// serveCommands are the shell commands to try with -serve. The nodes take turns,
// so the responses of GET /me name different processes.
const serveCommands = `ACCESS=$(curl -s http://%[1]s/auth/login -d login=user-1 -d password=%[2]s | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
curl -s http://%[1]s/me -H "Authorization: Bearer $ACCESS"
curl -s http://%[1]s/me -H "Authorization: Bearer $ACCESS"
curl -s -w '%%{http_code}\n' -X POST http://%[1]s/auth/logout/all -H "Authorization: Bearer $ACCESS"
sleep 1 # the other nodes read the revocation within milliseconds
curl -s -w ' %%{http_code}\n' http://%[1]s/me -H "Authorization: Bearer $ACCESS"

`

// demo runs the steps of the demo as a client of the nodes.
type demo struct {
	ctx   context.Context
	out   io.Writer
	fleet *fleet
	proxy string
}

// refreshAtOnce refreshes one token many times at once, on all nodes.
func (d *demo) refreshAtOnce(int) error {
	c, err := d.signIn("user-1")
	if err != nil {
		return err
	}
	const many = 64
	type response struct {
		status int
		token  string
		err    error
	}
	responses := make(chan response, many)
	for range many {
		go func() {
			status, body, err := d.post(d.proxy, "/auth/refresh", map[string]string{"refresh_token": c.Refresh})
			responses <- response{status, body.Refresh, err}
		}()
	}
	tokens := map[string]int{}
	for range many {
		r := <-responses
		if r.err != nil || r.status != 200 {
			return fmt.Errorf("refresh: status %d: %w", r.status, r.err)
		}
		tokens[r.token]++
	}
	if len(tokens) != 1 || tokens[c.Refresh] != 0 {
		return fmt.Errorf("%d refreshes of one token returned %d different tokens, want 1 new token", many, len(tokens))
	}
	fmt.Fprintf(d.out, "%d concurrent refreshes of one token on %d nodes: every response has the same new token.\n\n", many, len(d.fleet.nodes()))
	return nil
}

// signOutEverywhere signs each user out everywhere, on the first node. It measures
// the time until each node refuses the user's token and ends the user's stream.
func (d *demo) signOutEverywhere(users int) error {
	fmt.Fprintf(d.out, "\"Sign out everywhere\" on node 1. Milliseconds from the request until each node refuses the token:\n\n%10s", "")
	for _, n := range d.fleet.nodes() {
		fmt.Fprintf(d.out, "%10s", fmt.Sprintf("node %d", n.number))
	}
	fmt.Fprintf(d.out, "%20s\n", "streams ended")
	var all, streams []time.Duration
	for i := range users {
		user := fmt.Sprintf("user-%d", i+1)
		c, err := d.signIn(user)
		if err != nil {
			return err
		}
		delays, ended, err := d.measureSignOut(c)
		if err != nil {
			return err
		}
		all, streams = append(all, delays[1:]...), append(streams, ended)
		if i < 5 {
			fmt.Fprintf(d.out, "%10s", user)
			for _, delay := range delays {
				fmt.Fprintf(d.out, "%10s", millis(delay))
			}
			fmt.Fprintf(d.out, "%20s\n", millis(ended))
		}
	}
	slices.Sort(all)
	slices.Sort(streams)
	fmt.Fprintf(d.out, "\n%d users, nodes other than node 1: 50%% within %s ms, 99%% within %s ms, 100%% within %s ms; streams: 100%% within %s ms.\n\n",
		users, millis(all[len(all)/2]), millis(all[len(all)*99/100]), millis(all[len(all)-1]), millis(streams[len(streams)-1]))
	return nil
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }

// killOne kills a node, checks that clients are not affected, and starts a new node.
func (d *demo) killOne(users int) error {
	var clients []session
	for i := range users {
		c, err := d.signIn(fmt.Sprintf("user-%d", i+1))
		if err != nil {
			return err
		}
		clients = append(clients, c)
	}
	nodes := d.fleet.nodes()
	victim := nodes[len(nodes)-1]
	if err := victim.kill(); err != nil {
		return err
	}
	failed := 0
	for _, c := range clients {
		status, _, err := d.post(d.proxy, "/auth/refresh", map[string]string{"refresh_token": c.Refresh})
		if err != nil || status != 200 {
			failed++
		}
		for range d.fleet.nodes() {
			if status, err := d.get(d.proxy, "/me", c.Access); err != nil || status != 200 {
				failed++
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d requests failed after node %d was killed", failed, victim.number)
	}
	fmt.Fprintf(d.out, "Node %d was killed (SIGKILL): all %d users stay signed in, 0 of %d requests failed.\n",
		victim.number, len(clients), len(clients)*(1+len(d.fleet.nodes())))

	// The new node knows which sessions were revoked before it started.
	out := clients[0]
	if status, _, err := d.post(d.proxy, "/auth/logout", map[string]string{"refresh_token": out.Refresh}); err != nil || status != 204 {
		return fmt.Errorf("logout: status %d: %w", status, err)
	}
	n, err := d.fleet.start(d.ctx)
	if err != nil {
		return err
	}
	if status, err := d.get(n.addr, "/me", out.Access); err != nil || status != 401 {
		return fmt.Errorf("new node, request of a revoked session: status %d, want 401: %w", status, err)
	}
	fmt.Fprintf(d.out, "Node %d replaced it: from its first response on it refuses the session that was revoked meanwhile.\n", n.number)
	return nil
}
