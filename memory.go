package auth

import (
	"cmp"
	"context"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// MemoryStore is a [Store] in the memory of a process, for tests and for a single
// process whose sessions may end with it. It is safe for concurrent use. Create
// it with [NewMemoryStore].
//
// Several Authenticators and Verifiers may share a MemoryStore, as Config.Store
// or VerifierConfig.Feed. A revocation by one of them, or by Revoke, takes effect
// in all of them before the call returns. None of them needs [Verifier.Run].
//
// An Authenticator or a Verifier on a MemoryStore accepts only access tokens that
// were issued by an Authenticator on the same MemoryStore. They have its random
// ID in the claim mem_store. The error for other tokens is [ErrTokenExpired]. So
// a process that restarts does not accept tokens whose sessions ended in the
// process before it, and a Verifier does not accept tokens whose revocations
// cannot reach it. A Verifier without a Feed, or with another one, does not check
// the claim.
//
// A type that embeds or wraps a MemoryStore is a store of another kind: its
// Authenticators follow its feed, so they need Run, and their tokens do not have
// the claim. Do not also pass the MemoryStore itself to an Authenticator or a
// Verifier that accepts these tokens.
//
// Create, Rotate and Spend examine a few records and remove those that expired
// more than a minute ago. So the memory in use is proportional to the number of
// live sessions and of uses that Spend must remember, without a goroutine. The
// store takes the time from Create, Rotate and its Authenticators, so it follows
// a clock that is set back. It removes nothing if it never gets the time, because
// only its own Spend is called.
type MemoryStore struct {
	seed   maphash.Seed
	mask   uint64 // applied to hashes; all ones except in a test of collisions
	shards [64]memoryShard
	clock  atomic.Int64 // Unix milliseconds
	feed   memoryFeed

	// revoked is the set of the Verifiers and Authenticators on this store. It
	// has every revocation as soon as Revoke returns.
	revoked revocationSet
}

// memoryShard has the sessions of some of the subjects. The keys of its maps are
// hashes, which are smaller than names. Lookups compare the names in the records.
type memoryShard struct {
	mu       sync.Mutex
	sessions map[uint64]*memoryRecord
	subjects map[uint64]*memoryRecord // the first record of each subject
	all      []*memoryRecord          // tick scans it for expired records
	scanAt   int                      // index in all of the next record to scan
	spent    memorySpent
}

// memoryRecord is a compact Session: 112 bytes and its texts.
type memoryRecord struct {
	text                            string // Subject, ID and Opaque
	device                          string // IP and user agent
	keys                            string // RetryTag and Key, which differ in length
	generation                      int64
	createdAt, rotatedAt, expiresAt int64         // Unix milliseconds
	next, prev                      *memoryRecord // records whose subjects have the same hash
	twin                            *memoryRecord // the next session with the same hash
	index                           uint32        // index in all
	ipLen                           uint16
	subjectLen, idLen               uint8
}

// setKeys sets RetryTag and Key. It allocates nothing if both are empty, which is
// the usual case.
func (r *memoryRecord) setKeys(tag, key string) { r.keys = tag + key }

// splitKeys returns RetryTag and Key. A RetryTag is 16 bytes or none, and a Key
// is 33 bytes or none, so the length says which of them there are.
func (r *memoryRecord) splitKeys() (tag, key string) {
	n := len(r.keys) % keyLen
	return r.keys[:n], r.keys[n:]
}

// memoryKey identifies a session, and contains its hashes.
type memoryKey struct {
	subject, id         string
	subjectHash, idHash uint64
}

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore {
	m := &MemoryStore{seed: maphash.MakeSeed(), mask: ^uint64(0)}
	m.feed.changed = make(chan struct{})
	m.feed.name = randomID()
	m.revoked.process = m.feed.name
	return m
}

// id returns the random ID of the store.
func (m *MemoryStore) id() string { return m.feed.name }

// has reports whether the store has a session, expired or not.
func (m *MemoryStore) has(subject, id string) bool {
	k, sh := m.find(subject, id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.get(k) != nil
}

// find returns the key of a session and the shard that holds it.
func (m *MemoryStore) find(subject, id string) (memoryKey, *memoryShard) {
	h := maphash.String(m.seed, subject)
	k := memoryKey{subject, id, h & m.mask, (bits.RotateLeft64(h, 17) ^ maphash.String(m.seed, id)) & m.mask}
	return k, &m.shards[k.subjectHash%uint64(len(m.shards))]
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func (r *memoryRecord) subject() string { return r.text[:r.subjectLen] }
func (r *memoryRecord) id() string      { return r.text[r.subjectLen:][:r.idLen] }

func (r *memoryRecord) ip() netip.Addr {
	var ip netip.Addr
	_ = ip.UnmarshalBinary([]byte(r.device[:r.ipLen])) // setDevice encoded it
	return ip
}

// setDevice sets the device. It allocates nothing if the device is unchanged,
// which is the usual case.
func (r *memoryRecord) setDevice(d Device) {
	if r.device != "" && r.device[r.ipLen:] == d.UserAgent && r.ip() == d.IP {
		return
	}
	var buf [64]byte
	ip, _ := d.IP.AppendBinary(buf[:0]) // never fails
	var text strings.Builder
	text.Grow(len(ip) + len(d.UserAgent))
	text.Write(ip)
	text.WriteString(d.UserAgent)
	r.device, r.ipLen = text.String(), uint16(len(ip))
}

func (r *memoryRecord) session() Session {
	s := Session{
		ID: r.id(), Subject: r.subject(), Generation: r.generation,
		CreatedAt: fromMillis(r.createdAt), RotatedAt: fromMillis(r.rotatedAt), ExpiresAt: fromMillis(r.expiresAt),
		Device: Device{UserAgent: r.device[r.ipLen:], IP: r.ip()},
	}
	if data := r.text[int(r.subjectLen)+int(r.idLen):]; data != "" {
		s.Opaque = []byte(data)
	}
	tag, key := r.splitKeys()
	if tag != "" {
		s.RetryTag = []byte(tag)
	}
	if key != "" {
		s.Key = []byte(key)
	}
	return s
}

func (sh *memoryShard) get(k memoryKey) *memoryRecord {
	r := sh.sessions[k.idHash]
	for r != nil && (r.id() != k.id || r.subject() != k.subject) {
		r = r.twin
	}
	return r
}

// Create implements [Store].
func (m *MemoryStore) Create(ctx context.Context, s Session) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.Check(); err != nil {
		return err
	}
	k, sh := m.find(s.Subject, s.ID)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.tick(m, s.RotatedAt)
	if sh.get(k) != nil {
		return ErrSessionExists
	}
	if sh.sessions == nil {
		sh.sessions, sh.subjects = map[uint64]*memoryRecord{}, map[uint64]*memoryRecord{}
	}
	r := &memoryRecord{
		text: s.Subject + s.ID + string(s.Opaque), subjectLen: uint8(len(s.Subject)), idLen: uint8(len(s.ID)), generation: s.Generation,
		createdAt: s.CreatedAt.UnixMilli(), rotatedAt: s.RotatedAt.UnixMilli(), expiresAt: s.ExpiresAt.UnixMilli(),
		next: sh.subjects[k.subjectHash], twin: sh.sessions[k.idHash], index: uint32(len(sh.all)),
	}
	r.setDevice(s.Device)
	r.setKeys(string(s.RetryTag), string(s.Key))
	if r.next != nil {
		r.next.prev = r
	}
	sh.subjects[k.subjectHash], sh.sessions[k.idHash] = r, r
	sh.all = append(sh.all, r)
	return nil
}

// Get implements [Store].
func (m *MemoryStore) Get(ctx context.Context, subject, id string) (Session, error) {
	if err := ctx.Err(); err != nil {
		return Session{}, err
	}
	k, sh := m.find(subject, id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.get(k)
	if r == nil {
		return Session{}, ErrSessionNotFound
	}
	return r.session(), nil
}

// Rotate implements [Store].
func (m *MemoryStore) Rotate(ctx context.Context, subject, id string, r Rotation) (Session, bool, error) {
	if err := cmp.Or(ctx.Err(), r.Check()); err != nil {
		return Session{}, false, err
	}
	k, sh := m.find(subject, id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.tick(m, r.At)
	rec := sh.get(k)
	if rec == nil {
		return Session{}, false, ErrSessionNotFound
	}
	tag, key := rec.splitKeys()
	switch {
	case key != "" && key != string(r.Key):
		return rec.session(), false, nil
	case rec.generation == r.From && rec.rotatedAt <= r.NotAfter.UnixMilli():
		rec.generation++
	case rec.generation < r.From:
		rec.generation = r.From
	default:
		return rec.session(), false, nil
	}
	rec.rotatedAt = r.At.UnixMilli()
	rec.expiresAt = r.ExpiresAt.UnixMilli()
	rec.setDevice(r.Device)
	newTag := string(r.RetryTag)
	if tag != "" && tag == string(r.SpentTag) {
		newTag = ""
	}
	rec.setKeys(newTag, cmp.Or(key, string(r.Key)))
	return rec.session(), true, nil
}

// List implements [Store].
func (m *MemoryStore) List(ctx context.Context, subject string) ([]Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k, sh := m.find(subject, "")
	sh.mu.Lock()
	var list []Session
	for r := sh.subjects[k.subjectHash]; r != nil; r = r.next {
		if r.subject() == subject {
			list = append(list, r.session())
		}
	}
	sh.mu.Unlock()
	slices.SortFunc(list, func(a, b Session) int {
		if c := b.RotatedAt.Compare(a.RotatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, nil
}

// Revoke implements [Store].
func (m *MemoryStore) Revoke(ctx context.Context, r Revocation) error {
	if err := cmp.Or(ctx.Err(), r.Check()); err != nil {
		return err
	}
	subject, sh := m.find(r.Subject, "")
	sh.mu.Lock()
	for _, id := range r.Sessions {
		k, _ := m.find(r.Subject, id)
		if rec := sh.get(k); rec != nil {
			sh.remove(m, rec)
		}
	}
	if r.All {
		for rec := sh.subjects[subject.subjectHash]; rec != nil; {
			next := rec.next
			if rec.subject() == r.Subject && rec.createdAt < r.Before.UnixMilli() && !slices.Contains(r.Except, rec.id()) {
				sh.remove(m, rec)
			}
			rec = next
		}
	}
	sh.mu.Unlock()
	m.feed.publish(r, m.clock.Load())
	if !m.revoked.isOwn(r.ID) { // otherwise its Authenticator has added it
		// The clock may have been set back since it was read, so it must not
		// be later than the end of r.
		m.revoked.apply([]Revocation{r}, false, earlier(fromMillis(m.clock.Load()), r.Until))
	}
	return nil
}

// Spend implements [Store].
func (m *MemoryStore) Spend(ctx context.Context, subject, id string, until time.Time) error {
	if err := cmp.Or(ctx.Err(), Session{Subject: subject, ID: id, ExpiresAt: until}.Check()); err != nil {
		return err
	}
	_, sh := m.find(subject, id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.spent.sweep(m.clock.Load() - time.Minute.Milliseconds())
	return sh.spent.spend(subject+"\x00"+id, until.UnixMilli()) // a name has no zero byte
}

// Changes implements [Store].
func (m *MemoryStore) Changes(ctx context.Context, after string, wait time.Duration) ([]Revocation, string, bool, error) {
	return m.feed.changes(ctx, after, wait)
}

// memorySample is how many records a write scans. With 4, there are at most half
// as many expired records as live ones while sessions are created and expire.
const memorySample = 4

// setClock sets the time by which the store removes records.
func (m *MemoryStore) setClock(at time.Time) { m.clock.Store(at.UnixMilli()) }

// tick sets the clock, scans memorySample records of each kind, and removes those
// that expired more than a minute ago.
func (sh *memoryShard) tick(m *MemoryStore, at time.Time) {
	m.setClock(at)
	dead := at.UnixMilli() - time.Minute.Milliseconds()
	sh.spent.sweep(dead)
	for range memorySample {
		if len(sh.all) == 0 {
			return
		}
		if sh.scanAt >= len(sh.all) {
			sh.scanAt = 0
		}
		if r := sh.all[sh.scanAt]; r.expiresAt < dead {
			sh.remove(m, r) // moves the last record to this index
		} else {
			sh.scanAt++
		}
	}
}

func (sh *memoryShard) remove(m *MemoryStore, r *memoryRecord) {
	k, _ := m.find(r.subject(), r.id())
	switch first := sh.sessions[k.idHash]; {
	case first != r:
		for first.twin != r {
			first = first.twin
		}
		first.twin = r.twin
	case r.twin != nil:
		sh.sessions[k.idHash] = r.twin
	default:
		delete(sh.sessions, k.idHash)
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	switch {
	case r.prev != nil:
		r.prev.next = r.next
	case r.next != nil:
		sh.subjects[k.subjectHash] = r.next
	default:
		delete(sh.subjects, k.subjectHash)
	}
	last := sh.all[len(sh.all)-1]
	sh.all[r.index], last.index = last, r.index
	sh.all[len(sh.all)-1] = nil
	sh.all = sh.all[:len(sh.all)-1]
	if cap(sh.all) > 64 && len(sh.all) < cap(sh.all)/4 {
		sh.all = append(make([]*memoryRecord, 0, cap(sh.all)/2), sh.all...)
	}
}

// memorySpent has the records of Spend of some of the subjects.
type memorySpent struct {
	keys   map[string]struct{}
	all    []memoryUse // sweep scans it for old records
	scanAt int         // index in all of the next record to scan
}

type memoryUse struct {
	key   string
	until int64 // Unix milliseconds
}

func (p *memorySpent) spend(key string, until int64) error {
	if _, ok := p.keys[key]; ok {
		return ErrSpent
	}
	if p.keys == nil {
		p.keys = map[string]struct{}{}
	}
	p.keys[key] = struct{}{}
	p.all = append(p.all, memoryUse{key, until})
	return nil
}

// sweep scans memorySample records, and removes those whose until is earlier than
// dead.
func (p *memorySpent) sweep(dead int64) {
	for range memorySample {
		if len(p.all) == 0 {
			return
		}
		if p.scanAt >= len(p.all) {
			p.scanAt = 0
		}
		use := p.all[p.scanAt]
		if use.until >= dead {
			p.scanAt++
			continue
		}
		delete(p.keys, use.key)
		last := len(p.all) - 1
		p.all[p.scanAt], p.all[last] = p.all[last], memoryUse{}
		p.all = p.all[:last]
		if cap(p.all) > 64 && last < cap(p.all)/4 {
			p.all = append(make([]memoryUse, 0, cap(p.all)/2), p.all...)
		}
	}
}

// memoryFeed is the feed of a MemoryStore. It numbers the revocations. A position
// is the name of the feed and the number of the last revocation returned.
type memoryFeed struct {
	name string

	mu      sync.Mutex
	entries []memoryEntry // in the order of their numbers
	last    int           // the last number assigned
	sweepAt int           // remove old entries when there are this many
	changed chan struct{} // closed and replaced whenever an entry is added
}

type memoryEntry struct {
	Revocation
	number int
}

func (f *memoryFeed) publish(r Revocation, clock int64) {
	r.Sessions, r.Except = slices.Clone(r.Sessions), slices.Clone(r.Except)
	f.mu.Lock()
	defer f.mu.Unlock()
	// Remove the entries whose Until has passed. Doing so only when the number
	// of entries has doubled makes the cost per entry constant.
	if len(f.entries) >= f.sweepAt {
		f.entries = slices.DeleteFunc(f.entries, func(e memoryEntry) bool { return e.Until.UnixMilli() < clock })
		f.sweepAt = max(memoryPage, 2*len(f.entries))
		f.entries = slices.Grow(slices.Clip(f.entries), f.sweepAt-len(f.entries))
	}
	f.last++
	f.entries = append(f.entries, memoryEntry{r, f.last})
	close(f.changed)
	f.changed = make(chan struct{})
}

// memoryPage is the maximum number of entries that one call of Changes returns.
const memoryPage = 1000

func (f *memoryFeed) changes(ctx context.Context, after string, wait time.Duration) ([]Revocation, string, bool, error) {
	from := 0
	if after != "" {
		name, number, _ := strings.Cut(after, ".")
		n, err := strconv.Atoi(number)
		if name != f.name || err != nil {
			return nil, "", false, ErrFeedReset
		}
		from = n
	}
	var timeout <-chan time.Time
	for {
		if err := ctx.Err(); err != nil {
			return nil, "", false, err
		}
		f.mu.Lock()
		next := f.last
		if from > next {
			f.mu.Unlock()
			return nil, "", false, ErrFeedReset
		}
		var rs []Revocation
		page := f.entries[sort.Search(len(f.entries), func(i int) bool { return f.entries[i].number > from }):]
		more := len(page) > memoryPage
		if more {
			page = page[:memoryPage]
			next = page[memoryPage-1].number
		}
		for _, e := range page {
			e.Sessions, e.Except = slices.Clone(e.Sessions), slices.Clone(e.Except)
			rs = append(rs, e.Revocation)
		}
		changed := f.changed
		f.mu.Unlock()
		position := f.name + "." + strconv.Itoa(next)
		if len(rs) > 0 || wait <= 0 {
			return rs, position, more, nil
		}
		if timeout == nil {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-changed:
		case <-timeout:
			return nil, position, false, nil
		case <-ctx.Done():
		}
	}
}
