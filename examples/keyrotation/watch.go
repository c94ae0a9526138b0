package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/ratchet-go/auth"
)

// Stages of a key.
const (
	published = iota
	signing
	verifying
	gone
)

// watch records when each key enters each stage, by observing the issuer. After an
// error it no longer waits.
type watch struct {
	ctx     context.Context
	a       *auth.Authenticator
	own     auth.Tokens       // of a session that watch refreshes
	lasting map[string]string // by algorithm, a token that expires after its key is removed
	begin   time.Time
	at      map[string]*[4]time.Duration
	err     error
}

func newWatch(ctx context.Context, a *auth.Authenticator, us users, keys ...auth.Key) *watch {
	w := &watch{ctx: ctx, a: a, lasting: map[string]string{}, begin: time.Now(), at: map[string]*[4]time.Duration{}}
	for i, k := range keys {
		w.at[algs[i]] = new([4]time.Duration)
		other, err := newIssuer(time.Hour, us, k) // tokens of a expire before their key is removed
		if w.check(err); err == nil {
			t, err := other.StartSession(ctx, "ada", auth.SessionOptions{})
			w.check(err)
			w.lasting[algs[i]] = t.Access
		}
	}
	t, err := a.StartSession(ctx, "ada", auth.SessionOptions{})
	w.check(err)
	w.own = t
	return w
}

// signs reports whether new tokens have the algorithm.
func (w *watch) signs(alg string) bool {
	t, err := w.a.Refresh(w.ctx, w.own.Refresh, auth.RefreshOptions{})
	w.check(err)
	if err == nil {
		w.own = t
	}
	return algOf(t.Access) == alg
}

// refused reports whether the issuer no longer accepts the key.
func (w *watch) refused(alg string) bool {
	_, err := w.a.Verify(w.ctx, w.lasting[alg])
	return errors.Is(err, auth.ErrInvalidToken)
}

func (w *watch) check(err error) { w.err = errors.Join(w.err, err) }

// note records that a key has entered a stage.
func (w *watch) note(alg string, stage int) { w.at[alg][stage] = time.Since(w.begin) }

// until waits until a key has reached a stage, and records it.
func (w *watch) until(alg string, stage int, reached func() bool) {
	for w.err == nil && !reached() {
		w.pause(10 * time.Millisecond)
	}
	w.note(alg, stage)
}

func (w *watch) pause(d time.Duration) {
	if w.err != nil {
		return
	}
	select {
	case <-time.After(d):
	case <-w.ctx.Done():
		w.check(context.Cause(w.ctx))
	}
}

func (w *watch) print(out io.Writer) {
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "KEY\tpublished\tsigning\tverifying only\tremoved")
	for _, alg := range algs {
		fmt.Fprint(t, alg)
		for _, at := range w.at[alg] {
			text := "-" // a secret is never published, and the last key still signs
			if at > 0 {
				text = fmt.Sprintf("%.1fs", at.Seconds())
			}
			fmt.Fprint(t, "\t"+text)
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush()
}
