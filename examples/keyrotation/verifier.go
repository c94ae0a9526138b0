package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"sync/atomic"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/jwks"
)

// verifierSetup is the configuration of the second process, which it reads from its
// standard input. Other users could read its arguments or environment.
type verifierSetup struct {
	Secret []byte
	JWKS   string
}

// verifyOnly runs the second process. It has no users, no store and no signing key.
// It exits when in is closed, also if the first process dies.
func verifyOnly(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Scan()
	var setup verifierSetup
	if err := json.Unmarshal(lines.Bytes(), &setup); err != nil {
		return fmt.Errorf("reading the setup: %w", err)
	}
	var failures atomic.Int64
	published, err := jwks.New(jwks.Config{
		URL: setup.JWKS, InsecureHTTP: true, // only for a loopback address; otherwise use https
		MinRefresh: time.Second,
		OnEvent:    func(context.Context, auth.Event) { failures.Add(1) }, // in production, log the event
	})
	if err != nil {
		return err
	}
	if _, err := published.VerifyKeys(ctx, ""); err != nil { // fail now instead of responding with 503 later
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { _ = published.Run(ctx) }() // refreshes the keys in time, so that no request waits

	keys := secretThenPublished{published: published}
	keys.secret.Store(&auth.Keys{auth.HS256(setup.Secret)})
	v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: &keys, Leeway: leeway})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /me", v.Require()(http.HandlerFunc(me)))
	server, err := serve("127.0.0.1:0", mux)
	if err != nil {
		return err
	}
	defer server.Close()
	fmt.Fprintln(out, server.Addr)
	for lines.Scan() { // each further line tells it to stop accepting HS256
		keys.secret.Store(&auth.Keys{})
		fmt.Fprintln(out, "dropped")
	}
	_, err = fmt.Fprintln(out, failures.Load())
	return err
}

// secretThenPublished is an [auth.KeySource] for the time in which tokens of both
// kinds are valid. All tokens have a kid, so only one source has the key. The keys
// are created once and not in each call, because a cached token is valid only for
// the same Key value.
type secretThenPublished struct {
	secret    atomic.Pointer[auth.Keys]
	published auth.KeySource
}

func (s *secretThenPublished) VerifyKeys(ctx context.Context, id string) ([]auth.Key, error) {
	if keys, err := s.secret.Load().VerifyKeys(ctx, id); err != nil || len(keys) > 0 {
		return keys, err
	}
	return s.published.VerifyKeys(ctx, id)
}

// verifier controls the second process.
type verifier struct {
	addr string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
}

func startVerifier(ctx context.Context, setup verifierSetup) (*verifier, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "-verify-only") // killed when ctx is done
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	v := &verifier{cmd: cmd, in: in, out: bufio.NewScanner(out)}
	if err := json.NewEncoder(in).Encode(setup); err != nil || !v.out.Scan() {
		_, _ = v.end()
		return nil, errors.Join(errors.New("the second process did not start"), err)
	}
	v.addr = v.out.Text()
	return v, nil
}

// dropSecret makes the second process refuse HS256.
func (v *verifier) dropSecret() error {
	if _, err := fmt.Fprintln(v.in, "drop"); err != nil || !v.out.Scan() {
		return errors.Join(errors.New("the second process has exited"), err)
	}
	return nil
}

// end ends the second process, and returns how many of its fetches failed.
func (v *verifier) end() (failures int, err error) {
	_ = v.in.Close()
	if v.out.Scan() {
		_, _ = fmt.Sscan(v.out.Text(), &failures)
	}
	return failures, v.cmd.Wait()
}
