package storetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ratchet-go/auth"
)

// flawedStore is a store in memory with a flaw. Without one it fulfills the
// contract.
type flawedStore struct {
	flaw    string
	latency time.Duration

	mu       sync.Mutex
	sessions map[[2]string]auth.Session
	created  map[[2]string]time.Time // ExpiresAt as passed to Create
	spent    map[[2]string]time.Time
	entries  []entry         // the feed, in order of commit
	numbers  int             // the last number of an entry
	changed  chan struct{}   // closed by the next entry
	taken    map[string]bool // subjects whose revocation was delivered
}

type entry struct {
	number int
	auth.Revocation
}

func newFlawedStore(flaw string) *flawedStore {
	return &flawedStore{
		flaw: flaw, sessions: map[[2]string]auth.Session{}, created: map[[2]string]time.Time{}, spent: map[[2]string]time.Time{}, changed: make(chan struct{}), taken: map[string]bool{},
	}
}

// has reports whether the store has one of flaws.
func (f *flawedStore) has(flaws ...string) bool { return slices.Contains(flaws, f.flaw) }

// ended returns the error of ctx. Every method calls it first.
func (f *flawedStore) ended(ctx context.Context) error {
	time.Sleep(f.latency)
	switch err := ctx.Err(); {
	case err == nil || f.has("ignores contexts"):
		return nil
	case f.has("returns absence for an ended context"):
		return auth.ErrSessionNotFound
	default:
		return err
	}
}

func (f *flawedStore) key(subject, id string) [2]string {
	switch {
	case f.has("folds the case of subjects"):
		subject = strings.ToLower(subject)
	case f.has("trims IDs"):
		id = strings.TrimSpace(id)
	case f.has("identifies sessions by ID only"):
		subject = ""
	case f.has("joins subject and ID"):
		return [2]string{subject + ":" + id, ""}
	}
	return [2]string{subject, id}
}

func (f *flawedStore) copy(s auth.Session) auth.Session {
	if !f.has("returns its own data slice") {
		s.Opaque = bytes.Clone(s.Opaque)
	}
	if !f.has("returns its own tag slice") {
		s.RetryTag, s.Key = bytes.Clone(s.RetryTag), bytes.Clone(s.Key)
	}
	if f.has("returns local times") {
		s.CreatedAt = s.CreatedAt.In(time.FixedZone("here", 3600))
	}
	return s
}

// removeExpired removes expired records. f.mu must be locked.
func (f *flawedStore) removeExpired() {
	grace := time.Minute
	if f.has("removes records at ExpiresAt") {
		grace = 0
	}
	for k, s := range f.sessions {
		end := s.ExpiresAt
		if f.has("ignores ExpiresAt of Rotate") {
			end = f.created[k]
		}
		if time.Now().After(end.Add(grace)) {
			delete(f.sessions, k)
		}
	}
}

// checkTimes panics if a case passes a time that package auth would not pass.
func checkTimes(times ...time.Time) {
	for _, t := range times {
		if !t.Equal(t.Truncate(time.Millisecond)) || t.Location() != time.UTC {
			panic("time is not in UTC and whole milliseconds: " + t.String())
		}
	}
}

func (f *flawedStore) Create(ctx context.Context, s auth.Session) error {
	if err := f.ended(ctx); err != nil {
		return err
	}
	checkTimes(s.CreatedAt, s.RotatedAt, s.ExpiresAt)
	k := f.key(s.Subject, s.ID)
	f.mu.Lock()
	defer f.mu.Unlock()
	checked := s
	if f.has("takes tags and keys of any length") {
		checked.RetryTag, checked.Key = nil, nil
	}
	if err := checked.Check(); err != nil && !f.has("creates invalid sessions") {
		if f.has("creates before it checks") {
			f.sessions[k] = s
		}
		return err
	}
	f.removeExpired()
	_, ok := f.sessions[k]
	if f.has("does not create what is spent") {
		_, spent := f.spent[k]
		ok = ok || spent
	}
	if f.has("checks before it creates") {
		f.mu.Unlock()
		time.Sleep(50 * time.Microsecond)
		f.mu.Lock()
	}
	if ok && !f.has("overwrites on Create") {
		return auth.ErrSessionExists
	}
	if f.has("refuses sessions created ahead of its clock") && s.CreatedAt.After(time.Now().Add(time.Second)) {
		return errors.New("created in the future")
	}
	if !f.has("keeps the caller's data slice") {
		s.Opaque, s.RetryTag, s.Key = bytes.Clone(s.Opaque), bytes.Clone(s.RetryTag), bytes.Clone(s.Key)
	}
	switch {
	case f.has("creates no tag without data") && len(s.Opaque) == 0:
		s.RetryTag = nil
	case f.has("creates a key of zeros"):
		s.Key = append(bytes.Clone(s.Key), make([]byte, 33)...)[:33]
	case f.has("truncates times to seconds"):
		s.CreatedAt = s.CreatedAt.Truncate(time.Second)
	case f.has("stores generations in 32 bits"):
		s.Generation = int64(int32(s.Generation))
	case f.has("stores data as text"):
		s.Opaque = bytes.ToValidUTF8(s.Opaque, []byte("?"))
	case f.has("truncates user agents"):
		s.Device.UserAgent = s.Device.UserAgent[:min(len(s.Device.UserAgent), 255)]
	case f.has("unmaps addresses"):
		s.Device.IP = s.Device.IP.Unmap()
	}
	f.sessions[k] = s
	f.created[k] = s.ExpiresAt
	return nil
}

func (f *flawedStore) Get(ctx context.Context, subject, id string) (auth.Session, error) {
	if err := f.ended(ctx); err != nil {
		return auth.Session{}, err
	}
	if f.has("returns a fault for invalid names") && (auth.Session{Subject: subject, ID: id}).Check() != nil {
		return auth.Session{}, errors.New("invalid name")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeExpired()
	k := f.key(subject, id)
	s, ok := f.sessions[k]
	if !ok {
		if f.has("returns no error for an absent session") {
			return auth.Session{}, nil
		}
		return auth.Session{}, auth.ErrSessionNotFound
	}
	if f.has("extends the session on Get") {
		s.ExpiresAt = s.ExpiresAt.Add(time.Second)
		f.sessions[k] = s
		s.ExpiresAt = s.ExpiresAt.Add(-time.Second)
	}
	return f.copy(s), nil
}

func (f *flawedStore) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (auth.Session, bool, error) {
	if err := f.ended(ctx); err != nil {
		return auth.Session{}, false, err
	}
	checkTimes(r.At, r.NotAfter, r.ExpiresAt)
	checked := r
	if f.has("has no last generation") {
		checked.From = 0
	}
	if f.has("takes tags and keys of any length") {
		checked.RetryTag, checked.SpentTag, checked.Key = nil, nil, nil
	}
	if err := checked.Check(); err != nil && !f.has("rotates to invalid values") {
		return auth.Session{}, false, err
	}
	k := f.key(subject, id)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeExpired()
	s, ok := f.sessions[k]
	old := s
	all := maps.Clone(f.sessions)
	if f.has("rotates by Get and Set", "returns losers a stale session", "rewrites all sessions of a subject") {
		f.mu.Unlock()
		time.Sleep(50 * time.Microsecond)
		f.mu.Lock()
		if _, there := f.sessions[k]; !there {
			return auth.Session{}, false, auth.ErrSessionNotFound
		}
		if f.has("returns losers a stale session") {
			s = f.sessions[k]
		}
	}
	switch {
	case !ok && f.has("upserts in Rotate"):
		s = auth.Session{ID: id, Subject: subject, Generation: r.From, CreatedAt: r.At}
	case !ok && f.has("returns a fault for an absent session"):
		return auth.Session{}, false, context.DeadlineExceeded
	case !ok:
		return auth.Session{}, false, auth.ErrSessionNotFound
	}
	behind := s.Generation < r.From
	if len(s.Key) > 0 && !f.sameKey(s.Key, r.Key) && (!behind || !f.has("ignores the key when it restores")) {
		return f.copy(s), false, nil
	}
	if f.has("checks the key before it rotates") {
		f.mu.Unlock()
		time.Sleep(50 * time.Microsecond)
		f.mu.Lock()
		if s, ok = f.sessions[k]; !ok {
			return auth.Session{}, false, auth.ErrSessionNotFound
		}
		behind = s.Generation < r.From
	}
	cooldown := s.RotatedAt.After(r.NotAfter)
	switch {
	case f.has("ignores the cooldown"):
		cooldown = false
	case f.has("compares the cooldown with >="):
		cooldown = !s.RotatedAt.Before(r.NotAfter)
	}
	if f.has("compares generations as text") {
		behind = strconv.FormatInt(s.Generation, 10) < strconv.FormatInt(r.From, 10)
	}
	switch {
	case s.Generation == r.From && !cooldown:
		s.Generation++
	case behind && !f.has("does not restore lost writes") && (!cooldown || !f.has("restores lost writes only after the cooldown")):
		s.Generation = r.From
	case f.has("reports a retry as a rotation") && s.Generation == r.From+1:
		return f.copy(s), true, nil
	case f.has("returns losers a stale session"):
		return f.copy(old), false, nil
	case f.has("returns losers their own tag"):
		s.RetryTag = r.RetryTag
		return f.copy(s), false, nil
	case f.has("empties a spent tag without a rotation") && bytes.Equal(s.RetryTag, r.SpentTag):
		s.RetryTag = nil
		f.sessions[k] = s
		return f.copy(s), false, nil
	default:
		return f.copy(s), false, nil
	}
	if r.At.After(s.RotatedAt) || !f.has("never sets RotatedAt back") {
		s.RotatedAt = r.At
	}
	s.ExpiresAt = r.ExpiresAt
	f.setKeys(&s, r, behind)
	if f.has("rotates in two writes", "sets the tag in a second write") {
		first := s
		if f.has("sets the tag in a second write") {
			first.Device, first.RetryTag = r.Device, old.RetryTag
		}
		f.sessions[k] = first
		f.mu.Unlock()
		time.Sleep(50 * time.Microsecond)
		f.mu.Lock()
		if _, there := f.sessions[k]; !there {
			return auth.Session{}, false, auth.ErrSessionNotFound
		}
	}
	switch {
	case f.has("keeps the device if the new one is empty") && r.Device == (auth.Device{}):
	case f.has("compares devices by address only") && r.Device.IP == s.Device.IP:
	case f.has("compares devices by user agent only") && r.Device.UserAgent == s.Device.UserAgent:
	default:
		s.Device = r.Device
	}
	if f.has("rewrites all sessions of a subject") {
		for other := range all {
			if _, there := f.sessions[other]; there && other[0] == subject {
				f.sessions[other] = all[other]
			}
		}
	}
	f.sessions[k] = s
	return f.copy(s), true, nil
}

// setKeys sets the RetryTag and the Key of s as a rotation does.
func (f *flawedStore) setKeys(s *auth.Session, r auth.Rotation, restores bool) {
	spent := len(s.RetryTag) > 0 && bytes.Equal(s.RetryTag, r.SpentTag)
	switch {
	case f.has("ignores SpentTag"), f.has("ignores SpentTag when it restores") && restores:
		spent = false
	case f.has("compares tags without case"):
		spent = len(s.RetryTag) > 0 && bytes.EqualFold(s.RetryTag, r.SpentTag)
	case f.has("compares eight bytes of tags"):
		spent = len(s.RetryTag) > 0 && len(r.SpentTag) > 0 && bytes.Equal(s.RetryTag[:8], r.SpentTag[:8])
	case f.has("takes an empty tag for zeros"):
		spent = bytes.Equal(append(s.RetryTag, make([]byte, 16)...)[:16], r.SpentTag)
	case f.has("takes two empty tags for a spent one"):
		spent = bytes.Equal(s.RetryTag, r.SpentTag)
	case f.has("empties a repeated tag"):
		spent = spent || bytes.Equal(s.RetryTag, r.RetryTag)
	}
	switch {
	case spent:
		s.RetryTag = nil
	case f.has("keeps the tag if the new one is empty") && len(r.RetryTag) == 0:
	case f.has("keeps the caller's tag slice"):
		s.RetryTag = r.RetryTag
	default:
		s.RetryTag = bytes.Clone(r.RetryTag)
	}
	if f.has("sets the key at the first rotation only") && s.Generation > 2 || f.has("sets no key when it restores") && restores {
		return
	}
	if len(s.Key) == 0 {
		s.Key = bytes.Clone(r.Key)
	}
}

// sameKey reports whether a Rotation with the key given may rotate a session with
// the key stored.
func (f *flawedStore) sameKey(stored, given []byte) bool {
	switch {
	case f.has("takes no key for any key") && len(given) == 0:
		return true
	case f.has("compares keys without case"):
		return bytes.EqualFold(stored, given)
	default:
		return bytes.Equal(stored, given)
	}
}

func (f *flawedStore) List(ctx context.Context, subject string) ([]auth.Session, error) {
	if err := f.ended(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeExpired()
	var list []auth.Session
	for k, s := range f.sessions {
		if s.Subject == subject || f.has("folds the case of subjects") && k[0] == strings.ToLower(subject) ||
			f.has("lists by prefix") && strings.HasPrefix(s.Subject, subject) {
			list = append(list, f.copy(s))
			if f.has("lists a record for each refresh") && s.Generation > 2 {
				list = append(list, f.copy(s))
			}
		}
	}
	if list == nil && f.has("returns an error for an empty list") {
		return nil, auth.ErrSessionNotFound
	}
	slices.SortFunc(list, func(x, y auth.Session) int {
		if f.has("lists the oldest first") {
			x, y = y, x
		}
		return cmp.Or(y.RotatedAt.Compare(x.RotatedAt), strings.Compare(x.ID, y.ID))
	})
	return list, nil
}

func (f *flawedStore) Spend(ctx context.Context, subject, id string, until time.Time) error {
	if err := f.ended(ctx); err != nil {
		if f.has("returns ErrSpent for an ended context") {
			return auth.ErrSpent
		}
		return err
	}
	checkTimes(until)
	k := [2]string{subject, id}
	switch {
	case f.has("folds the case of what is spent"):
		k = [2]string{strings.ToLower(subject), strings.ToLower(id)}
	case f.has("joins subject and ID of what is spent"):
		k = [2]string{subject + ":" + id, ""}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := (auth.Session{Subject: subject, ID: id, ExpiresAt: until}).Check(); err != nil && !f.has("spends invalid names") {
		if f.has("spends before it checks") {
			f.spent[k] = until
		}
		return err
	}
	if f.has("refuses to spend until the past") && until.Before(time.Now().Add(-45*time.Second)) {
		return errors.New("until is in the past")
	}
	maps.DeleteFunc(f.spent, func(_ [2]string, until time.Time) bool {
		return until.Before(time.Now().Add(-time.Minute)) || f.has("removes what is spent at until") && until.Before(time.Now())
	})
	first, ok := f.spent[k]
	if f.has("checks before it spends") {
		f.mu.Unlock()
		time.Sleep(50 * time.Microsecond)
		f.mu.Lock()
	}
	switch {
	case ok && f.has("takes the same until for a repetition") && first.Equal(until):
		return nil
	case ok && f.has("spends until the last until"):
		f.spent[k] = until
		return auth.ErrSpent
	case ok:
		return auth.ErrSpent
	case f.has("keeps only some of what is spent") && len(f.spent) > 25 && len(k[0]) > 5:
		return nil
	}
	f.spent[k] = until
	if f.has("takes its own record for that of another call") {
		f.mu.Unlock()
		time.Sleep(time.Microsecond)
		f.mu.Lock()
		if ctx.Err() != nil {
			return auth.ErrSpent
		}
	}
	return nil
}

func (f *flawedStore) Revoke(ctx context.Context, r auth.Revocation) error {
	if err := f.ended(ctx); err != nil {
		return err
	}
	checkTimes(r.Before, r.Until)
	if !r.Before.Equal(r.Before.Truncate(time.Second)) {
		panic("Before is not in whole seconds")
	}
	refused := r.Check()
	if refused != nil && !f.has("publishes invalid revocations", "deletes before it checks") {
		return refused
	}
	if f.has("publishes before it deletes") {
		f.publish(r)
		time.Sleep(time.Millisecond)
	}
	found := false
	f.mu.Lock()
	if f.has("revokes what is spent") && r.All {
		maps.DeleteFunc(f.spent, func(k [2]string, _ time.Time) bool { return k[0] == r.Subject })
	}
	for k, s := range f.sessions {
		switch {
		case s.Subject == r.Subject:
		case f.has("applies a notice to all subjects") && r.AccessTTL > 0:
			delete(f.sessions, k)
			continue
		case f.has("folds the case of subjects") && k[0] == strings.ToLower(r.Subject):
		case f.has("deletes by prefix") && r.All && strings.HasPrefix(s.Subject, r.Subject):
		default:
			continue
		}
		before := s.CreatedAt.Before(r.Before) || f.has("deletes sessions created at Before") && s.CreatedAt.Equal(r.Before)
		all := r.All || f.has("deletes without All") && len(r.Sessions) == 0
		spared := slices.Contains(r.Except, s.ID) && !f.has("ignores Except")
		if f.has("deletes only the first listed session") {
			r.Sessions = r.Sessions[:min(len(r.Sessions), 1)]
		}
		named := slices.ContainsFunc(r.Sessions, func(id string) bool { return f.key("", id) == f.key("", s.ID) })
		if f.has("ignores Before") && r.All {
			before = true
		}
		if named || all && before && !spared {
			delete(f.sessions, k)
			found = true
		}
	}
	f.mu.Unlock()
	if f.has("stops between deleting and publishing") {
		time.Sleep(50 * time.Microsecond)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if refused != nil && f.has("deletes before it checks") {
		return refused
	}
	names := r.All || len(r.Sessions) > 0
	if f.has("publishes only if it deleted") && names && !found || f.has("publishes before it deletes") {
		return nil
	}
	f.publish(r)
	return nil
}

// flawedPage is the maximum number of revocations that Changes returns.
const flawedPage = 20

func (f *flawedStore) publish(r auth.Revocation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.numbers++
	switch {
	case f.has("loses reasons"):
		r.Reason = ""
	case f.has("loses revocation IDs"):
		r.ID = ""
	case f.has("truncates AccessTTL to seconds"):
		r.AccessTTL = r.AccessTTL.Truncate(time.Second)
	}
	e := entry{f.numbers, r}
	if !f.has("shares the slices of revocations") {
		e.Sessions, e.Except = slices.Clone(r.Sessions), slices.Clone(r.Except)
	}
	if f.has("publishes at most 100 IDs") && len(r.Sessions) > 100 {
		e.Sessions = e.Sessions[:100]
	}
	if f.has("orders the feed by number") && e.number%2 == 0 {
		f.mu.Unlock() // commit late
		time.Sleep(time.Millisecond)
		f.mu.Lock()
	}
	f.entries = append(f.entries, e)
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *flawedStore) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	from, err := strconv.Atoi(strings.TrimPrefix(after, "position "))
	switch {
	case after == "" || f.has("accepts any position") && err != nil:
		from = 0
	case !strings.HasPrefix(after, "position ") || err != nil:
		if f.has("starts at the end after an unknown position") {
			f.mu.Lock()
			defer f.mu.Unlock()
			return nil, f.position(f.last()), false, nil
		}
		return nil, "", false, auth.ErrFeedReset
	}
	var timeout <-chan time.Time
	if wait > 0 || !f.has("waits forever with wait 0") {
		timeout = time.After(wait)
	}
	for {
		if err := f.ended(ctx); err != nil {
			return nil, "", false, err
		}
		f.mu.Lock()
		if from > f.last() && !f.has("does not detect a lost history") {
			f.mu.Unlock()
			return nil, "", false, auth.ErrFeedReset
		}
		var rs []auth.Revocation
		to, more := from, false
		for i, e := range f.entries {
			at := i + 1
			if f.has("orders the feed by number") {
				at = e.number
			}
			if at <= from {
				continue
			}
			if more = len(rs) == flawedPage; more {
				break
			}
			r := e.Revocation
			if !f.has("shares the slices of revocations") {
				r.Sessions, r.Except = slices.Clone(r.Sessions), slices.Clone(r.Except)
			}
			rs, to = append(rs, r), max(to, at)
		}
		switch {
		case f.has("returns only one page"):
			more = false
		case f.has("always returns more"):
			more = len(rs) > 0 || after != ""
		case f.has("skips a revocation between pages") && more:
			to++
		case f.has("ends the feed after one page") && more && after != "":
			rs, to, more = nil, f.last(), false
		}
		if f.has("delivers each revocation to one reader") && after != "" {
			n := len(rs)
			rs = slices.DeleteFunc(rs, func(r auth.Revocation) bool { return f.taken[r.Subject] })
			for _, r := range rs {
				f.taken[r.Subject] = true
			}
			if len(rs) < n {
				from = to
			}
		}
		if f.has("advances the position too far") && len(rs) > 1 {
			rs = rs[:len(rs)-1]
		}
		changed := f.changed
		f.mu.Unlock()
		next := f.position(to)
		waits := wait > 0 && more && f.has("waits although there is more")
		if !waits && (len(rs) > 0 || more || f.has("does not wait")) {
			return rs, next, more, nil
		}
		if f.has("does not wake up") {
			changed = nil
		}
		done := ctx.Done()
		if f.has("ignores contexts", "ignores the context while it waits") {
			done = nil
		}
		select {
		case <-changed:
		case <-timeout:
			if f.has("returns an error after wait") {
				return nil, "", false, context.DeadlineExceeded
			}
			return nil, next, false, nil
		case <-done:
		}
	}
}

// last returns the last position. f.mu must be locked.
func (f *flawedStore) last() int {
	if !f.has("orders the feed by number") {
		return len(f.entries)
	}
	return f.numbers
}

func (f *flawedStore) position(n int) string {
	if n == 0 && f.has("returns the empty position") {
		return ""
	}
	return "position " + strconv.Itoa(n)
}
