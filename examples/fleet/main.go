// Command fleet runs one application as several processes on one store, behind
// a round-robin proxy, and shows that they are one: a token refreshed 64 times
// at once over all of them moves on by one, who signs out everywhere is out
// everywhere, with the time that it took, and a node that is killed signs
// nobody out.
//
//	go run ./examples/fleet                                  a private redis-server if there is one, else a SQLite file
//	go run ./examples/fleet -nodes 5 -serve                  stay, to look at it with curl
//	go run ./examples/fleet -store redis://127.0.0.1:6379/0
//	go run ./examples/fleet -store postgres://user@127.0.0.1/db
//	go run ./examples/fleet -store sqlite
//
// It ends by itself in a few seconds, with an error if anything was not as it
// should be.
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
)

func main() {
	node := flag.Bool("node", false, "be one of the processes, which the first one starts")
	var o options
	flag.IntVar(&o.nodes, "nodes", 3, "how many processes, 2 to 16")
	flag.IntVar(&o.users, "users", 20, "how many users sign out everywhere, 1 to 1000")
	flag.StringVar(&o.store, "store", "", "URL of a Redis or PostgreSQL server, or \"sqlite\"")
	flag.BoolVar(&o.serve, "serve", false, "stay until interrupted")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if *node {
		err = serveNode(os.Stdin, os.Stdout)
	} else {
		err = show(ctx, os.Stdout, o)
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

// show starts the fleet and goes through what it is to show.
func show(ctx context.Context, out io.Writer, o options) error {
	if o.nodes < 2 || o.nodes > 16 || o.users < 1 || o.users > 1000 {
		return errors.New("-nodes is 2 to 16, -users 1 to 1000")
	}
	store, endStore, err := startStore(ctx, o.store)
	if err != nil {
		return err
	}
	defer endStore()
	fmt.Fprintf(out, "store: %s\n", store.what)

	f := &fleet{setup: nodeSetup{Store: store.url, Secret: rand.Text() + rand.Text()}}
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
	fmt.Fprintf(out, "proxy:  http://%s, each request to the next node\n\n", proxy.Addr)

	d := &demo{ctx: ctx, out: out, fleet: f, proxy: proxy.Addr}
	for _, step := range []func(users int) error{d.refreshAtOnce, d.signOutEverywhere, d.killOne} {
		if err := step(o.users); err != nil {
			return err
		}
	}
	if o.serve {
		fmt.Fprintf(out, "\nServing until interrupted. To look at it:\n\n"+
			"  curl -si http://%[1]s/auth/login -d login=user-1 -d password=%[2]s -d device=curl\n"+
			"  curl -s  http://%[1]s/me -H \"Authorization: Bearer $access_token\"\n\n", proxy.Addr, password1)
		<-ctx.Done()
	}
	return nil
}

// demo is what a user of the fleet sees.
type demo struct {
	ctx   context.Context
	out   io.Writer
	fleet *fleet
	proxy string
}

// refreshAtOnce presents one token many times at once, to all nodes.
func (d *demo) refreshAtOnce(int) error {
	c, err := d.signIn("user-1")
	if err != nil {
		return err
	}
	const many = 64
	type answer struct {
		status int
		token  string
		err    error
	}
	answers := make(chan answer, many)
	for range many {
		go func() {
			status, body, err := d.post(d.proxy, "/auth/refresh", map[string]string{"refresh_token": c.Refresh})
			answers <- answer{status, body.Refresh, err}
		}()
	}
	tokens := map[string]int{}
	for range many {
		a := <-answers
		if a.err != nil || a.status != 200 {
			return fmt.Errorf("refresh: %d %w", a.status, a.err)
		}
		tokens[a.token]++
	}
	if len(tokens) != 1 || tokens[c.Refresh] != 0 {
		return fmt.Errorf("%d refreshes of one token gave %d tokens", many, len(tokens))
	}
	fmt.Fprintf(d.out, "One refresh token, presented %d times at once over %d nodes: one new token, the same in every answer.\n\n", many, len(d.fleet.nodes()))
	return nil
}

// signOutEverywhere ends all sessions of each user on one node, and measures
// until each node refuses his token and has ended his stream.
func (d *demo) signOutEverywhere(users int) error {
	fmt.Fprintf(d.out, "Sign out everywhere, asked of node 1. Milliseconds from the request until each node refuses the token:\n\n%10s", "")
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
		delays, ended, err := d.watchTheEnd(c)
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
	fmt.Fprintf(d.out, "\n%d users, the other nodes: half within %s ms, 99 %% within %s ms, all within %s ms; all streams within %s ms.\n\n",
		users, millis(all[len(all)/2]), millis(all[len(all)*99/100]), millis(all[len(all)-1]), millis(streams[len(streams)-1]))
	return nil
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }

// killOne ends a node the hard way while clients go on.
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
	refused := 0
	for _, c := range clients {
		status, _, err := d.post(d.proxy, "/auth/refresh", map[string]string{"refresh_token": c.Refresh})
		if err != nil || status != 200 {
			refused++
		}
		for range d.fleet.nodes() {
			if status, err := d.get(d.proxy, "/me", c.Access); err != nil || status != 200 {
				refused++
			}
		}
	}
	if refused > 0 {
		return fmt.Errorf("%d requests failed after node %d was killed", refused, victim.number)
	}
	fmt.Fprintf(d.out, "Node %d was killed (SIGKILL): all %d users went on at the others, 0 of %d requests failed.\n",
		victim.number, len(clients), len(clients)*(1+len(d.fleet.nodes())))

	// It comes back knowing who was signed out meanwhile.
	gone := clients[0]
	if status, _, err := d.post(d.proxy, "/auth/logout", map[string]string{"refresh_token": gone.Refresh}); err != nil || status != 204 {
		return fmt.Errorf("logout: %d %w", status, err)
	}
	n, err := d.fleet.start(d.ctx)
	if err != nil {
		return err
	}
	if status, err := d.get(n.addr, "/me", gone.Access); err != nil || status != 401 {
		return fmt.Errorf("the new node answers %d %w to a session that has ended", status, err)
	}
	fmt.Fprintf(d.out, "Node %d started in its place: from its first answer on it refuses who signed out meanwhile.\n", n.number)
	return nil
}
