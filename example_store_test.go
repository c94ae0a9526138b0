package auth_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ratchet-go/auth"
)

// A Store to begin with. It passes storetest, but it is in memory: replace what
// happens between Lock and Unlock with one transaction, statement or script of
// the database.
func ExampleStore() {
	a, err := auth.New(auth.Config{
		Issuer:   "https://example.com",
		Audience: []string{"https://api.example.com"},
		Secrets:  [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:    storeUsers{},
		Store:    newSkeletonStore(),
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = a.Run(ctx) }() // required for every store except a MemoryStore
	<-a.Ready()

	tokens, err := a.StartSession(ctx, "u1", auth.SessionOptions{})
	if err != nil {
		log.Fatal(err)
	}
	if tokens, err = a.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{}); err != nil {
		log.Fatal(err)
	}
	if err := a.Logout(ctx, tokens.Access); err != nil {
		log.Fatal(err)
	}
	_, err = a.Verify(ctx, tokens.Access)
	fmt.Println(err)
	// Output: auth: session revoked: the user signed out
}

// skeletonStore implements [auth.Store].
type skeletonStore struct {
	// history is part of every feed position. A database gets another one when
	// it may have lost revocations: after a failover, or if it was restored from
	// a copy.
	history string

	mu       sync.Mutex
	sessions map[[2]string]auth.Session // by subject and ID
	spent    map[[2]string]time.Time    // the times until, by subject and ID
	feed     []skeletonEntry            // in the order of their numbers
	last     int                        // the last number assigned
	changed  chan struct{}              // closed and replaced when the feed grows
	cleaned  time.Time                  // the last call of deleteExpired that did something
}

type skeletonEntry struct {
	auth.Revocation
	number int
}

func newSkeletonStore() *skeletonStore {
	return &skeletonStore{
		history: rand.Text(), sessions: map[[2]string]auth.Session{}, spent: map[[2]string]time.Time{}, changed: make(chan struct{}),
	}
}

func (s *skeletonStore) Create(ctx context.Context, session auth.Session) error {
	if err := cmp.Or(ctx.Err(), session.Check()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deleteExpired()
	key := [2]string{session.Subject, session.ID}
	if _, ok := s.sessions[key]; ok {
		return auth.ErrSessionExists // never an upsert
	}
	s.sessions[key] = copySession(session)
	return nil
}

func (s *skeletonStore) Get(ctx context.Context, subject, id string) (auth.Session, error) {
	if err := ctx.Err(); err != nil {
		return auth.Session{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	session, ok := s.sessions[[2]string{subject, id}]
	if !ok {
		return auth.Session{}, auth.ErrSessionNotFound
	}
	return copySession(session), nil // even if it has expired: the caller checks that
}

// Rotate compares and writes in one atomic step. A read followed by a write
// would let two clients rotate the same generation.
func (s *skeletonStore) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (auth.Session, bool, error) {
	if err := cmp.Or(ctx.Err(), r.Check()); err != nil {
		return auth.Session{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := [2]string{subject, id}
	session, ok := s.sessions[key]
	if !ok {
		return auth.Session{}, false, auth.ErrSessionNotFound // it was revoked: do not create it again
	}
	switch {
	case len(session.Key) > 0 && !bytes.Equal(session.Key, r.Key):
		return copySession(session), false, nil
	case session.Generation < r.From: // the store lost acknowledged writes
		session.Generation = r.From
	case session.Generation == r.From && !session.RotatedAt.After(r.NotAfter):
		session.Generation = r.From + 1
	default:
		return copySession(session), false, nil
	}
	session.RotatedAt, session.ExpiresAt, session.Device = r.At, r.ExpiresAt, r.Device
	if len(session.RetryTag) > 0 && bytes.Equal(session.RetryTag, r.SpentTag) {
		session.RetryTag = nil // the retry key was used for the generation before
	} else {
		session.RetryTag = r.RetryTag
	}
	if len(r.Key) > 0 {
		session.Key = r.Key
	}
	session = copySession(session)
	s.sessions[key] = session
	return copySession(session), true, nil
}

func (s *skeletonStore) List(ctx context.Context, subject string) ([]auth.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []auth.Session
	for key, session := range s.sessions { // a database needs an index on the subject
		if key[0] == subject {
			list = append(list, copySession(session))
		}
	}
	slices.SortFunc(list, func(a, b auth.Session) int { return b.RotatedAt.Compare(a.RotatedAt) })
	return list, nil
}

// Revoke deletes sessions and publishes the revocation. In a database, both are
// one transaction, or the publication comes last and the caller repeats a
// call that failed.
func (s *skeletonStore) Revoke(ctx context.Context, r auth.Revocation) error {
	if err := cmp.Or(ctx.Err(), r.Check()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deleteExpired()
	maps.DeleteFunc(s.sessions, func(key [2]string, session auth.Session) bool {
		return key[0] == r.Subject && (slices.Contains(r.Sessions, key[1]) ||
			r.All && session.CreatedAt.Before(r.Before) && !slices.Contains(r.Except, key[1]))
	})
	s.last++
	s.feed = append(s.feed, skeletonEntry{copyRevocation(r), s.last})
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// Spend inserts a record unless there is one. A database inserts with "on conflict
// do nothing", and with a random value by which a call that the driver repeats
// recognizes its own record.
func (s *skeletonStore) Spend(ctx context.Context, subject, id string, until time.Time) error {
	if err := cmp.Or(ctx.Err(), auth.Session{Subject: subject, ID: id, ExpiresAt: until}.Check()); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deleteExpired()
	key := [2]string{subject, id}
	if _, ok := s.spent[key]; ok {
		return auth.ErrSpent
	}
	s.spent[key] = until
	return nil
}

// Changes reads the feed by number. A database must not let a reader pass a
// number whose transaction is still open: the number of a sequence is assigned
// before the commit, so a smaller number can appear after a larger one.
//
// A store that cannot wait for a change repeats the read every few milliseconds.
func (s *skeletonStore) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	from := 0
	if after != "" {
		history, number, _ := strings.Cut(after, "/")
		n, err := strconv.Atoi(number)
		if err != nil || history != s.history {
			return nil, "", false, auth.ErrFeedReset // the caller reads the whole feed
		}
		from = n
	}
	timeout := time.NewTimer(max(wait, 0))
	defer timeout.Stop()
	for {
		if err := ctx.Err(); err != nil {
			return nil, "", false, err
		}
		rs, next, more, changed := s.page(from)
		if next < from {
			return nil, "", false, auth.ErrFeedReset
		}
		if len(rs) > 0 || wait <= 0 {
			return rs, s.history + "/" + strconv.Itoa(next), more, nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			wait = 0 // read once more
		case <-ctx.Done():
		}
	}
}

// page returns at most a thousand revocations with a number after from, the
// number of the last one, whether there are more, and a channel that is closed
// when there are.
func (s *skeletonStore) page(from int) (rs []auth.Revocation, next int, more bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.feed {
		if e.number <= from {
			continue
		}
		if len(rs) == 1000 {
			return rs, next, true, s.changed
		}
		rs, next = append(rs, copyRevocation(e.Revocation)), e.number
	}
	return rs, s.last, false, s.changed
}

// deleteExpired deletes, at most once a minute, what expired more than a minute
// ago. Only for this may a store use its own clock.
func (s *skeletonStore) deleteExpired() {
	now := time.Now()
	if now.Sub(s.cleaned) < time.Minute {
		return
	}
	s.cleaned = now
	limit := now.Add(-time.Minute)
	maps.DeleteFunc(s.sessions, func(_ [2]string, session auth.Session) bool { return session.ExpiresAt.Before(limit) })
	maps.DeleteFunc(s.spent, func(_ [2]string, until time.Time) bool { return until.Before(limit) })
	s.feed = slices.DeleteFunc(s.feed, func(e skeletonEntry) bool { return e.Until.Before(limit) })
}

// copySession and copyRevocation copy the slices, which belong to the caller. A
// database does so by encoding them.
func copySession(s auth.Session) auth.Session {
	s.Opaque, s.RetryTag, s.Key = slices.Clone(s.Opaque), slices.Clone(s.RetryTag), slices.Clone(s.Key)
	return s
}

func copyRevocation(r auth.Revocation) auth.Revocation {
	r.Sessions, r.Except = slices.Clone(r.Sessions), slices.Clone(r.Except)
	return r
}

// storeUsers is a user lookup in which every ID is a user.
type storeUsers struct{}

func (storeUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (storeUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id}, nil
}
