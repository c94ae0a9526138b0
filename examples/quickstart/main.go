// Command quickstart is a whole application around package auth: two users, a
// protected API, and a page that shows its own session at work.
//
//	go run ./examples/quickstart
//
// It prints where it listens, who can sign in, and a transcript of curl
// commands to paste. ACCESS_SECRET and REFRESH_SECRET, at least 32 bytes each,
// are the keys; without them it makes random ones, which end with it.
//
// Package site is the application: site.go puts it together, api.go protects
// it, users.go is the user lookup. Example durable is the same with sessions
// that outlive the program.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/ratchet-go/auth/examples/quickstart/site"
)

func main() {
	o := site.Options{Name: "quickstart"}
	o.Flags()
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "quickstart: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o site.Options) error {
	secrets, found, err := site.SecretsFrom(os.LookupEnv)
	if err != nil {
		return err
	}
	if !found {
		secrets = site.NewSecrets()
		o.Notes = append(o.Notes, "ACCESS_SECRET and REFRESH_SECRET are not set: the keys are random, and no token outlives this process.")
	}
	secrets.SetKeys(&o.Auth)
	// o.Auth.Store is nil, so sessions are kept in memory.
	o.Notes = append(o.Notes, "Sessions are kept in memory and end with this process.")
	return site.Run(ctx, o)
}
