// Command durable is the quickstart with sessions in an SQLite file: a restart or a
// crash signs no user out.
//
//	go run ./examples/durable -db sessions.db
//
// As in the quickstart, the keys are taken from ACCESS_SECRET and REFRESH_SECRET. If
// they are not set, the program generates keys once and stores them next to the
// database, in sessions.db.keys. A process that can read that file can sign in as
// any user, so only the user of the program may have access to it.
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
	db := flag.String("db", "sessions.db", "`file` for the sessions; created if it does not exist")
	site.ParseFlags()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal terminates the program
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
	o.Notes = append(o.Notes, "Sessions are stored in "+db+" and survive a restart.")

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
