package authclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, program) }

// program is the program that tests start as other processes.
func program() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func command(t *testing.T, name string, args ...string) *exec.Cmd {
	return testserver.Self(t, append([]string{name}, args...)...)
}

func run(name string, args []string) error {
	ctx := context.Background()
	switch name {
	case "increment": // FILE TIMES
		n, err := strconv.Atoi(args[1])
		for range n {
			if err == nil {
				err = increment(ctx, FileStore(args[0]))
			}
		}
		return err
	case "lock": // FILE: until it is killed
		return FileStore(args[0]).Update(ctx, func([]byte) ([]byte, error) {
			fmt.Println("locked")
			time.Sleep(time.Hour) // an empty select would be a deadlock, which ends the process
			return nil, nil
		})
	case "client": // URL FILE TIMES keys|none
		return runClient(ctx, args[0], args[1], args[2], args[3] == "none")
	}
	return fmt.Errorf("no program %s", name)
}

// runClient requests a page again and again, or the given number of times. Its clock
// is that of the server. It signs in when it is signed out.
func runClient(ctx context.Context, server, file, times string, noRetryKey bool) error {
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.Header.Set("Process-Id", strconv.Itoa(os.Getpid()))
		return http.DefaultTransport.RoundTrip(r)
	})
	tr, err := New(Config{BaseURL: server + "/auth", Store: FileStore(file), Base: base})
	if err != nil {
		return err
	}
	var now time.Time
	tr.now, tr.noRetryKey = func() time.Time { return now }, noRetryKey
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	for i := 0; n == 0 || i < n; i++ {
		text, err := request(ctx, base, server+"/clock?advance="+strconv.FormatBool(n == 0))
		if errors.Is(err, errDone) {
			return nil
		}
		if err != nil {
			return err
		}
		if now, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return err
		}
		// Some refreshes are repeated at once, and others after the clock was advanced.
		tr.pause = []time.Duration{time.Millisecond, defaultWindow}[rand.IntN(2)]
		if n > 0 {
			tr.pause = time.Millisecond
		}
		text, err = request(ctx, tr, server+"/api/me")
		switch {
		case errors.Is(err, ErrSignedOut):
			err = tr.Login(ctx, map[string]string{"login": "ada", "password": password})
		case err != nil && n == 0:
			err = nil // the response was lost
		case err == nil && text != "ada ":
			err = fmt.Errorf("the page is %q", text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errDone = errors.New("the test is over")

func request(ctx context.Context, tr http.RoundTripper, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch {
	case resp.StatusCode == http.StatusGone:
		return "", errDone
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("%s: %s: %s", url, resp.Status, text)
	}
	return string(text), err
}

// network is a server, and a network that loses every third response to a refresh
// and kills processes.
type network struct {
	*authtest.Authenticator
	t       *testing.T
	url     string
	endless int // the clients end after so many rotations
	noKeys  bool
	noKills bool

	mu        sync.Mutex
	changed   sync.Cond
	busy      int // refreshes in progress
	processes map[string]*os.Process
	spent     map[string]time.Time // when the session was rotated by a token
	ended     map[string]bool      // the last tokens of sessions that have ended
	count     map[string]int
}

func newNetwork(t *testing.T) *network {
	n := &network{t: t, processes: map[string]*os.Process{}, spent: map[string]time.Time{}, ended: map[string]bool{}, count: map[string]int{}}
	n.changed.L = &n.mu
	n.Authenticator = authtest.New(t, auth.Config{
		Users: oneUser(t), AccessTTL: time.Minute, SessionTTL: 10 * 365 * 24 * time.Hour,
		OnEvent: func(_ context.Context, e auth.Event) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.count["event "+string(e.Type)]++
		},
	})
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", n.Handler()))
	mux.HandleFunc("POST /auth/refresh", n.refresh)
	mux.HandleFunc("GET /clock", n.clock)
	mux.Handle("GET /api/me", n.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		fmt.Fprintf(w, "%s ", claims.Username)
	})))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	n.url = s.URL
	return n
}

// clock advances the clock by at most an hour, when no refresh is in progress.
func (n *network) clock(w http.ResponseWriter, r *http.Request) {
	done := n.idle() >= n.endless && n.endless > 0
	if done {
		w.WriteHeader(http.StatusGone)
		return
	}
	if r.FormValue("advance") == "true" {
		n.advance()
	}
	fmt.Fprint(w, n.Clock.Now().Format(time.RFC3339Nano))
}

// idle waits until no refresh is in progress, and returns the number of rotations.
func (n *network) idle() (rotations int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.busy > 0 {
		n.changed.Wait()
	}
	return n.count["rotations"]
}

func (n *network) addBusy(by int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.busy += by
	n.changed.Broadcast()
}

func (n *network) advance() {
	times := []time.Duration{0, time.Second, 29 * time.Second, 31 * time.Second, 61 * time.Second, 2 * time.Minute, time.Hour, rand.N(time.Hour)}
	n.Clock.Advance(times[rand.IntN(len(times))])
}

// refresh serves a refresh, loses every third response, and kills the client at
// random: before the request is served, and at any moment after the response was
// sent, which is before, while or after the client saves the tokens.
func (n *network) refresh(w http.ResponseWriter, r *http.Request) {
	n.addBusy(1)
	defer n.addBusy(-1)
	token, at := r.Header.Get("Refresh-Token"), n.Clock.Now()
	r = r.WithContext(context.WithoutCancel(r.Context())) // it is served although the client is killed
	kill := -1
	if !n.noKills {
		kill = rand.IntN(8)
	}
	if kill == 0 {
		n.kill(r)
	}
	answer := httptest.NewRecorder()
	n.RefreshHandler().ServeHTTP(answer, r)
	lost := n.record(r, token, at, answer)
	if lost || kill == 0 {
		panic(http.ErrAbortHandler)
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
	if kill == 1 || kill == 2 {
		_ = http.NewResponseController(w).Flush()
		time.Sleep(rand.N(3 * time.Millisecond)) // not to wait for anything: a random moment
		n.kill(r)
	}
}

// record examines the response to a refresh. lost reports whether it is lost.
func (n *network) record(r *http.Request, token string, at time.Time, answer *httptest.ResponseRecorder) (lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	rotated := strings.Contains(answer.Body.String(), `"rotated":true`)
	spentAt, again := n.spent[token]
	late := again && at.Sub(spentAt) > defaultWindow
	n.count["refreshes"]++
	switch {
	case late && n.ended[token]:
	case late:
		n.count["repeated after the window"]++
	case again:
		n.count["repeated within the window"]++
	case rotated:
		n.spent[token] = at
		n.count["rotations"]++
	}
	// The documented case: the session was rotated by this token, the client has not
	// saved the response, it has no retry key, and it asks again after the window.
	documented := late && n.noKeys
	switch {
	case documented && answer.Code != http.StatusUnauthorized:
		n.t.Errorf("a spent token was accepted after the window without a key: status %d", answer.Code)
	case documented && !n.ended[token]: // the response to an earlier repetition may have been lost
		n.ended[token] = true
		n.count["signed out"]++
	case documented:
	case answer.Code != http.StatusOK:
		n.t.Errorf("signed out: token spent %t, %s ago: status %d %s", again, at.Sub(spentAt), answer.Code, answer.Body)
	}
	if keyed := r.Header.Get("Refresh-Key") != ""; keyed == n.noKeys {
		n.t.Errorf("the request has a key: %t", keyed)
	}
	if lost = n.count["refreshes"]%3 == 0; lost {
		n.count["lost responses"]++
	}
	return lost
}

func (n *network) kill(r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id := r.Header.Get("Process-Id")
	if p := n.processes[id]; p != nil {
		_ = p.Kill()
		delete(n.processes, id)
		n.count["kills"]++
	}
}

// start starts a client. wait reports whether it has ended by itself.
func (n *network) start(args ...string) (wait func() (ended bool)) {
	cmd := command(n.t, "client", args...)
	var out strings.Builder
	cmd.Stderr = &out
	n.mu.Lock()
	require.NoError(n.t, cmd.Start())
	n.processes[strconv.Itoa(cmd.Process.Pid)] = cmd.Process
	n.mu.Unlock()
	return func() bool {
		err := cmd.Wait()
		n.mu.Lock()
		id := strconv.Itoa(cmd.Process.Pid)
		killed := n.processes[id] == nil
		delete(n.processes, id)
		n.mu.Unlock()
		if err != nil && !killed {
			n.t.Errorf("%v: %s", err, out.String())
		}
		return err == nil
	}
}

// times returns short, or long if the variable AUTH_CLIENTS is set.
func times(short, long int) int {
	if os.Getenv("AUTH_CLIENTS") == "1" {
		return long
	}
	return short
}

// play starts a client again and again until the session was rotated n times.
func (n *network) play(rotations int, keys string) {
	n.endless, n.noKeys = rotations, keys == "none"
	file := filepath.Join(n.t.TempDir(), "tokens.json")
	for !n.t.Failed() && !n.start(n.url, file, "0", keys)() {
		n.idle()
	}
	n.t.Log(n.count)
}

// The program of a user whose network loses every third response, and which is killed
// at random moments, is never signed out.
func TestProgram_WithRetryKeysIsNeverSignedOut(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.play(times(20, 1000), "keys")
	require.Equal(t, 1, n.count["event login"])
	require.Zero(t, n.count["event reuse"])
	require.Equal(t, n.count["event late_retry"], n.count["repeated after the window"])
	require.Zero(t, n.count["signed out"])
}

// Without retry keys, the same program is signed out in one case only, and in every
// such case: it repeats a refresh whose response it has not saved after the retry
// window.
func TestProgram_WithoutRetryKeysIsSignedOutInTheDocumentedCase(t *testing.T) {
	t.Parallel()
	n := newNetwork(t)
	n.play(times(20, 1000), "none")
	require.Equal(t, n.count["repeated after the window"], n.count["signed out"])
	require.Equal(t, n.count["event reuse"], n.count["signed out"])
	require.Equal(t, n.count["event login"], n.count["signed out"]+1)
	require.Positive(t, n.count["signed out"])
}

// Processes that share a file refresh at the same time. Some of them are killed.
func TestProgram_ProcessesThatShareAFileStaySignedIn(t *testing.T) {
	t.Parallel()
	for _, kills := range []bool{false, true} {
		n := newNetwork(t)
		n.noKills = true
		file := filepath.Join(t.TempDir(), "tokens.json")
		require.True(t, n.start(n.url, file, "1", "keys")()) // signs in
		n.noKills = !kills
		rounds := times(3, 100)
		for range rounds {
			n.Clock.Advance(time.Minute + rand.N(time.Hour))
			before := n.idle()
			var waits []func() bool
			for range 3 {
				waits = append(waits, n.start(n.url, file, "1", "keys"))
			}
			for _, wait := range waits {
				ended := wait()
				require.True(t, ended || kills)
			}
			require.LessOrEqual(t, n.idle(), before+1)
		}
		t.Log(n.count)
		require.Equal(t, 1, n.count["event login"])
		require.Zero(t, n.count["event reuse"])
		require.Zero(t, n.count["signed out"])
		require.Positive(t, n.count["rotations"])
	}
}
