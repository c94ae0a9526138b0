// Command quickstart is a complete application that uses package auth. It has two
// users, a protected API, and a page that shows the state of its session.
//
//	go run ./examples/quickstart
//
// It prints its address, the users and their password, and curl commands to try.
// The keys are taken from ACCESS_SECRET and REFRESH_SECRET, at least 32 bytes each.
// If they are not set, the program generates random keys, so its tokens are invalid
// after it exits.
//
// Package site has the application: site.go assembles it, api.go has the protected
// API, users.go looks up users. The example durable is the same application with
// sessions in a file, which survive a restart.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/ratchet-go/auth/examples/quickstart/site"
)

func main() {
	o := site.Options{Name: "quickstart"}
	o.Flags()
	site.ParseFlags()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal terminates the program
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
		o.Notes = append(o.Notes, "ACCESS_SECRET and REFRESH_SECRET are not set: the keys are random, and tokens are invalid after the program exits.")
	}
	secrets.SetKeys(&o.Auth)
	// o.Auth.Store is nil, so sessions are stored in memory.
	o.Notes = append(o.Notes, "Sessions are stored in memory and end when the program exits.")
	return site.Run(ctx, o)
}
