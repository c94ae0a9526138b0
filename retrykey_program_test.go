package auth_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// savedTokens is the token file of a program: its refresh token, and the retry
// key of that token once it has been sent. Both are replaced in one step.
type savedTokens struct {
	Refresh  string `json:"refresh_token"`
	RetryKey string `json:"retry_key,omitempty"`
}

// keyedProgram is a program that keeps its tokens in a file, and follows the rules
// for clients with retry keys. It has no other state that survives it.
type keyedProgram struct {
	file    string
	url     string
	client  *http.Client
	keyless bool

	// crash is called between any two steps. It panics to end the program.
	crash func(before string)
}

var errSignedOut = errors.New("the server says that the user must sign in again")

func (p *keyedProgram) load() (s savedTokens, err error) {
	b, err := os.ReadFile(p.file)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// save replaces the file in one step. A program that must also survive a power
// failure calls Sync before the rename.
func (p *keyedProgram) save(s savedTokens) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.file+".new", b, 0o600); err != nil {
		return err
	}
	p.crash("rename")
	return os.Rename(p.file+".new", p.file)
}

// refresh sends the token of the file and saves the token of the response. rotated
// reports whether that is a later one. After any error but errSignedOut, and after
// a crash, the program calls it again, at any time.
func (p *keyedProgram) refresh() (rotated bool, err error) {
	s, err := p.load()
	if err != nil {
		return false, err
	}
	header := s.RetryKey // a further request has the key itself
	if header == "" && !p.keyless {
		var key [32]byte
		_, _ = rand.Read(key[:])
		s.RetryKey = base64.RawURLEncoding.EncodeToString(key[:])
		// The key is saved before the token is sent for the first time.
		if err := p.save(s); err != nil {
			return false, err
		}
		header = digestOf(s.RetryKey)
	}
	p.crash("send")
	body, err := json.Marshal(map[string]string{"refresh_token": s.Refresh})
	if err != nil {
		return false, err
	}
	req, err := http.NewRequest(http.MethodPost, p.url+"/refresh", bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "laptop")
	if header != "" {
		req.Header.Set("Refresh-Key", header)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var answer struct {
		Refresh string `json:"refresh_token"`
		Rotated bool   `json:"rotated"`
	}
	err = json.NewDecoder(resp.Body).Decode(&answer)
	p.crash("save")
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return false, errSignedOut
	case resp.StatusCode != http.StatusOK:
		return false, fmt.Errorf("status %d", resp.StatusCode)
	case err != nil:
		return false, err
	case !answer.Rotated:
		return false, nil // the same generation: the key stays too
	}
	// The response is applied only while the program holds the token that it sent.
	// The key of that token is dropped in the same write.
	if now, err := p.load(); err != nil || now.Refresh != s.Refresh {
		return false, err
	}
	return true, p.save(savedTokens{Refresh: answer.Refresh})
}

// crashed is the value of a panic that ends a program.
type crashed struct{ before string }

// run calls refresh in a new instance of the program, and reports where it
// crashed, if it did.
func (p keyedProgram) run(crash func(string)) (crashedBefore string, rotated bool, err error) {
	defer func() {
		switch c := recover().(type) {
		case nil:
		case crashed:
			crashedBefore = c.before
		default:
			panic(c)
		}
	}()
	p.crash = crash
	rotated, err = p.refresh()
	return "", rotated, err
}

// lossyNetwork is a transport to two nodes that loses requests and responses,
// delays requests, and has the store of a node fail.
type lossyNetwork struct {
	r     *mathrand.Rand
	nodes []*fixture
	urls  []string
	held  []func() // requests that arrive after the next one
	count map[string]int
}

var errNetwork = errors.New("network fault of a test")

func (n *lossyNetwork) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	i := n.r.IntN(len(n.nodes))
	send := func() (*http.Response, error) {
		n.count["requests"]++
		r := req.Clone(context.Background())
		target, err := http.NewRequest(req.Method, n.urls[i]+req.URL.Path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		r.URL, r.Host, r.Body, r.ContentLength = target.URL, "", target.Body, target.ContentLength
		return http.DefaultTransport.RoundTrip(r)
	}
	drop := func() error {
		resp, err := send()
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.Body.Close()
	}
	late := n.held
	n.held = nil
	defer func() {
		for _, f := range late {
			f()
		}
	}()
	switch n.r.IntN(10) {
	case 0:
		n.count["lost requests"]++
		return nil, errNetwork
	case 1, 2, 3:
		n.count["lost responses"]++
		if err := drop(); err != nil {
			return nil, err
		}
		return nil, errNetwork
	case 4:
		n.count["overtaken requests"]++
		n.held = append(n.held, func() { _ = drop() })
		return nil, errNetwork
	case 5:
		n.count["faults of the store"]++
		store := n.nodes[i].store
		if n.r.IntN(2) == 0 {
			store.failBefore("Rotate", errStore)
		} else {
			store.failAfter("Rotate", errStore)
		}
		defer store.failBefore("Rotate", nil)
		defer store.failAfter("Rotate", nil)
	}
	return send()
}

// playProgram lets a program refresh its tokens until they have been rotated n
// times. It crashes at random moments, and tries again at random times, often
// hours later. It returns how many times it was signed out; then it signs in again.
func playProgram(t *testing.T, s uint64, n int, keyless bool) (signedOut int) {
	r := mathrand.New(mathrand.NewPCG(s, 3))
	nodes := newNodes(t, 2, func(i int, c *auth.Config) {
		c.SessionTTL = 10 * 365 * 24 * time.Hour
		now := c.Now
		c.Now = func() time.Time { return now().Add(time.Duration(i) * netSkew) }
	})
	network := &lossyNetwork{r: r, nodes: nodes, count: map[string]int{}}
	for _, fx := range nodes {
		server := httptest.NewServer(fx.Handler())
		defer server.Close()
		network.urls = append(network.urls, server.URL)
	}
	p := keyedProgram{
		file: filepath.Join(t.TempDir(), "tokens.json"), url: "http://nodes.example", keyless: keyless,
		client: &http.Client{Transport: network},
	}
	p.crash = func(string) {}
	signIn := func() {
		require.NoError(t, p.save(savedTokens{Refresh: startSession(t, nodes[0].Authenticator).Refresh}))
	}
	signIn()
	crashes, clock := map[string]int{}, nodes[0].clock
	for rotations := 0; rotations < n; {
		at, rotated, err := p.run(func(before string) {
			if r.IntN(8) == 0 {
				panic(crashed{before})
			}
		})
		again := time.Duration(1+r.IntN(5)) * time.Hour
		switch {
		case at != "":
			crashes[at]++
		case errors.Is(err, errSignedOut):
			signedOut++
			signIn()
		case err == nil:
			if rotated {
				rotations++
			}
			again = []time.Duration{0, time.Second, time.Minute, 2 * time.Minute, time.Hour, 30 * time.Hour}[r.IntN(6)]
		}
		if len(network.held) > 0 && r.IntN(2) == 0 {
			again = time.Duration(r.IntN(20)) * time.Second // the next request overtakes it
		} else {
			network.held = nil
		}
		clock.Advance(again)
	}
	late := 0
	for _, fx := range nodes {
		late += len(fx.events.take(auth.EventLateRetry))
		fx.stop()
	}
	t.Logf("%d rotations in %s; crashes before %v; network %v; %d late retries; signed out %d times", n, clock.Now().Sub(newClock().Now()), crashes, network.count, late, signedOut)
	return signedOut
}

// A program with retry keys is never signed out, wherever it crashes, whatever the
// network loses, and however late it tries again.
func TestModel_AProgramWithRetryKeysStaysSignedIn(t *testing.T) {
	t.Parallel()
	base := seed(t)
	const rotations = 500 // of one session: about half a year
	sessions := max(1, iterations(1, 20))
	if raceDetector {
		sessions = min(sessions, 4)
	}
	for i := range sessions {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			require.Zero(t, playProgram(t, base+uint64(i), rotations, false))
		})
	}
}

// The same program without keys is signed out.
func TestModel_AProgramWithoutRetryKeysIsSignedOut(t *testing.T) {
	t.Parallel()
	n := histories(100, 1000)
	require.Greater(t, playProgram(t, seed(t), n, true), n/10)
}
