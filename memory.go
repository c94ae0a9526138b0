package auth

import (
	"context"
	"hash/maphash"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// MemoryStore is a [Store] in this process: for one process that may forget
// its sessions when it ends, and for tests. Records are collected on the way,
// a few at every write, so it grows with the live sessions and there is
// nothing to start or to stop. Its clock is the latest time that a call
// brought.
type MemoryStore struct {
	seed   maphash.Seed
	shards [64]memoryShard
	feed   memoryFeed
}

// memoryShard holds the sessions of some of the subjects.
type memoryShard struct {
	mu       sync.Mutex
	clock    int64 // Unix milliseconds
	sessions map[sessionKey]*memoryRecord
	subjects map[string]*memoryRecord // the first of each subject's list
	all      []*memoryRecord          // to look through, hand after hand
	hand     int
}

// memoryRecord is a Session in little space, times in Unix milliseconds.
type memoryRecord struct {
	key                            sessionKey
	generation                     int64
	createdAt, rotatedAt, expireAt int64
	userAgent                      string
	ip                             netip.Addr
	data                           string
	next, prev                     *memoryRecord // of the same subject
	place                          int           // in all
}

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore {
	m := &MemoryStore{seed: maphash.MakeSeed()}
	m.feed.changed = make(chan struct{})
	m.feed.name = randomID()
	return m
}

func (m *MemoryStore) shard(subject string) *memoryShard {
	return &m.shards[maphash.String(m.seed, subject)%uint64(len(m.shards))]
}

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func (r *memoryRecord) session() Session {
	s := Session{
		ID: r.key.id, Subject: r.key.subject, Generation: r.generation,
		CreatedAt: fromMillis(r.createdAt), RotatedAt: fromMillis(r.rotatedAt), ExpiresAt: fromMillis(r.expireAt),
		Device: Device{UserAgent: r.userAgent, IP: r.ip},
	}
	if r.data != "" {
		s.Data = []byte(r.data)
	}
	return s
}

// Create implements [Store].
func (m *MemoryStore) Create(ctx context.Context, s Session) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkSession(s); err != nil {
		return err
	}
	sh := m.shard(s.Subject)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.tick(s.RotatedAt)
	key := sessionKey{s.Subject, s.ID}
	if sh.sessions[key] != nil {
		return ErrSessionExists
	}
	if sh.sessions == nil {
		sh.sessions, sh.subjects = map[sessionKey]*memoryRecord{}, map[string]*memoryRecord{}
	}
	r := &memoryRecord{
		key: key, generation: s.Generation,
		createdAt: s.CreatedAt.UnixMilli(), rotatedAt: s.RotatedAt.UnixMilli(), expireAt: s.ExpiresAt.UnixMilli(),
		userAgent: strings.Clone(s.Device.UserAgent), ip: s.Device.IP, data: string(s.Data), place: len(sh.all),
	}
	if r.next = sh.subjects[key.subject]; r.next != nil {
		r.next.prev = r
		r.key.subject = r.next.key.subject // one copy of the text
	}
	sh.subjects[r.key.subject], sh.sessions[r.key] = r, r
	sh.all = append(sh.all, r)
	return nil
}

// Get implements [Store].
func (m *MemoryStore) Get(ctx context.Context, subject, id string) (Session, error) {
	if err := ctx.Err(); err != nil {
		return Session{}, err
	}
	sh := m.shard(subject)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.sessions[sessionKey{subject, id}]
	if r == nil {
		return Session{}, ErrSessionNotFound
	}
	return r.session(), nil
}

// Rotate implements [Store].
func (m *MemoryStore) Rotate(ctx context.Context, subject, id string, from int64, use Use) (Session, bool, error) {
	if err := ctx.Err(); err != nil {
		return Session{}, false, err
	}
	sh := m.shard(subject)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.tick(use.At)
	r := sh.sessions[sessionKey{subject, id}]
	if r == nil {
		return Session{}, false, ErrSessionNotFound
	}
	switch {
	case r.generation == from && r.rotatedAt <= use.Rested.UnixMilli():
		r.generation++
	case r.generation < from:
		r.generation = from
	default:
		return r.session(), false, nil
	}
	r.rotatedAt = max(r.rotatedAt, use.At.UnixMilli())
	r.expireAt = use.ExpiresAt.UnixMilli()
	r.userAgent, r.ip = strings.Clone(use.Device.UserAgent), use.Device.IP
	return r.session(), true, nil
}

// List implements [Store].
func (m *MemoryStore) List(ctx context.Context, subject string) ([]Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sh := m.shard(subject)
	sh.mu.Lock()
	var list []Session
	for r := sh.subjects[subject]; r != nil; r = r.next {
		list = append(list, r.session())
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
	if err := ctx.Err(); err != nil {
		return err
	}
	sh := m.shard(r.Subject)
	sh.mu.Lock()
	for _, id := range r.Sessions {
		if rec := sh.sessions[sessionKey{r.Subject, id}]; rec != nil {
			sh.remove(rec)
		}
	}
	if r.All {
		for rec := sh.subjects[r.Subject]; rec != nil; {
			next := rec.next
			if rec.createdAt < r.Cut.UnixMilli() && !slices.Contains(r.Except, rec.key.id) {
				sh.remove(rec)
			}
			rec = next
		}
	}
	clock := sh.clock
	sh.mu.Unlock()
	m.feed.announce(r, clock)
	return nil
}

// Changes implements [Store].
func (m *MemoryStore) Changes(ctx context.Context, after string, wait time.Duration) ([]Revocation, string, error) {
	return m.feed.changes(ctx, after, wait)
}

// memoryLook is how many records a write looks at. With it, at most half as
// many dead records as live ones stay behind while sessions come and go.
const memoryLook = 4

// tick sets the clock, and collects what it meets that expired a minute ago.
func (sh *memoryShard) tick(at time.Time) {
	sh.clock = max(sh.clock, at.UnixMilli())
	dead := sh.clock - time.Minute.Milliseconds()
	for range memoryLook {
		if len(sh.all) == 0 {
			return
		}
		if sh.hand >= len(sh.all) {
			sh.hand = 0
		}
		if r := sh.all[sh.hand]; r.expireAt < dead {
			sh.remove(r) // another takes its place
		} else {
			sh.hand++
		}
	}
}

func (sh *memoryShard) remove(r *memoryRecord) {
	delete(sh.sessions, r.key)
	if r.next != nil {
		r.next.prev = r.prev
	}
	switch {
	case r.prev != nil:
		r.prev.next = r.next
	case r.next != nil:
		sh.subjects[r.key.subject] = r.next
	default:
		delete(sh.subjects, r.key.subject)
	}
	last := sh.all[len(sh.all)-1]
	sh.all[r.place], last.place = last, r.place
	sh.all[len(sh.all)-1] = nil
	sh.all = sh.all[:len(sh.all)-1]
	if cap(sh.all) > 64 && len(sh.all) < cap(sh.all)/4 {
		sh.all = append(make([]*memoryRecord, 0, cap(sh.all)/2), sh.all...)
	}
}

// memoryFeed numbers revocations; a position is the name of the feed and the
// number that comes next.
type memoryFeed struct {
	name string

	mu      sync.Mutex
	first   int // number of entries[0]
	entries []Revocation
	clock   int64
	changed chan struct{} // closed, and replaced, at every announcement
}

func (f *memoryFeed) announce(r Revocation, clock int64) {
	r.Sessions, r.Except = slices.Clone(r.Sessions), slices.Clone(r.Except)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock = max(f.clock, clock)
	for range memoryLook {
		if len(f.entries) > 0 && f.entries[0].Until.UnixMilli() < f.clock {
			f.entries[0] = Revocation{}
			f.entries = f.entries[1:]
			f.first++
		}
	}
	f.entries = append(f.entries, r)
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *memoryFeed) changes(ctx context.Context, after string, wait time.Duration) ([]Revocation, string, error) {
	from := 0
	if after != "" {
		name, number, _ := strings.Cut(after, ".")
		n, err := strconv.Atoi(number)
		if name != f.name || err != nil {
			return nil, "", ErrFeedReset
		}
		from = n
	}
	var timeout <-chan time.Time
	for {
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
		f.mu.Lock()
		next := f.first + len(f.entries)
		if from > next {
			f.mu.Unlock()
			return nil, "", ErrFeedReset
		}
		var rs []Revocation
		for _, r := range f.entries[max(0, from-f.first):] {
			r.Sessions, r.Except = slices.Clone(r.Sessions), slices.Clone(r.Except)
			rs = append(rs, r)
		}
		changed := f.changed
		f.mu.Unlock()
		position := f.name + "." + strconv.Itoa(next)
		if len(rs) > 0 || wait <= 0 {
			return rs, position, nil
		}
		if timeout == nil {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-changed:
		case <-timeout:
			return nil, position, nil
		case <-ctx.Done():
		}
	}
}
