package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

const (
	faultPage    = "docs/faults.md"
	faultsBegin  = "<!-- The tables are generated: go test -run TestFaults_EveryCallOfEveryEndpoint . -update -->\n"
	newPassword  = "another correct horse"
	faultTimeout = 2 * time.Second  // Config.StoreTimeout
	patience     = 30 * time.Second // after which a client disconnects
	soon         = 6 * time.Second  // a little more than the default of Config.HookTimeout
)

// faultEndpoint is a request, and what must be true whatever goes wrong with one of
// its calls.
type faultEndpoint struct {
	group, name string

	config  func(*auth.Config)
	setup   func(*faultCell)
	request func(context.Context, *faultCell) faultAnswer

	// want is the answer without a fault, and of a repeated request.
	want string

	// allow has other answers that a request may have, by call and kind, or by call.
	allow map[string]string

	// repeated is another answer that a repeated request may have, after which the
	// user has what the request was for.
	repeated string

	// repeatsAfter is when the request is repeated; 0 means a second. Run publishes
	// what the store has not confirmed within 10 seconds.
	repeatsAfter time.Duration

	// anew is called if the answer to the repeated request is neither want nor
	// repeated: the user begins anew. The answer must be want.
	anew func(context.Context, *faultCell) faultAnswer

	signedOut    bool // at the end, the client has no session
	endsOther    bool // at the end, the session of the other device has ended
	revokes      bool // the request is to end sessions, which may have ended after a 503
	clears       bool // the answer clears the cookies
	reportsLater bool // the event of a call that hangs comes after the answer
	writesNoRow  bool // the record of the session is not written (I3)
	retriesLate  bool // the refresh token has another iat than that of the first answer
}

// faultAnswer is the answer to a request, as its client sees it.
type faultAnswer struct {
	text         string // the status, and the error code of a 4xx
	set, cleared []string
	retryAfter   string
	body         string
	generation   int64 // of the refresh token in the answer, or 0
}

func (a faultAnswer) ok() bool {
	return !strings.HasPrefix(a.text, "4") && !strings.HasPrefix(a.text, "5")
}

// faultCell is one endpoint with one fault.
type faultCell struct {
	*auth.Authenticator
	t       *testing.T
	what    string
	e       *faultEndpoint
	in      *faultInjector
	memory  *auth.MemoryStore
	store   *faultyStore
	users   *faultyUsers
	limiter *faultyLimiter
	factor  *faultyFactor
	events  *events
	handler http.Handler
	stop    func() // ends Run

	main  *faultClient // sends the request
	other *faultClient // another device of the same user, or nil

	running bool              // Run is running
	text    string            // of the endpoint, such as a one-time token
	sent    int               // requests of the endpoint
	issued  map[string]string // refresh tokens by session and generation
	secrets []string
}

// faultClient is a browser.
type faultClient struct {
	c       *faultCell
	agent   string
	cookies map[string]string
}

func newFaultCell(t *testing.T, e *faultEndpoint, what string) *faultCell {
	in := &faultInjector{released: make(chan struct{})}
	c := &faultCell{
		t: t, what: what, e: e, in: in, memory: auth.NewMemoryStore(), events: &events{}, issued: map[string]string{},
		users:   &faultyUsers{updatingUsers{users: newUsers()}, in},
		limiter: &faultyLimiter{auth.NewMemoryLimiter(time.Now), in},
		factor:  &faultyFactor{in: in, codes: []string{"code-one", "code-two", "code-three"}},
		secrets: []string{pass, newPassword, passHash, "code-one", "code-two", "code-three"},
	}
	c.store = &faultyStore{Store: database{c.memory}, in: in, rotated: map[string]int{}}
	config := auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Cookies: &auth.Cookies{},
		Users: c.users, Store: c.store, Limiter: c.limiter, SecondFactor: c.factor, StoreTimeout: faultTimeout,
		Hasher: &password.Hasher{Memory: 64, Time: 1}, OnEvent: c.events.add, TokenCacheSize: -1,
	}
	if e.config != nil {
		e.config(&config)
	}
	a, err := auth.New(config)
	require.NoError(t, err)
	c.Authenticator = a
	mux := http.NewServeMux()
	mux.Handle("/page", a.Require()(hello))
	mux.Handle("/stream", a.RequireStream()(hello))
	mux.Handle("/", a.Handler())
	c.handler = mux
	c.main = &faultClient{c, "laptop", map[string]string{}}
	c.stop = func() {}
	return c
}

// run starts Run, unless it is running, and waits until the process is ready.
func (c *faultCell) run() {
	c.startWith(context.Background())
	<-c.Ready()
	synctest.Wait()
}

// startWith starts Run with the values of a context, unless it is running.
func (c *faultCell) startWith(ctx context.Context) {
	if c.running {
		return
	}
	c.running = true
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Run(ctx)
	}()
	c.stop = func() { cancel(); <-done; c.running = false; c.stop = func() {} }
}

// numbered returns the context of a request whose calls are numbered. Its client
// disconnects when it loses patience.
func numbered() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), requestKey{}, true))
	timer := time.AfterFunc(patience, cancel)
	return ctx, func() { timer.Stop(); cancel() }
}

// send sends a request with the cookies of the client, and stores those of the
// response.
func (cl *faultClient) send(ctx context.Context, method, target, body string, options ...requestOption) faultAnswer {
	c := cl.c
	r := httptest.NewRequestWithContext(ctx, method, target, nil)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("User-Agent", cl.agent)
	for name, value := range cl.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	if body != "" {
		reqJSON(body)(r)
	}
	for _, o := range options {
		o(r)
	}
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	res := readResponse(c.t, w.Result())
	a := faultAnswer{text: fmt.Sprint(res.status), retryAfter: res.header.Get("Retry-After"), body: res.body}
	if res.status >= 400 && res.status < 500 {
		a.text += " " + res.fields(c.t)["error"].(string)
	}
	for name, cookie := range res.cookies {
		if cookie.MaxAge < 0 {
			a.cleared = append(a.cleared, name)
			delete(cl.cookies, name)
			continue
		}
		a.set = append(a.set, name)
		cl.cookies[name] = cookie.Value
	}
	if slices.Contains(a.set, refreshCookie) {
		a.generation = c.keep(cl.cookies[refreshCookie])
	}
	slices.Sort(a.set)
	return a
}

// keep records a refresh token that a client has received. All of one generation
// are equal, except those of a late retry.
func (c *faultCell) keep(token string) (generation int64) {
	p := payloadOf(c.t, token)
	generation = int64(p["gen"].(float64))
	key := fmt.Sprint(p["sid"], " ", generation)
	if first := c.issued[key]; first != "" && !c.e.retriesLate {
		require.Equal(c.t, first, token, "%s: I1, I3: all answers of one generation have the same refresh token", c.what)
	}
	c.issued[key] = token
	c.secrets = append(c.secrets, token)
	return generation
}

// called returns the answer to a request whose handler calls a function of the
// package, and then sets the cookies of the tokens.
func (cl *faultClient) called(t auth.Tokens, err error) faultAnswer {
	c := cl.c
	if err != nil {
		res := auth.ResponseFor(err)
		a := faultAnswer{text: fmt.Sprint(res.Status), body: err.Error(), retryAfter: fmt.Sprint(int(res.RetryAfter / time.Second))}
		if res.Status < 500 {
			a.text += " " + res.Code
		}
		require.Zero(c.t, t, c.what)
		return a
	}
	a := faultAnswer{text: "ok"}
	if t.Access != "" {
		w := httptest.NewRecorder()
		c.SetCookies(w, t)
		for _, cookie := range w.Result().Cookies() {
			cl.cookies[cookie.Name] = cookie.Value
			a.set = append(a.set, cookie.Name)
		}
		a.generation = c.keep(t.Refresh)
	}
	return a
}

// signIn opens a session of u1 for a client, without a fault.
func (cl *faultClient) signIn() {
	c := cl.c
	t, err := c.StartSession(context.Background(), "u1", auth.SessionOptions{Device: auth.Device{UserAgent: cl.agent}, AMR: []string{"pwd"}})
	require.NoError(c.t, err, c.what)
	cl.called(t, nil)
}

// signInOther opens a session on another device of the same user.
func (c *faultCell) signInOther() {
	c.other = &faultClient{c, "phone", map[string]string{}}
	c.other.signIn()
}

// refresh refreshes the tokens of a client n times, each after a cooldown.
func (cl *faultClient) refresh(n int) {
	for range n {
		time.Sleep(defaultCooldown + time.Second)
		require.Equal(cl.c.t, "200", cl.send(context.Background(), "POST", "/refresh", "").text, cl.c.what)
	}
}

// session returns the session of the refresh token of a client, or "".
func (cl *faultClient) session() string {
	if cl == nil || cl.cookies[refreshCookie] == "" {
		return ""
	}
	return payloadOf(cl.c.t, cl.cookies[refreshCookie])["sid"].(string)
}

// claims returns the claims of the access token of a client.
func (cl *faultClient) claims() *auth.Claims {
	claims, err := cl.c.Verify(context.Background(), cl.cookies[accessCookie])
	if err != nil {
		return nil
	}
	return claims
}

// record returns the record of the session of a client.
func (cl *faultClient) record() (auth.Session, error) {
	return cl.c.memory.Get(context.Background(), "u1", cl.session())
}

// isSignedIn reports whether a client can go on: with its access token, and with its
// refresh token.
func (cl *faultClient) isSignedIn() bool {
	c := cl.c
	if cl.session() == "" {
		return false
	}
	_, err := c.Verify(context.Background(), cl.cookies[accessCookie])
	if errors.Is(err, auth.ErrTokenExpired) {
		err = nil
	}
	rec, getErr := cl.record()
	require.Equal(c.t, err == nil, getErr == nil, "%s: the session ends in the process and in the store: %v, %v", c.what, err, getErr)
	if err != nil {
		return false
	}
	generation := rec.Generation
	a := cl.send(context.Background(), "POST", "/refresh", "")
	if a.text != "200" {
		return false
	}
	// I11: a refresh in a cooldown does not rotate, and sets no refresh cookie.
	if time.Since(rec.RotatedAt) <= defaultCooldown && generation > 1 {
		rec, err = cl.record()
		require.NoError(c.t, err, c.what)
		require.Equal(c.t, generation, rec.Generation, "%s: I11: the session rotates at most once within a cooldown", c.what)
		require.NotContains(c.t, a.set, refreshCookie, "%s: I11: the refresh token is not a later one", c.what)
	}
	return true
}

// faultState is what a request may change.
type faultState struct {
	sessions, spent, codes int
	generation             int64
	hashStored             bool
	levels                 map[string]float64
	main, other            string // the error of the access token that the client had before the request
}

// state returns the present state. before are the tokens of the clients before the
// request.
func (c *faultCell) state(before [2]string, session string) faultState {
	ctx := context.Background()
	s := faultState{spent: c.memory.Spent(), codes: len(c.factor.codes), levels: c.limiter.Levels()}
	for _, id := range []string{"u1", "u2"} {
		list, err := c.memory.List(ctx, id)
		require.NoError(c.t, err)
		s.sessions += len(list)
	}
	if rec, err := c.memory.Get(ctx, "u1", session); err == nil {
		s.generation = rec.Generation
	}
	user, err := c.users.users.FindByID(ctx, "u1")
	require.NoError(c.t, err)
	s.hashStored = user.PasswordHash != passHash && user.PasswordHash != weakHash()
	for i, text := range []*string{&s.main, &s.other} {
		if _, err := c.Verify(ctx, before[i]); errors.Is(err, auth.ErrSessionRevoked) {
			*text = "ended"
		}
	}
	return s
}

// marks describes how a state differs from another.
func (s faultState) marks(from faultState) (list []string) {
	count := func(n int, what string) {
		if n*n > 1 && what == "session" {
			what += "s"
		}
		if n != 0 {
			list = append(list, fmt.Sprintf("%+d %s", n, what))
		}
	}
	count(s.sessions-from.sessions, "session")
	if s.generation > from.generation && from.generation > 0 {
		list = append(list, "rotated")
	}
	switch {
	case s.hashStored && !from.hashStored:
		list = append(list, "hash stored")
	case from.hashStored && !s.hashStored:
		list = append(list, "hash not stored")
	}
	count(s.spent-from.spent, "spent")
	count(from.codes-s.codes, "code used")
	for _, kind := range []string{"account", "device", "name", "other", "source"} {
		count(int(s.levels[kind]+0.99)-int(from.levels[kind]+0.99), kind)
	}
	if s.main != from.main {
		list = append(list, "session "+s.main)
	}
	if s.other != from.other {
		list = append(list, "other session "+s.other)
	}
	return list
}

func (s faultState) equal(o faultState) bool { return len(s.marks(o)) == 0 && len(o.marks(s)) == 0 }

// faultResult is what happened in a cell.
type faultResult struct {
	answer, text string
	base, now    faultState
	calls        []faultCall
}

// runFaultCell sends the request of an endpoint with one fault. Then the client does
// what clients do: it repeats the request if the answer was a 503, and goes on with
// the tokens that it has.
func runFaultCell(t *testing.T, e *faultEndpoint, at faultCall, kind faultKind, done *faultResult) (result faultResult) {
	synctest.Test(t, func(t *testing.T) {
		c := newFaultCell(t, e, fmt.Sprintf("%s, %s %s", e.name, at, kind))
		defer func() {
			c.stop()
			close(c.in.released)
		}()
		if e.setup == nil {
			c.run()
		} else {
			e.setup(c)
		}
		before, session := c.tokens(), c.main.session()
		oldRefresh := [2]string{c.main.cookies[refreshCookie]}
		if c.other != nil {
			oldRefresh[1] = c.other.cookies[refreshCookie]
		}
		row, _ := c.main.record()
		result.base = c.state(before, session)
		c.events.take("")

		// The request with the fault.
		ctx, stop := numbered()
		begun := time.Now()
		c.in.arm(at, kind)
		a := e.request(ctx, c)
		elapsed := time.Since(begun)
		calls, hit := c.in.disarm()
		stop()
		require.Equal(t, at.method != "", hit, "%s: the call is made", c.what)
		faults := c.events.take(auth.EventFault)
		result.answer, result.calls, result.now = a.text, calls, c.state(before, session)
		c.checkAnswer(a, at, kind, before)
		c.checkFaults(faults, kind)
		require.LessOrEqual(t, elapsed, soon, "%s: the answer comes soon", c.what)
		if e.writesNoRow {
			after, err := c.main.record()
			require.NoError(t, err, c.what)
			require.Equal(t, row, after, "%s: I3: nothing is written", c.what)
		}
		marks := result.now.marks(result.base)
		if done != nil {
			switch {
			case a.text == e.want:
				marks = result.now.marks(done.now)
			case result.now.equal(done.now) && len(marks) > 0:
				marks = []string{"done"}
			}
		}
		result.text = strings.Join(append([]string{a.text}, marks...), ", ")

		c.run()

		// The client repeats the request, as Retry-After says.
		if a.text == "503" {
			time.Sleep(max(time.Second, e.repeatsAfter))
			a = e.request(context.Background(), c)
			result.text += "; again " + a.text
		}
		if a.text != e.want && a.text != e.repeated && e.anew != nil {
			a = e.anew(context.Background(), c)
			result.text += "; anew " + a.text
		}
		if !hit || result.answer == "503" {
			require.Contains(t, []string{e.want, e.repeated}, a.text, "%s: %s", c.what, a.body)
		}
		time.Sleep(10 * time.Second) // after the client has gone on
		c.checkEnd(oldRefresh)
	})
	return result
}

// tokens returns the access tokens of the clients.
func (c *faultCell) tokens() (list [2]string) {
	list[0] = c.main.cookies[accessCookie]
	if c.other != nil {
		list[1] = c.other.cookies[accessCookie]
	}
	return list
}

// checkAnswer checks the answer to the request with a fault.
func (c *faultCell) checkAnswer(a faultAnswer, at faultCall, kind faultKind, before [2]string) {
	t, e := c.t, c.e
	allowed := []string{e.want, "503"}
	for _, key := range []string{at.String(), at.String() + " " + string(kind)} {
		if text := e.allow[key]; text != "" {
			allowed = append(allowed, text)
		}
	}
	require.Contains(t, allowed, a.text, "%s: I7: a fault is a 503: %s", c.what, a.body)
	switch {
	case a.text == "503":
		require.Equal(t, "1", a.retryAfter, "%s: I7", c.what)
		require.Empty(t, a.set, "%s: I6: a failure sets no cookie", c.what)
		require.Empty(t, a.cleared, "%s: I6: a failure clears no cookie", c.what)
	case !a.ok():
		require.Empty(t, a.set, "%s: I6", c.what)
	}
	require.Equal(t, e.clears && a.text == e.want, len(a.cleared) > 0, "%s: I6: only a logout clears cookies", c.what)
	for i, ends := range []bool{e.signedOut, e.endsOther} {
		if before[i] == "" || ends && (e.revokes || a.text == e.want) || i == 0 && a.text == e.want {
			continue
		}
		if _, err := c.Verify(context.Background(), before[i]); !errors.Is(err, auth.ErrTokenExpired) && c.Health().Ready {
			require.NoError(t, err, "%s: I7: an outage signs nobody out", c.what)
		}
	}
	for _, secret := range append(c.secrets, before[:]...) {
		require.False(t, secret != "" && a.text == "503" && strings.Contains(a.body, secret), "%s: I9: the answer has a secret", c.what)
	}
}

// checkFaults checks the events: a fault is reported once.
func (c *faultCell) checkFaults(faults []auth.Event, kind faultKind) {
	want := 1
	if kind == "" || kind == answersTwice {
		want = 0
	}
	var texts []string
	for _, e := range faults {
		texts = append(texts, e.Err.Error())
		for _, secret := range c.secrets {
			require.False(c.t, secret != "" && strings.Contains(e.Err.Error(), secret), "%s: I9", c.what)
		}
	}
	if c.e.reportsLater && len(faults) == 0 || kind == outage && len(faults) > 0 {
		return
	}
	require.Len(c.t, faults, want, "%s: one event reports the fault: %q", c.what, texts)
}

// checkEnd checks what is true once the fault is over and the client has gone on.
func (c *faultCell) checkEnd(oldRefresh [2]string) {
	t, e, ctx := c.t, c.e, context.Background()
	require.Equal(t, !e.signedOut, c.main.isSignedIn(), "%s: I5: the client goes on", c.what)
	if c.other != nil {
		require.Equal(t, !e.endsOther, c.other.isSignedIn(), "%s: the other device", c.what)
	}
	for i, ended := range []bool{e.signedOut, e.endsOther} {
		if ended && oldRefresh[i] != "" { // I4
			_, err := c.Refresh(ctx, oldRefresh[i], auth.RefreshOptions{})
			require.Equal(t, 401, auth.ResponseFor(err).Status, "%s: I4: a session that has ended accepts no token", c.what)
		}
	}
	for key, n := range c.store.rotated {
		require.Equal(t, 1, n, "%s: I1: generation %s is rotated once", c.what, key)
	}
	list, err := c.memory.List(ctx, "u1")
	require.NoError(t, err)
	for _, s := range list {
		held := slices.Contains([]string{c.main.session(), c.other.session()}, s.ID)
		require.True(t, held, "%s: I8: a session that no client has", c.what)
	}
	for _, ev := range c.events.all {
		if ev.Err != nil {
			for _, secret := range c.secrets {
				require.False(t, secret != "" && strings.Contains(ev.Err.Error(), secret), "%s: I9", c.what)
			}
		}
	}
	if c.text != "" && e.signedOut && c.e.clears {
		_, err := c.Refresh(ctx, c.text, auth.RefreshOptions{})
		require.Equal(t, 401, auth.ResponseFor(err).Status, "%s: I4", c.what)
	}
	// I2: the token that was spent, presented after the window, ends the session.
	rec, err := c.main.record()
	if err != nil || rec.Generation < 2 || e.signedOut {
		return
	}
	spent := c.issued[fmt.Sprint(rec.ID, " ", rec.Generation-1)]
	require.NotEmpty(t, spent, c.what)
	time.Sleep(defaultWindow + time.Minute)
	_, err = c.Refresh(ctx, spent, auth.RefreshOptions{Device: thief})
	require.ErrorIs(t, err, auth.ErrTokenReused, "%s: I2", c.what)
	_, err = c.Refresh(ctx, c.main.cookies[refreshCookie], auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrSessionRevoked, "%s: I2", c.what)
}

// TestFaults_EveryCallOfEveryEndpoint lets each call of a Store, Users, Limiter and
// SecondFactor fail in each way, in a request to each endpoint. The answers are in
// docs/faults.md, which it writes with -update.
func TestFaults_EveryCallOfEveryEndpoint(t *testing.T) {
	t.Parallel()
	endpoints := faultEndpoints()
	rows := make([][]string, len(endpoints))
	t.Run("cells", func(t *testing.T) {
		for i := range endpoints {
			e := &endpoints[i]
			t.Run(e.name, func(t *testing.T) {
				t.Parallel()
				rows[i] = faultRows(t, e)
			})
		}
	})
	if testing.Short() || raceDetector { // some of the cells are missing
		return
	}
	var b strings.Builder
	group := ""
	for i, e := range endpoints {
		if e.group != group {
			group = e.group
			fmt.Fprintf(&b, "\n### %s\n\n| request | call | %s |\n| --- | --- |%s\n", group, joinKinds(), strings.Repeat(" --- |", len(faultKinds)))
		}
		b.WriteString(strings.Join(rows[i], ""))
	}
	text, err := os.ReadFile(faultPage)
	require.NoError(t, err)
	intro, _, found := strings.Cut(string(text), faultsBegin)
	require.True(t, found, "%s must contain the line %s", faultPage, faultsBegin)
	want := intro + faultsBegin + b.String()
	if *update {
		require.NoError(t, os.WriteFile(faultPage, []byte(want), 0o600))
		return
	}
	require.Equal(t, want, string(text), "%s is out of date; run go test -run TestFaults_EveryCallOfEveryEndpoint . -update", faultPage)
}

func joinKinds() string {
	var list []string
	for _, k := range faultKinds {
		list = append(list, string(k))
	}
	return strings.Join(list, " | ")
}

// faultRows returns the rows of an endpoint. With -short, and with the race detector,
// it makes only some kinds of faults.
func faultRows(t *testing.T, e *faultEndpoint) (rows []string) {
	done := runFaultCell(t, e, faultCall{}, "", nil)
	require.Equal(t, e.want, done.answer, e.name)
	if i := slices.IndexFunc(done.calls, func(c faultCall) bool { return c.method == "Store.Rotate" }); i >= 0 && done.now.generation > done.base.generation {
		require.Len(t, done.calls, i+1, "%s: I10: after Rotate, there is nothing that can fail", e.name)
	}
	kinds := faultKinds
	switch {
	case testing.Short():
		kinds = []faultKind{outage}
	case raceDetector:
		kinds = []faultKind{hangsForGood, outage} // those with other goroutines
	}
	name := e.name + " → " + done.text
	if len(done.calls) == 0 {
		return []string{fmt.Sprintf("| %s | none |%s\n", name, strings.Repeat(" |", len(faultKinds)))}
	}
	for _, call := range done.calls {
		if call.method == "Store.Changes" && call.nth > 1 {
			continue // it waits, and is not part of the request
		}
		row := fmt.Sprintf("| %s | `%s` |", name, call)
		for _, kind := range kinds {
			if call.isRead() && (kind == failsAfter || kind == hangsAfter || kind == answersTwice) {
				row += " – |" // nothing is carried out
				continue
			}
			t.Run(fmt.Sprint(call, " ", kind), func(t *testing.T) {
				row += " " + runFaultCell(t, e, call, kind, &done).text + " |"
			})
		}
		rows, name = append(rows, row+"\n"), ""
	}
	return rows
}

// post returns a request of the main client.
func post(path, body string, options ...requestOption) func(context.Context, *faultCell) faultAnswer {
	return func(ctx context.Context, c *faultCell) faultAnswer {
		return c.main.send(ctx, "POST", path, body, options...)
	}
}
