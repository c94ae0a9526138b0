package authclient

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// flight is a refresh in progress.
type flight struct {
	done chan struct{}
	err  error                 // when done is closed
	last atomic.Pointer[error] // of the last attempt that failed
}

// errEnded is the error of a refresh whose goroutine was ended by runtime.Goexit.
var errEnded = errors.New("authclient: a Store or RoundTripper has ended the goroutine of the refresh")

// start starts a refresh that replaces the access token stale, unless a refresh is in
// progress.
func (t *Transport) start(stale string) (f *flight, started bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flight == nil {
		t.flight, started = &flight{done: make(chan struct{}), err: errEnded}, true
		go t.fly(t.flight, stale)
	}
	return t.flight, started
}

func (t *Transport) fly(f *flight, stale string) {
	defer func() {
		if p := recover(); p != nil { // nobody else could recover it
			f.err = fmt.Errorf("authclient: a Store or RoundTripper panicked with a %T", p)
		}
		t.mu.Lock()
		t.flight = nil
		if f.err != nil {
			t.calmUntil = t.now().Add(jittered(calm))
		}
		t.mu.Unlock()
		close(f.done)
	}()
	f.err = t.refresh(f, stale)
}

// refreshed returns an access token other than stale. It waits for a refresh if
// nobody else has replaced stale.
func (t *Transport) refreshed(ctx context.Context, stale string) (string, error) {
	for tries := 0; ; tries++ {
		s, err := t.load(ctx)
		if err != nil {
			return "", err
		}
		// A refresh within the same second may return the same token. Then the
		// server decides.
		if s.Access != stale || tries == 2 {
			return s.Access, nil
		}
		f, _ := t.start(stale)
		select {
		case <-f.done:
		case <-ctx.Done():
			return "", f.waitError(context.Cause(ctx))
		}
		if f.err != nil {
			return "", f.err
		}
	}
}

// waitError returns the error of a request that did not wait any longer.
func (f *flight) waitError(cause error) error {
	if last := f.last.Load(); last != nil {
		return fmt.Errorf("%w; %w while waiting for the next attempt", *last, cause)
	}
	return fmt.Errorf("authclient: waiting for a refresh: %w", cause)
}

// calm is how long no refresh ahead of expiry is started after one that failed.
const calm = 10 * time.Second

// patience is how long a request waits for a refresh if its token is still valid.
const patience = 2 * time.Second

// refreshAhead returns an access token in place of stale, which is still valid. It
// starts a refresh and waits for a short time. If that does not succeed, it returns
// stale, unless the session has ended. It does not wait for a refresh that another
// request has started.
func (t *Transport) refreshAhead(ctx context.Context, stale string) (string, error) {
	t.mu.Lock()
	calm := t.now().Before(t.calmUntil)
	t.mu.Unlock()
	if calm {
		return stale, nil
	}
	f, started := t.start(stale)
	if !started {
		return stale, nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-f.done:
	case <-timer.C:
		return stale, nil
	case <-ctx.Done():
		return stale, nil
	}
	if f.err != nil && !errors.Is(f.err, ErrSignedOut) {
		return stale, nil
	}
	s, err := t.load(ctx)
	if f.err != nil && errors.Is(err, ErrSignedOut) {
		err = f.err // it says why
	}
	return s.Access, err
}

// refresh replaces the tokens whose access token is stale. It repeats a request
// that failed for a moment.
func (t *Transport) refresh(f *flight, stale string) error {
	begin, pause := time.Now(), t.pause
	for {
		wait, err := t.attempt(stale)
		if err == nil || wait < 0 {
			return err
		}
		f.last.Store(&err)
		wait = jittered(max(wait, pause))
		pause *= 2
		if time.Since(begin)+wait >= t.window {
			return err
		}
		time.Sleep(wait)
	}
}

// jittered returns d, longer by up to a quarter.
func jittered(d time.Duration) time.Duration { return d + mathrand.N(d/4+1) }

const final = -1 // the wait after an attempt that is not repeated

// attempt sends one request for a refresh. If it fails and may be repeated, wait is
// how long the server wants the client to wait, at least 0; otherwise wait is
// negative.
//
// The order of the steps matters. The key is saved before the token is sent. The
// tokens of the response are saved before anything uses them, and in the same write
// the key is dropped. If the process ends in between, the next attempt presents the
// same token with the same key.
func (t *Transport) attempt(stale string) (wait time.Duration, err error) {
	// The time from reading the token until the request is given up must be less
	// than a window, because other processes may refresh meanwhile.
	ctx, cancel := context.WithTimeout(context.Background(), t.window)
	defer cancel()
	var sent state
	var key string // the value of Refresh-Key
	err = t.update(ctx, func(s *state) {
		if key = s.RetryKey; key == "" && s.Access == stale && !t.noRetryKey {
			s.RetryKey = newRetryKey()
			key = digestOf(s.RetryKey)
		}
		sent = *s
	})
	switch {
	case err != nil:
		return final, fmt.Errorf("authclient: saving the retry key: %w", err)
	case sent.Access != stale: // another process has refreshed or signed out
		return final, nil
	}
	header := http.Header{"Refresh-Token": {sent.Refresh}}
	if key != "" {
		header.Set("Refresh-Key", key)
	}
	asked := t.now()
	body, err := t.post(ctx, "/refresh", http.StatusOK, header, nil)
	var answer answer
	if err == nil {
		answer, err = readAnswer(body)
	}
	if err != nil {
		var refusal *Error
		switch {
		case !errors.As(err, &refusal):
			return 0, fmt.Errorf("authclient: refreshing the tokens: %w", err) // perhaps the response was lost
		case refusal.Status == http.StatusUnauthorized && refusal.Action == "login": // not that of a proxy
			return final, t.drop(sent.Refresh, refusal)
		case refusal.Status == http.StatusBadGateway, refusal.Status == http.StatusServiceUnavailable, refusal.Status == http.StatusGatewayTimeout:
			return min(refusal.RetryAfter, maxRetryAfter), err
		}
		return final, err
	}
	next := t.stateOf(answer, asked)
	if !answer.Rotated {
		next.RetryKey = sent.RetryKey // it belongs to this generation
	}
	// The response has arrived in time. Saving it may take a time of its own.
	ctx, cancel = context.WithTimeout(context.Background(), t.window)
	defer cancel()
	err = t.update(ctx, func(s *state) {
		if s.Refresh == sent.Refresh { // otherwise another process has stored a later token
			*s = next
		}
	})
	if err != nil {
		return final, fmt.Errorf("authclient: saving the tokens: %w", err)
	}
	return final, nil
}

// maxRetryAfter is the longest Retry-After of a server that is followed.
const maxRetryAfter = 10 * time.Second

// drop removes the tokens that the server has refused, unless they have been
// replaced meanwhile.
func (t *Transport) drop(refresh string, refusal error) error {
	ctx, cancel := context.WithTimeout(context.Background(), t.window)
	defer cancel()
	dropped := false
	err := t.update(ctx, func(s *state) {
		if dropped = s.Refresh == refresh; dropped {
			*s = state{}
		}
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w, and its tokens could not be removed: %w", ErrSignedOut, refusal, err)
	case dropped:
		return fmt.Errorf("%w: %w", ErrSignedOut, refusal)
	}
	return nil
}

// newRetryKey returns 32 random bytes in base64url.
func newRetryKey() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// digestOf returns what the first request with a key has in place of the key, so
// that a log of requests is not enough to repeat it.
func digestOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return "sha256=" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// answer is the body of a response with tokens.
type answer struct {
	Access    string `json:"access_token"`
	ExpiresIn int64  `json:"expires_in"` // seconds
	Refresh   string `json:"refresh_token"`
	Session   string `json:"session_id"`
	Rotated   bool   `json:"rotated"`
}

// maxAnswer is the largest body of a response with tokens, which is far larger than
// any header can be.
const maxAnswer = 1 << 20

// readAnswer reads the body of a response with status 200. A body that was cut off is
// an error.
func readAnswer(body []byte) (a answer, err error) {
	if json.Unmarshal(body, &a) != nil || a.Access == "" || a.Refresh == "" { // the error could contain a part of a token
		return a, errors.New("the response is not a JSON object with access_token and refresh_token; if the server sets Config.Cookies, it must set Cookies.AllowBody")
	}
	return a, nil
}

// stateOf returns the state after a response to a request that was sent at a time.
// The time of the refresh ahead of expiry is random, so that clients that have
// started together do not refresh together.
func (t *Transport) stateOf(a answer, asked time.Time) state {
	s := state{Origin: t.origins[0], Session: a.Session, Access: a.Access, Refresh: a.Refresh}
	if life := time.Duration(min(a.ExpiresIn, int64(maxLife/time.Second))) * time.Second; life > 0 {
		asked = asked.Round(0).UTC() // wall time: other processes compare with it
		s.ExpiresAt = asked.Add(life)
		s.RefreshAt = s.ExpiresAt.Add(-life/10 - mathrand.N(life/10))
	}
	return s
}

const maxLife = 366 * 24 * time.Hour

// retryAfter reads the header Retry-After in seconds. Other values are ignored.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
