package auth_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// This file is an abstract model of retry keys: a server with one session, a
// program that may crash between any two steps, and a thief. All states that
// they can reach are visited. TestModel_… of other files play histories against
// the package itself.
//
// Time passes in ticks. All times are ages: how many ticks ago something was.
// Ages do not grow beyond kOld.
const (
	kWindow   = 2
	kCooldown = 3 * kWindow
	kLeeway   = 1
	// kFlight is the longest time between sending a request and its arrival.
	// Together with the difference of the clocks, it does not exceed kWindow.
	kFlight = 1
	kOld    = kCooldown + 1
)

// kToken is a refresh token: its generation, and the age of its iat.
type kToken struct{ gen, iat int8 }

// kTag is a retry tag: the key and the generation that it was computed from. The
// zero kTag is no tag.
type kTag struct{ key, gen int8 }

// kRecord is the record of the session.
type kRecord struct {
	gen, rotated int8
	tag          kTag
	used         int8 // 1 if the current token was presented; for rule untilUsed only
	dead         int8
}

func (s kRecord) String() string {
	if s.tag.key == 0 {
		return fmt.Sprint(s.gen)
	}
	return fmt.Sprintf("%d tag(key %d, %d)", s.gen, s.tag.key, s.tag.gen)
}

// Ways to present a key.
const (
	noKey     = iota
	keyDigest // "sha256=" and the digest, in the first request of a key
	keyItself
)

// kRules are the rules of the server. The zero value has the right ones, and
// each field removes one of them.
type kRules struct {
	noSpentTag   bool // the key of the rotation before may be used again
	noIatRule    bool // a young token rotates its session
	unboundTag   bool // the tag does not depend on the generation
	digestProves bool // a digest suffices for a late retry
	untilUsed    bool // no keys: the predecessor is accepted until its successor is used
}

// Outcomes of a request.
const (
	rotated = iota
	healed
	cooling // the same token again, in the cooldown
	retried // within the window
	late    // a late retry
	reused  // the session has ended
)

// serve is what a refresh does at a node whose clock is skew ticks ahead. It
// returns the token of the response.
func (rules kRules) serve(s *kRecord, skew int8, t kToken, key int8, shown int8) (int, kToken) {
	tag := func(gen int8) kTag {
		switch {
		case shown == noKey:
			return kTag{}
		case rules.unboundTag:
			return kTag{key, 0}
		}
		return kTag{key, gen}
	}
	age, young := s.rotated+skew, false
	if iat := t.iat + skew; !rules.noIatRule && t.gen != 1 {
		young = iat < kCooldown && iat >= -kLeeway
	}
	var result int
	switch {
	case t.gen > s.gen:
		s.gen, result = t.gen, healed
	case t.gen == s.gen && !young && (t.gen == 1 || age >= kCooldown || age < -kLeeway):
		s.gen++
		result = rotated
	case t.gen == s.gen:
		if rules.untilUsed {
			s.used = 1
		}
		return cooling, t
	case t.gen == s.gen-1 && age <= kWindow:
		return retried, kToken{s.gen, s.rotated}
	case t.gen == s.gen-1 && rules.untilUsed && s.used == 0:
		return late, kToken{s.gen, s.rotated}
	case t.gen == s.gen-1 && (shown == keyItself || rules.digestProves && shown == keyDigest) && s.tag == tag(t.gen):
		return late, kToken{s.gen, -skew}
	default:
		s.dead = 1
		return reused, kToken{}
	}
	spent := s.tag
	s.rotated, s.tag, s.used = -skew, tag(t.gen), 0
	if shown != noKey && spent == tag(t.gen-1) && !rules.noSpentTag {
		s.tag = kTag{}
	}
	if result == healed {
		return healed, t
	}
	return rotated, kToken{s.gen, -skew}
}

// kRequest is a request on its way to the server.
type kRequest struct {
	t     kToken
	key   int8
	shown int8
	from  int8 // 0: no request; 1, 2: that process or tab waits for the response; 3: nobody does
	age   int8
}

// kResponse is a response on its way to a process or a tab.
type kResponse struct {
	to      int8 // 0: no response
	sent, t kToken
	age     int8 // since the request was sent
}

// Rules of clients. The zero value has the right ones, and each other value
// breaks one of them.
type kClient int

const (
	rightClient   kClient = iota
	withoutKeys           // as a client that knows nothing of keys
	oneKeyForever         // the same key for every token
	forgetsAfter200
	sendsBeforeSaving  // the key is saved after the request was sent
	dropsKeyFirst      // two writes: no key, then the token
	dropsKeyLast       // two writes: the token, then no key
	appliesEverything  // also the response to a token that it no longer holds
	digestEveryTime    // never the key itself
	waitsForever       // does not give up a request after a window
	dropsKeyOfAnother  // two writes, but with the generation of the key beside it
	ownKeys            // processes that share a token file do not share its key
	removesAnotherKey  // a tab removes the key that is pending, whichever that is
	removesAtAny200    // a tab removes the key also if the generation is the same
	createsNotAtomic   // a tab does not see the key that another tab is creating
	remembersTheKey    // a tab reads the key once, when the page is opened
	oneTabWithoutKeys  // for example a redirect by the server
	closesBetweenSteps // a page may close between storing the cookie and removing the key
)

// What a thief copies, once.
type kLoot int8

const (
	nothing kLoot = iota
	tokenOnly
	tokenAndKey   // the token file
	recordedFirst // a request that shows the digest of a key
	loggedFirst   // the same, after it has rotated the session
	recordedRetry // a request that shows the key
)

// kSetup is one configuration of the model of programs.
type kSetup struct {
	rules    kRules
	client   kClient
	procs    int8   // processes that share one token file
	requests int    // that may be on their way at once
	skews    []int8 // of the nodes' clocks
	failover bool   // one failover, which loses the latest writes
	instant  bool   // requests and responses take no time, but may be lost
	loot     kLoot  // what the thief copies
	bound    int8   // how many generations the thief may follow
	perRide  bool   // the bound counts from the last retry within the window
	noPauses bool   // a process that has read the file sends the request within kFlight
}

type kProcess struct {
	state int8 // 0: idle; 1: about to send req; 2: has carried out the first of two writes
	req   kRequest
	then  kToken // state 2: what the second write stores
}

// kThief is what the thief has.
type kThief struct {
	active int8
	t      [2]kToken // the latest tokens
	key    int8
	shown  int8 // how it can present the key
}

// programs is a state of the model.
type programs struct {
	s, copied kRecord
	failover  int8 // 0: still to come; 1: writes since copied will be lost; 2: over
	t         kToken
	key       int8 // the token file; 0 is no key
	keyOf     int8 // the generation that is stored beside the key; for dropsKeyOfAnother only
	proc      [2]kProcess
	req       [2]kRequest
	resp      [2]kResponse
	thief     kThief
	by        int8 // who has the current token; 1: the program, 2: the thief, 3: both
	follows   int8 // late retries by one of them after a rotation by the other
	signedOut int8 // the session ended, by whose request
}

func (c *kSetup) start() programs {
	s := programs{s: kRecord{gen: 1}, t: kToken{gen: 1}, by: 1}
	if !c.failover {
		s.failover = 2
	}
	return s
}

// names replaces generations and keys by the smallest numbers that mean the same,
// so that histories of any length lead to finitely many states.
type names struct {
	base, shift int8
	keys        [16]int8
	n           int8
	s, copied   *kRecord
}

func newNames(s, copied *kRecord, lossy bool) *names {
	n := &names{base: s.gen, s: s, copied: copied}
	if lossy {
		n.base = min(n.base, copied.gen)
	}
	n.shift = max(0, n.base-4)
	return n
}

// gen replaces a generation. Generation 1 has a rule of its own, so no other one
// becomes 1. Two generations behind is the same as more than two.
func (n *names) gen(g *int8) {
	if *g > 0 && n.base >= 4 {
		*g = max(2, *g-n.shift)
	}
}

func (n *names) key(k *int8) {
	if *k == 0 {
		return
	}
	if n.keys[*k] == 0 {
		n.n++
		n.keys[*k] = n.n
	}
	*k = n.keys[*k]
}

// records replaces the numbers in the records, after all others. A key that
// nobody has any more is the same as no key.
func (n *names) records() {
	for _, s := range []*kRecord{n.s, n.copied} {
		n.gen(&s.gen)
		n.gen(&s.tag.gen)
		if s.tag.key = n.keys[s.tag.key]; s.tag.key == 0 {
			s.tag = kTag{}
		}
	}
}

func (w *programs) rename() {
	n := newNames(&w.s, &w.copied, w.failover == 1)
	if w.proc[0].order() < w.proc[1].order() { // the processes are alike
		w.proc[0], w.proc[1] = w.proc[1], w.proc[0]
		for i := range w.proc {
			w.proc[i].req.from = swapped[w.proc[i].req.from]
		}
		for i := range w.req {
			w.req[i].from = swapped[w.req[i].from]
		}
		for i := range w.resp {
			w.resp[i].to = swapped[w.resp[i].to]
		}
	}
	slices.SortFunc(w.req[:], func(a, b kRequest) int { return b.order() - a.order() })
	if w.resp[0].order() < w.resp[1].order() {
		w.resp[0], w.resp[1] = w.resp[1], w.resp[0]
	}
	n.key(&w.key)
	n.gen(&w.t.gen)
	n.gen(&w.keyOf)
	for i := range w.proc {
		n.key(&w.proc[i].req.key)
		n.gen(&w.proc[i].req.t.gen)
		n.gen(&w.proc[i].then.gen)
	}
	for i := range w.req {
		n.key(&w.req[i].key)
		n.gen(&w.req[i].t.gen)
	}
	for i := range w.resp {
		n.gen(&w.resp[i].sent.gen)
		n.gen(&w.resp[i].t.gen)
	}
	n.key(&w.thief.key)
	for i := range w.thief.t {
		n.gen(&w.thief.t[i].gen)
	}
	n.records()
}

var swapped = [4]int8{0, 2, 1, 3}

func (p kProcess) order() int {
	r := p.req
	r.from = 0
	return int(p.state)<<24 + r.order()
}

func (r kRequest) order() int {
	return ((int(r.from)*32+int(r.t.gen))*64+int(r.t.iat)+32)*64 + int(r.shown)*8 + int(r.age)
}

func (r kResponse) order() int {
	return ((((int(r.to)*32+int(r.t.gen))*64+int(r.t.iat)+32)*32+int(r.sent.gen))*64+int(r.sent.iat)+32)*8 + int(r.age)
}

// unusedKey returns a number that is no key.
func (w *programs) unusedKey() int8 {
	k := max(w.key, w.thief.key)
	for i := range w.proc {
		k = max(k, w.proc[i].req.key)
	}
	for i := range w.req {
		k = max(k, w.req[i].key)
	}
	return k + 1
}

func older(age *int8, most int8) {
	if *age < most {
		*age++
	}
}

// oldest returns the age beyond which ages do not matter.
func oldest(skews []int8) int8 {
	most := int8(0)
	for _, s := range skews {
		most = max(most, s, -s)
	}
	return kOld + most
}

func (c *kSetup) next(w programs, visit func(step, programs)) {
	emit := func(text string, n int, to programs) {
		to.rename()
		visit(step{text, int8(n)}, to)
	}
	if w.s.dead == 1 {
		return
	}
	for p := range int(c.procs) {
		c.process(&w, p, emit)
	}
	for i, r := range w.req {
		if r.from == 0 {
			continue
		}
		to := w
		to.req[i] = kRequest{}
		emit("a request is lost", 0, to)
		for n := range c.skews {
			c.arrive(&w, i, n, emit)
		}
	}
	if c.failover && w.failover == 1 {
		to := w
		to.s, to.copied, to.failover = w.copied, kRecord{}, 2
		emit("a failover loses the latest writes", 0, to)
	}
	if c.loot != nothing {
		c.steal(&w, emit)
	}
	c.tick(&w, emit)
}

// process visits the steps of one process of the program.
func (c *kSetup) process(w *programs, p int, emit func(string, int, programs)) {
	from := int8(p + 1)
	switch q := w.proc[p]; q.state {
	case 0:
		to := *w
		req := kRequest{t: w.t, key: w.key, shown: keyItself, from: from}
		switch {
		case c.client == withoutKeys:
			req.shown = noKey
		case w.key == 0 || c.client == ownKeys || c.client == dropsKeyOfAnother && w.keyOf != w.t.gen:
			req.key, req.shown = w.unusedKey(), keyDigest
			if c.client != sendsBeforeSaving {
				to.key = req.key
			}
			if c.client == dropsKeyOfAnother {
				to.keyOf = w.t.gen
			}
		case c.client == digestEveryTime:
			req.shown = keyDigest
		}
		to.proc[p] = kProcess{state: 1, req: req}
		text := "process %d reads the token and its key"
		if req.shown == keyDigest {
			text = "process %d saves a new key"
		}
		if req.shown == noKey {
			text = "process %d reads the token"
		}
		emit(text, p, to)
	case 1:
		for i := range c.requests {
			if w.req[i].from != 0 {
				continue
			}
			to := *w
			to.req[i] = q.req
			to.proc[p] = kProcess{}
			emit("process %d sends the request", p, to)
			if c.client == sendsBeforeSaving && q.req.shown == keyDigest {
				to.key = q.req.key
				emit("process %d sends the request and saves the key", p, to)
			}
			break
		}
	case 2:
		to := *w
		to.proc[p] = kProcess{}
		if c.client == dropsKeyFirst {
			to.t = q.then
			emit("process %d saves the token", p, to)
		} else {
			to.key, to.keyOf = 0, 0
			emit("process %d drops the key", p, to)
		}
	}
	// A crash while nothing is going on changes nothing.
	crashed := *w
	crashed.proc[p] = kProcess{}
	waits := w.proc[p].state != 0
	for i := range w.req {
		if crashed.req[i].from == from {
			crashed.req[i].from, waits = 3, true
		}
	}
	for i := range w.resp {
		if crashed.resp[i].to == from {
			crashed.resp[i], waits = kResponse{}, true
		}
	}
	if waits {
		emit("process %d crashes", p, crashed)
	}
	for i, r := range w.resp {
		if r.to != from || w.proc[p].state == 2 {
			continue
		}
		to := *w
		to.resp[i] = kResponse{}
		emit("process %d loses a response", p, to)
		if w.t != r.sent && c.client != appliesEverything {
			continue
		}
		isLater := r.t.gen > r.sent.gen
		switch {
		case isLater && c.client == dropsKeyFirst:
			to.key, to.proc[p] = 0, kProcess{state: 2, then: r.t}
			emit("process %d drops the key", p, to)
		case isLater && (c.client == dropsKeyLast || c.client == dropsKeyOfAnother):
			to.t, to.proc[p] = r.t, kProcess{state: 2}
			emit("process %d saves the token", p, to)
		default:
			to.t = r.t
			if isLater && to.proc[p].state == 1 {
				to.proc[p] = kProcess{} // it reads the token again
			}
			if (isLater || c.client == forgetsAfter200) && c.client != oneKeyForever {
				to.key = 0
			}
			emit("process %d saves the response", p, to)
		}
	}
}

// serve plays a request at node n and accounts for what its sender gains. Before
// a write it also visits the state in which a failover will lose this write.
func (c *kSetup) serve(w programs, r kRequest, by int8, n int, then func(to programs, result int, t kToken)) {
	to := w
	result, t := c.rules.serve(&to.s, c.skews[n], r.t, r.key, r.shown)
	switch result {
	case reused:
		to.signedOut = by
	case rotated:
		to.by = by
	case late:
		if to.by == 3-by {
			to.by, to.follows = 3, min(to.follows+1, c.bound+1)
		}
	case retried:
		if to.by == 3-by {
			to.by = 3
			if c.perRide {
				to.follows = 0
			}
		}
	}
	if w.failover == 1 && to.s.gen > w.copied.gen+3 {
		return // it loses at most three rotations
	}
	then(to, result, t)
	if to.s != w.s && to.s.dead == 0 && w.failover == 0 {
		to.copied, to.failover = w.s, 1
		then(to, result, t)
	}
}

var outcomeTexts = [...]string{
	rotated: "a request arrives at node %d: rotated", healed: "a request arrives at node %d: healed",
	cooling: "a request arrives at node %d: the same token again", retried: "a request arrives at node %d: retry",
	late: "a request arrives at node %d: late retry", reused: "a request arrives at node %d: REUSE",
}

func (c *kSetup) arrive(w *programs, i, n int, emit func(string, int, programs)) {
	r := w.req[i]
	c.serve(*w, r, 1, n, func(to programs, result int, t kToken) {
		to.req[i] = kRequest{}
		if r.from != 3 && result != reused {
			for k := range to.resp[:c.requests] {
				if to.resp[k].to == 0 {
					to.resp[k] = kResponse{to: r.from, sent: r.t, t: t, age: r.age}
					break
				}
			}
		}
		emit(outcomeTexts[result], n, to)
		if c.loot == loggedFirst && result == rotated && r.shown == keyDigest && to.thief.active == 0 {
			to.thief = kThief{active: 1, t: [2]kToken{r.t}, key: r.key, shown: r.shown}
			emit(outcomeTexts[result]+", and the thief reads it", n, to)
		}
	})
}

// steal visits the steps of the thief, whose requests are never lost.
func (c *kSetup) steal(w *programs, emit func(string, int, programs)) {
	if w.thief.active == 0 {
		to := *w
		to.thief.active = 1
		switch c.loot {
		case tokenOnly:
			to.thief.t[0] = w.t
			emit("the thief copies the token", 0, to)
		case tokenAndKey:
			to.thief.t[0], to.thief.key = w.t, w.key
			if w.key != 0 {
				to.thief.shown = keyItself
			}
			emit("the thief copies the token file", 0, to)
		case recordedFirst, recordedRetry:
			shown := int8(keyDigest)
			if c.loot == recordedRetry {
				shown = keyItself
			}
			for _, r := range w.req {
				if r.from == 0 || r.shown != shown {
					continue
				}
				to.thief.t[0], to.thief.key, to.thief.shown = r.t, r.key, r.shown
				emit("the thief records a request", 0, to)
			}
		}
		return
	}
	for i, t := range w.thief.t {
		if t.gen == 0 {
			continue
		}
		for shown := range w.thief.shown + 1 {
			if shown == keyDigest && w.thief.shown == keyItself {
				continue // the key itself is as good
			}
			for n := range c.skews {
				c.serve(*w, kRequest{t: t, key: w.thief.key, shown: shown}, 2, n, func(to programs, result int, got kToken) {
					if got.gen > t.gen {
						to.thief.t[0], to.thief.t[1] = got, w.thief.t[0]
						if i == 1 && w.thief.t[0].gen > t.gen {
							to.thief.t[1] = t
						}
					}
					emit("the thief: "+outcomeTexts[result], n, to)
				})
			}
		}
	}
}

func (c *kSetup) tick(w *programs, emit func(string, int, programs)) {
	to, most := *w, oldest(c.skews)
	for i := range to.req {
		if r := &to.req[i]; r.from != 0 {
			if c.instant || r.age >= kFlight {
				return // it must arrive first, or be lost
			}
			r.age++
			older(&r.t.iat, most)
		}
	}
	for i := range to.proc {
		if p := &to.proc[i]; p.state == 1 {
			if c.noPauses {
				if p.req.age >= kFlight {
					return
				}
				p.req.age++
			}
			older(&p.req.t.iat, most)
		}
		older(&to.proc[i].then.iat, most)
	}
	for i := range to.resp {
		if r := &to.resp[i]; r.to != 0 {
			if c.instant {
				return
			}
			older(&r.sent.iat, most)
			older(&r.t.iat, most)
			if r.age < kWindow-1 {
				r.age++
			} else if c.client != waitsForever {
				*r = kResponse{} // the process gives up
			}
		}
	}
	older(&to.s.rotated, most)
	if to.failover == 1 {
		older(&to.copied.rotated, most)
	}
	older(&to.t.iat, most)
	for i := range to.thief.t {
		if to.thief.t[i].gen != 0 {
			older(&to.thief.t[i].iat, most)
		}
	}
	if to != *w {
		emit("a tick", 0, to)
	}
}

// fault is what must not happen: without a thief, that a client is signed out,
// and with one, that the thief follows for longer than the bound.
func (c *kSetup) fault(w programs) string {
	switch {
	case c.loot == nothing && w.s.dead == 1:
		return "an honest program is signed out"
	case c.loot != nothing && w.follows > c.bound:
		return fmt.Sprintf("a thief follows for more than %d generations", c.bound)
	}
	return ""
}

func (w programs) String() string {
	text := "stored " + w.s.String() + fmt.Sprintf("; file %d", w.t.gen)
	if w.key != 0 {
		text += fmt.Sprintf(" key %d", w.key)
	}
	for _, t := range w.thief.t {
		if t.gen != 0 {
			text += fmt.Sprintf("; thief %d", t.gen)
		}
	}
	return text
}

func (c kSetup) explore(limit int) found {
	m := machine[programs]{start: c.start(), next: c.next, fault: c.fault, show: programs.String}
	m.start.rename()
	return explore(&m, limit)
}

var twoNodes = []int8{0, kLeeway}

// statesToVisit is how many states of one configuration are visited: all of nearly
// every one with AUTH_LONG=1, and a few seconds of work otherwise.
func statesToVisit() int {
	if raceDetector {
		return iterations(30_000, 30_000)
	}
	return iterations(100_000, 3_000_000)
}

// An honest program with retry keys is never signed out, however late it repeats a
// request, and wherever it crashes.
func TestRetryKeyModel_ProgramsStaySignedIn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]kSetup{
		"one request at a time":           {procs: 1, requests: 1, skews: twoNodes},
		"requests that overtake":          {procs: 1, requests: 2, skews: twoNodes},
		"a failover":                      {procs: 1, requests: 2, skews: twoNodes, failover: true},
		"two processes with one file":     {procs: 2, requests: 2, skews: twoNodes, noPauses: true},
		"a clock that is far ahead":       {procs: 1, requests: 1, skews: []int8{0, 9}, failover: true},
		"a clock that is far behind":      {procs: 1, requests: 1, skews: []int8{0, -9}, failover: true},
		"instant, and never given up":     {procs: 1, requests: 2, skews: twoNodes, instant: true, client: waitsForever},
		"the key is dropped a step later": {procs: 1, requests: 2, skews: twoNodes, client: dropsKeyOfAnother},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := c.explore(statesToVisit())
			require.Empty(t, f.fault, f.String())
			t.Logf("%d states, all: %v", f.states, f.complete)
		})
	}
}

// Each rule of the server and of programs is necessary: without it, an honest
// program is signed out. The histories are the shortest that show it.
func TestRetryKeyModel_ProgramsNeedTheRules(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes more than a second")
	}
	for _, c := range []struct {
		name  string
		steps int
		kSetup
	}{
		{"no keys", 9, kSetup{client: withoutKeys}},
		{"a key is forgotten after any 200", 23, kSetup{client: forgetsAfter200, requests: 2}},
		{"a key is saved after the request was sent", 9, kSetup{client: sendsBeforeSaving}},
		{"a key is dropped before the token is saved", 11, kSetup{client: dropsKeyFirst}},
		{"a key is dropped after the token was saved", 20, kSetup{client: dropsKeyLast}},
		{"a key is used for every token", 19, kSetup{client: oneKeyForever}},
		{"the key itself is never sent", 9, kSetup{client: digestEveryTime}},
		{"a response to another token is saved", 24, kSetup{client: appliesEverything, requests: 2}},
		{"a request is not given up after a window", 16, kSetup{client: waitsForever, requests: 2}},
		{"two processes have a key each", 9, kSetup{client: ownKeys, procs: 2, noPauses: true}},
		{"a process pauses before it sends a request", 9, kSetup{procs: 2}},
		{"a young token rotates its session", 19, kSetup{rules: kRules{noIatRule: true}, requests: 2}},
		{"a tag does not depend on the generation", 23, kSetup{rules: kRules{unboundTag: true}, failover: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.procs, c.requests = max(1, c.procs), max(1, c.requests)
			if c.skews == nil {
				c.skews = []int8{0}
			}
			f := c.explore(3_000_000)
			t.Log(f)
			require.NotEmpty(t, f.fault)
			require.Len(t, f.history, c.steps)
		})
	}
}

// A thief follows for as many generations as the documentation says. A request
// within the window of a rotation is answered, with and without keys, so it does
// not count.
func TestRetryKeyModel_ThievesAreDetected(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		bound int8
		steps int // to the first generation that a smaller bound does not allow
		kSetup
	}{
		{"a token of a program without keys", 0, 0, kSetup{loot: tokenOnly, client: withoutKeys}},
		{"a token", 0, 0, kSetup{loot: tokenOnly}},
		{"a logged first request", 0, 0, kSetup{loot: loggedFirst}},
		{"a recorded first request, which the thief may send first", 1, 10, kSetup{loot: recordedFirst}},
		{"a recorded retry", 1, 10, kSetup{loot: recordedRetry}},
		{"a token and its pending key", 1, 8, kSetup{loot: tokenAndKey}},
		{"a token and the only key, between retries within the window", 1, 8, kSetup{loot: tokenAndKey, client: oneKeyForever, perRide: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.procs, c.requests, c.skews, c.instant, c.kSetup.bound = 1, 1, twoNodes, true, c.bound
			f := c.explore(statesToVisit())
			require.Empty(t, f.fault, f.String())
			t.Logf("%d states, all: %v", f.states, f.complete)
			if c.bound > 0 { // the bound is reached
				c.kSetup.bound--
				f := c.explore(statesToVisit())
				t.Log(f)
				require.Len(t, f.history, c.steps)
			}
		})
	}
}

// Without a rule of the server, a thief follows for longer.
func TestRetryKeyModel_ThievesFollowWithoutTheRules(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes more than a second")
	}
	for _, c := range []struct {
		name  string
		bound int8
		steps int
		kSetup
	}{
		{"the predecessor is accepted until its successor is used", 3, 41, kSetup{loot: tokenOnly, client: withoutKeys, rules: kRules{untilUsed: true}}},
		{"a key is accepted for the next token too", 3, 42, kSetup{loot: tokenAndKey, client: oneKeyForever, perRide: true, rules: kRules{noSpentTag: true}}},
		{"a digest proves who sent the request", 0, 8, kSetup{loot: loggedFirst, rules: kRules{digestProves: true}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.procs, c.requests, c.skews, c.instant, c.kSetup.bound = 1, 1, []int8{0}, true, c.bound
			f := c.explore(3_000_000)
			t.Log(f)
			require.NotEmpty(t, f.fault)
			require.Len(t, f.history, c.steps)
		})
	}
}
