package oauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/ratchet-go/auth"
)

// basicChallenge is the challenge of every response with status 401, which must have one
// (RFC 9110 section 15.5.2). Basic is the only scheme with which a client can
// authenticate in the header.
const basicChallenge = `Basic realm="oauth"`

// maxCredential is the longest ID or secret of a client.
const maxCredential = 1024

// credentials are what a request says about its client. The secret is "" for a client
// without one.
type credentials struct {
	id, secret string
}

// refusedClient returns the error for credentials that are not accepted.
func refusedClient(text string) error {
	return &problem{http.StatusUnauthorized, "invalid_client", text, basicChallenge}
}

// readCredentials returns the credentials of a request: those in the header
// (client_secret_basic) or those in the body (client_secret_post), never both (RFC
// 6749 section 2.3).
func readCredentials(r *http.Request, f map[string]string) (credentials, error) {
	inBody := credentials{id: f["client_id"], secret: f["client_secret"]}
	headers := r.Header["Authorization"]
	if len(headers) > 1 {
		return credentials{}, malformed("the header Authorization occurs twice")
	}
	if len(headers) == 0 {
		return inBody, nil
	}
	scheme, encoded, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Basic") {
		return inBody, nil // such as the access token of a client that adds it to all requests
	}
	id, secret, err := decodeBasic(strings.TrimLeft(encoded, " "))
	if err != nil {
		return credentials{}, refusedClient("the header Authorization is malformed")
	}
	switch {
	case secret == "" && id == "": // a client without an ID
		return inBody, nil
	case inBody.secret != "":
		return credentials{}, malformed("the client authenticates in the header and in the body; it must use one of them")
	case inBody.id != "" && inBody.id != id:
		return credentials{}, malformed("client_id in the body differs from that in the header Authorization")
	}
	return credentials{id, secret}, nil
}

// decodeBasic decodes the credentials of the scheme Basic. RFC 6749 section 2.3.1
// encodes the ID and the secret as in a form, before they are joined by a colon.
func decodeBasic(encoded string) (id, secret string, err error) {
	text, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return "", "", err
	}
	id, secret, ok := strings.Cut(string(text), ":")
	if !ok {
		return "", "", errors.New("no colon")
	}
	id, err1 := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(secret)
	return id, secret, errors.Join(err1, err2)
}

// authenticate returns an error unless the client may use an endpoint. If secret is
// set, only a client with a secret may.
func (h *handler) authenticate(r *http.Request, f map[string]string, secret bool) error {
	c, err := readCredentials(r, f)
	switch {
	case err != nil:
		return err
	case c.secret == "" && h.publicClients && !secret:
		return nil
	case c.secret == "":
		return refusedClient("the client must authenticate with its secret")
	case h.clients == nil:
		return refusedClient("the client has sent a secret, but this server has only clients without one")
	case !isCredential(c.id) || !isCredential(c.secret):
		err = auth.ErrInvalidCredentials // no client can have it
	default:
		err = h.check(r.Context(), h.a.Device(r), c)
	}
	if isWrong(err) {
		return refusedClient("the client is unknown, or its secret is wrong")
	}
	return err
}

// isCredential reports whether s can be the ID or the secret of a client (RFC 6749
// appendix A).
func isCredential(s string) bool {
	return s != "" && len(s) <= maxCredential && isPrintable(s)
}

// isWrong reports whether an error of CallHook or Throttle says that the secret is
// wrong.
func isWrong(err error) bool {
	return err != nil && !errors.Is(err, auth.ErrUnavailable) && !errors.Is(err, auth.ErrThrottled)
}

// check checks a secret. Attempts are limited for each client and source, not for the
// client from all sources: everyone knows its ID, and could otherwise keep the client
// from working by sending wrong secrets.
//
// A secret that was right before is no guess. It is checked without a limit, because a
// client may send any number of requests at once. Other requests of one client and
// source wait for each other, so that the first ones of a client do not count as a
// burst of attempts.
func (h *handler) check(ctx context.Context, d auth.Device, c credentials) error {
	call := func(ctx context.Context) error {
		return h.a.CallHook(ctx, "Clients.CheckClient", func(ctx context.Context) error { return h.clients.CheckClient(ctx, c.id, c.secret) })
	}
	digest := h.known.digest(c)
	if h.known.has(digest) {
		err := call(ctx)
		if !isWrong(err) {
			return err
		}
		h.known.remove(digest) // the client has another secret now
	}
	account := c.id + " " + d.Source()
	leave, err := h.known.enter(ctx, account)
	if err != nil {
		return err
	}
	if h.known.has(digest) {
		leave()
		return call(ctx)
	}
	defer leave()
	err = h.a.Throttle(ctx, "oauth-client", account, d, call)
	if err == nil {
		h.known.add(digest)
	}
	return err
}

// knownClients are the credentials that were right, as far as this process knows.
type knownClients struct {
	salt    [sha256.Size]byte // so that memory does not contain the SHA-256 of a secret
	mu      sync.Mutex
	digests map[[sha256.Size]byte]bool
	queues  map[string]*queue
}

// queue lets the requests of one client and source wait for each other.
type queue struct {
	length int // requests that wait or have entered
	free   chan struct{}
}

// maxKnown bounds the number of credentials. If there are more, any of them is
// forgotten.
const maxKnown = 1024

func newKnownClients() *knownClients {
	k := &knownClients{digests: map[[sha256.Size]byte]bool{}, queues: map[string]*queue{}}
	_, _ = rand.Read(k.salt[:]) // never returns an error
	return k
}

// digest returns a digest of credentials, which contain no NUL.
func (k *knownClients) digest(c credentials) [sha256.Size]byte {
	return sha256.Sum256(append(k.salt[:], c.id+"\x00"+c.secret...))
}

func (k *knownClients) has(digest [sha256.Size]byte) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.digests[digest]
}

func (k *knownClients) add(digest [sha256.Size]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for other := range k.digests {
		if len(k.digests) < maxKnown {
			break
		}
		delete(k.digests, other)
	}
	k.digests[digest] = true
}

func (k *knownClients) remove(digest [sha256.Size]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.digests, digest)
}

// maxWait is how long a request waits for others of its client and source. They take
// long if CheckClient does not respond.
const maxWait = 5 * time.Second

// enter waits until no other request of the account has entered, for at most maxWait.
// The caller calls leave once.
func (k *knownClients) enter(ctx context.Context, account string) (leave func(), err error) {
	k.mu.Lock()
	q := k.queues[account]
	if q == nil {
		q = &queue{free: make(chan struct{}, 1)}
		k.queues[account] = q
	}
	q.length++
	k.mu.Unlock()
	done := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if q.length--; q.length == 0 {
			delete(k.queues, account)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	select {
	case q.free <- struct{}{}:
		return func() { <-q.free; done() }, nil
	case <-ctx.Done():
		done()
		return nil, fmt.Errorf("%w: %w", auth.ErrUnavailable, context.Cause(ctx))
	}
}
