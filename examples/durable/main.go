// Command durable is the quickstart with sessions that outlive it: they are in
// an SQLite file, and a restart, or a crash, signs nobody out.
//
//	go run ./examples/durable -db sessions.db
//
// ACCESS_SECRET and REFRESH_SECRET are the keys, as in the quickstart. Without
// them it makes keys once, and keeps them beside the database, in
// sessions.db.keys: whoever can read that file can sign in as anybody, so it is
// for the user of the program alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/ratchet-go/auth/examples/quickstart/site"
	"github.com/ratchet-go/auth/sqlitestore"
)

func main() {
	o := site.Options{Name: "durable"}
	o.Flags()
	db := flag.String("db", "sessions.db", "`file` in which sessions are kept; it is made if there is none")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	if err := run(ctx, *db, o); err != nil {
		fmt.Fprintf(os.Stderr, "durable: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, db string, o site.Options) (err error) {
	store, err := sqlitestore.Open(db, sqlitestore.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	o.Auth.Store = store
	o.Notes = append(o.Notes, "Sessions are kept in "+db+" and outlive this process.")

	secrets, found, err := site.SecretsFrom(os.LookupEnv)
	if err != nil {
		return err
	}
	if !found {
		file := db + ".keys"
		if secrets, err = secretsIn(file); err != nil {
			return err
		}
		o.Notes = append(o.Notes, "ACCESS_SECRET and REFRESH_SECRET are not set: the keys are in "+file+".")
	}
	secrets.SetKeys(&o.Auth)
	return site.Run(ctx, o)
}
