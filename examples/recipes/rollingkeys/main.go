// Command rollingkeys takes its secrets and keys from the environment, so that a
// rolling deployment replaces them: its processes restart one after the other, and
// no user is signed out.
//
//	AUTH_SECRETS=$(openssl rand -base64 48) go run ./examples/recipes/rollingkeys -db sessions.db
//
// To replace a secret, deploy three times, each time to every process:
//
//	AUTH_SECRETS="$OLD $NEW"   every process verifies tokens of NEW
//	AUTH_SECRETS="$NEW $OLD"   every process signs with NEW
//	AUTH_SECRETS="$NEW"        after IdleTTL (7 days): no session has a token of OLD
//
// With AUTH_ACCESS_KEYS, key pairs sign the access tokens, so that other services can
// verify them. It lists PEM files. To replace a key pair, two deployments suffice,
// because each process changes to the new key at the same time:
//
//	AUTH_ACCESS_KEYS="new.pem@2030-01-31T12:00:00Z old.pem"   the time is in the future
//	AUTH_ACCESS_KEYS="new.pem@2030-01-31T12:00:00Z"           after that time and AccessTTL
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
	"github.com/ratchet-go/auth/sqlitestore"
)

// setKeys sets the keys of c to those in the environment.
func setKeys(c *auth.Config) error {
	secrets := strings.Fields(os.Getenv("AUTH_SECRETS")) // the first signs, and all of them verify
	if len(secrets) == 0 {
		return errors.New("set AUTH_SECRETS to one or more secrets, each from openssl rand -base64 48")
	}
	files := strings.Fields(os.Getenv("AUTH_ACCESS_KEYS"))
	if len(files) == 0 {
		for _, secret := range secrets {
			c.Secrets = append(c.Secrets, []byte(secret))
		}
		return nil
	}
	for _, secret := range secrets { // only this service reads refresh tokens
		c.RefreshKeys = append(c.RefreshKeys, auth.HS256([]byte(secret)))
	}
	for _, file := range files {
		key, err := accessKey(file)
		if err != nil {
			return err
		}
		c.AccessKeys = append(c.AccessKeys, key)
	}
	return nil
}

// accessKey reads a key pair from a PEM file. The name may end in @ and the time from
// which the key signs: later than the restart of the last process plus JWKSMaxAge and
// Leeway. Keep the time with the name, so that a restart does not change when the key
// signs.
func accessKey(file string) (auth.Key, error) {
	file, from, timed := strings.Cut(file, "@")
	data, err := os.ReadFile(file)
	if err != nil {
		return auth.Key{}, err
	}
	key, err := auth.ParsePEM(data)
	if err != nil || !timed {
		return key, err
	}
	t, err := time.Parse(time.RFC3339, from)
	return key.SignFrom(t), err
}

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "`address` to listen on")
	db := flag.String("db", "sessions.db", "`file` for the sessions, which all processes share")
	retryWindow := flag.Duration("retry-window", 0, "how long a spent refresh token is still accepted; 0 means 30s")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *db, *retryWindow); err != nil {
		log.Fatal("rollingkeys: ", err)
	}
}

func run(ctx context.Context, addr, db string, retryWindow time.Duration) (err error) {
	store, err := sqlitestore.Open(db, sqlitestore.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		return err
	}
	c := auth.Config{
		Issuer: "https://rolling.example", Audience: []string{"https://rolling.example/api"},
		Users:       users{auth.User{ID: "u1", Username: "ada", PasswordHash: hash}},
		Store:       store,
		RetryWindow: retryWindow,
		OnEvent:     auth.LogEvents(slog.Default()),
	}
	if err := setKeys(&c); err != nil {
		return err
	}
	a, err := auth.New(c)
	if err != nil {
		return err
	}
	runCtx, stopRun := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() { defer close(stopped); _ = a.Run(runCtx) }()
	defer func() { stopRun(); <-stopped }() // before the store is closed
	select {
	case <-a.Ready(): // a process that does not know the revocations yet must not get requests
	case <-ctx.Done():
		return nil
	}

	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /me", a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		fmt.Fprintln(w, "hello", claims.Username)
	})))
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	drained := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		drained <- server.Shutdown(ctx)
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-drained
}

// users has a single user. An application looks its users up in its database.
type users struct{ ada auth.User }

func (u users) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != u.ada.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}

func (u users) FindByID(_ context.Context, id string) (auth.User, error) {
	if id != u.ada.ID {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.ada, nil
}
