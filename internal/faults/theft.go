package faults

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
)

// Theft tests that every process learns from the store why a session ended. A
// thief has copied a refresh token, and one process detects it. Another process
// that was running, and one that starts later, give the reason to the victim.
// Each call of open returns a store of its own on the same database.
func Theft(t *testing.T, open func() auth.Store) {
	ctx := context.Background()
	var ahead atomic.Int64 // how far the clock of the processes is ahead
	start := func() *auth.Authenticator {
		a, err := auth.New(auth.Config{
			Issuer: "https://node.example", Audience: []string{"https://node.example"},
			Secrets: [][]byte{[]byte("faults-and-their-nodes-share-this-secret-of-tests")},
			Users:   users{}, Store: open(), Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		})
		if err != nil {
			t.Fatal(err)
		}
		run, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = a.Run(run)
		}()
		t.Cleanup(func() { stop(); <-done })
		select {
		case <-a.Ready():
		case <-time.After(30 * time.Second):
			t.Fatal("Run has not read the feed after 30 seconds")
		}
		return a
	}
	one, two := start(), start()
	stolen, err := one.StartSession(ctx, "ada", auth.SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tokens := stolen
	for range 2 {
		ahead.Add(int64(time.Minute))
		if tokens, err = two.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	claims, err := two.Verify(ctx, tokens.Access)
	if err != nil {
		t.Fatal(err)
	}
	session, cancel := two.SessionContext(ctx, claims)
	defer cancel()
	if _, err := one.Refresh(ctx, stolen.Refresh, auth.RefreshOptions{}); !errors.Is(err, auth.ErrTokenReused) {
		t.Fatalf("Refresh with the stolen token returned %v, want ErrTokenReused", err)
	}
	select {
	case <-session.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the other process has not learned of the revocation after 30 seconds")
	}
	want := func(what string, err error) {
		t.Helper()
		if reason := auth.ResponseFor(err).Reason; !errors.Is(err, auth.ErrSessionRevoked) || reason != "reuse" {
			t.Errorf("%s returned %v with the reason %q, want ErrSessionRevoked with the reason reuse", what, err, reason)
		}
	}
	want("context.Cause", context.Cause(session))
	for i, a := range []*auth.Authenticator{one, two, start()} {
		_, err := a.Verify(ctx, tokens.Access)
		want("Verify", err)
		_, err = a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
		want("Refresh", err)
		if t.Failed() {
			t.Fatalf("in process %d", i+1)
		}
	}
}
