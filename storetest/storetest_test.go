package storetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// book is a store that keeps the contract, until it is given a flaw.
type book struct {
	flaw    string
	latency time.Duration

	mu       sync.Mutex
	sessions map[[2]string]auth.Session
	collect  map[[2]string]time.Time // what expires later is not looked at
	entries  []entry                 // as they committed
	numbers  int
	changed  chan struct{}
	taken    map[string]bool // subjects whose revocation a reader has
}

type entry struct {
	number int
	auth.Revocation
}

func newBook(flaw string) *book {
	return &book{flaw: flaw, sessions: map[[2]string]auth.Session{}, collect: map[[2]string]time.Time{}, changed: make(chan struct{}), taken: map[string]bool{}}
}

func (b *book) has(flaws ...string) bool { return slices.Contains(flaws, b.flaw) }

// ended is what every method begins with.
func (b *book) ended(ctx context.Context) error {
	time.Sleep(b.latency)
	switch err := ctx.Err(); {
	case err == nil || b.has("ignores contexts"):
		return nil
	case b.has("takes an error for absence"):
		return auth.ErrSessionNotFound
	default:
		return err
	}
}

func (b *book) key(subject, id string) [2]string {
	switch {
	case b.has("folds the case of subjects"):
		subject = strings.ToLower(subject)
	case b.has("trims IDs"):
		id = strings.TrimSpace(id)
	case b.has("knows sessions by ID alone"):
		subject = ""
	case b.has("joins subject and ID"):
		return [2]string{subject + ":" + id, ""}
	}
	return [2]string{subject, id}
}

func (b *book) copy(s auth.Session) auth.Session {
	if !b.has("returns its own data") {
		s.Opaque = bytes.Clone(s.Opaque)
	}
	if b.has("returns local times") {
		s.CreatedAt = s.CreatedAt.In(time.FixedZone("here", 3600))
	}
	return s
}

// tidy collects records, with b locked.
func (b *book) tidy() {
	grace := time.Minute
	if b.has("collects at ExpiresAt") {
		grace = 0
	}
	for k, s := range b.sessions {
		end := s.ExpiresAt
		if b.has("expires as at Create") {
			end = b.collect[k]
		}
		if time.Now().After(end.Add(grace)) {
			delete(b.sessions, k)
		}
	}
}

// whole panics where the kit hands over what the core would not.
func whole(times ...time.Time) {
	for _, t := range times {
		if !t.Equal(t.Truncate(time.Millisecond)) || t.Location() != time.UTC {
			panic("a time that is not in whole milliseconds UTC: " + t.String())
		}
	}
}

func (b *book) Create(ctx context.Context, s auth.Session) error {
	if err := b.ended(ctx); err != nil {
		return err
	}
	whole(s.CreatedAt, s.RotatedAt, s.ExpiresAt)
	k := b.key(s.Subject, s.ID)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := s.Check(); err != nil && !b.has("creates what Check refuses") {
		if b.has("writes before it checks") {
			b.sessions[k] = s
		}
		return err
	}
	b.tidy()
	_, ok := b.sessions[k]
	if b.has("looks before it creates") {
		b.mu.Unlock()
		time.Sleep(50 * time.Microsecond)
		b.mu.Lock()
	}
	if ok && !b.has("overwrites on Create") {
		return auth.ErrSessionExists
	}
	if b.has("refuses what lies ahead of its clock") && s.CreatedAt.After(time.Now().Add(time.Second)) {
		return errors.New("created in the future")
	}
	if !b.has("keeps the caller's data") {
		s.Opaque = bytes.Clone(s.Opaque)
	}
	switch {
	case b.has("cuts times to seconds"):
		s.CreatedAt = s.CreatedAt.Truncate(time.Second)
	case b.has("keeps generations in 32 bits"):
		s.Generation = int64(int32(s.Generation))
	case b.has("keeps data as text"):
		s.Opaque = bytes.ToValidUTF8(s.Opaque, []byte("?"))
	case b.has("cuts user agents"):
		s.Device.UserAgent = s.Device.UserAgent[:min(len(s.Device.UserAgent), 255)]
	case b.has("unmaps addresses"):
		s.Device.IP = s.Device.IP.Unmap()
	}
	b.sessions[k] = s
	b.collect[k] = s.ExpiresAt
	return nil
}

func (b *book) Get(ctx context.Context, subject, id string) (auth.Session, error) {
	if err := b.ended(ctx); err != nil {
		return auth.Session{}, err
	}
	if b.has("takes impossible names for a fault") && (auth.Session{Subject: subject, ID: id}).Check() != nil {
		return auth.Session{}, errors.New("cannot be asked for")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tidy()
	k := b.key(subject, id)
	s, ok := b.sessions[k]
	if !ok {
		if b.has("returns nothing for absence") {
			return auth.Session{}, nil
		}
		return auth.Session{}, auth.ErrSessionNotFound
	}
	if b.has("touches on Get") {
		s.ExpiresAt = s.ExpiresAt.Add(time.Second)
		b.sessions[k] = s
		s.ExpiresAt = s.ExpiresAt.Add(-time.Second)
	}
	return b.copy(s), nil
}

func (b *book) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (auth.Session, bool, error) {
	if err := b.ended(ctx); err != nil {
		return auth.Session{}, false, err
	}
	whole(r.At, r.NotAfter, r.ExpiresAt)
	checked := r
	if b.has("counts on for ever") {
		checked.From = 0
	}
	if err := checked.Check(); err != nil && !b.has("moves to what Check refuses") {
		return auth.Session{}, false, err
	}
	k := b.key(subject, id)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tidy()
	s, ok := b.sessions[k]
	old := s
	all := maps.Clone(b.sessions)
	if b.has("gets, then sets", "shows losers a stale snapshot", "rewrites the whole subject") {
		b.mu.Unlock()
		time.Sleep(50 * time.Microsecond)
		b.mu.Lock()
		if _, there := b.sessions[k]; !there {
			return auth.Session{}, false, auth.ErrSessionNotFound
		}
		if b.has("shows losers a stale snapshot") {
			s = b.sessions[k]
		}
	}
	switch {
	case !ok && b.has("upserts"):
		s = auth.Session{ID: id, Subject: subject, Generation: r.From, CreatedAt: r.At}
	case !ok && b.has("takes absence for a fault"):
		return auth.Session{}, false, context.DeadlineExceeded
	case !ok:
		return auth.Session{}, false, auth.ErrSessionNotFound
	}
	rests := s.RotatedAt.After(r.NotAfter)
	switch {
	case b.has("ignores the rest"):
		rests = false
	case b.has("rests at the very instant"):
		rests = !s.RotatedAt.Before(r.NotAfter)
	}
	behind := s.Generation < r.From
	if b.has("compares generations as text") {
		behind = strconv.FormatInt(s.Generation, 10) < strconv.FormatInt(r.From, 10)
	}
	switch {
	case s.Generation == r.From && !rests:
		s.Generation++
	case behind && !b.has("never heals") && (!rests || !b.has("heals only what does not rest")):
		s.Generation = r.From
	case b.has("reports a repeat as a move") && s.Generation == r.From+1:
		return b.copy(s), true, nil
	case b.has("shows losers a stale snapshot"):
		return b.copy(old), false, nil
	default:
		return b.copy(s), false, nil
	}
	if r.At.After(s.RotatedAt) || !b.has("never moves RotatedAt back") {
		s.RotatedAt = r.At
	}
	s.ExpiresAt = r.ExpiresAt
	if b.has("writes in two steps") {
		b.sessions[k] = s
		b.mu.Unlock()
		time.Sleep(50 * time.Microsecond)
		b.mu.Lock()
		if _, there := b.sessions[k]; !there {
			return auth.Session{}, false, auth.ErrSessionNotFound
		}
	}
	switch {
	case b.has("keeps a device that is known") && r.Device == (auth.Device{}):
	case b.has("tells devices apart by their address") && r.Device.IP == s.Device.IP:
	case b.has("tells devices apart by their agent") && r.Device.UserAgent == s.Device.UserAgent:
	default:
		s.Device = r.Device
	}
	if b.has("rewrites the whole subject") {
		for other := range all {
			if _, there := b.sessions[other]; there && other[0] == subject {
				b.sessions[other] = all[other]
			}
		}
	}
	b.sessions[k] = s
	return b.copy(s), true, nil
}

func (b *book) List(ctx context.Context, subject string) ([]auth.Session, error) {
	if err := b.ended(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tidy()
	var list []auth.Session
	for k, s := range b.sessions {
		if s.Subject == subject || b.has("folds the case of subjects") && k[0] == strings.ToLower(subject) || b.has("lists by prefix") && strings.HasPrefix(s.Subject, subject) {
			list = append(list, b.copy(s))
			if b.has("keeps a record for each refresh") && s.Generation > 2 {
				list = append(list, b.copy(s))
			}
		}
	}
	if list == nil && b.has("takes an empty list for an error") {
		return nil, auth.ErrSessionNotFound
	}
	slices.SortFunc(list, func(x, y auth.Session) int {
		if b.has("lists the oldest first") {
			x, y = y, x
		}
		return cmp.Or(y.RotatedAt.Compare(x.RotatedAt), strings.Compare(x.ID, y.ID))
	})
	return list, nil
}

func (b *book) Revoke(ctx context.Context, r auth.Revocation) error {
	if err := b.ended(ctx); err != nil {
		return err
	}
	whole(r.Before, r.Until)
	if !r.Before.Equal(r.Before.Truncate(time.Second)) {
		panic("a cut that is not in whole seconds")
	}
	refused := r.Check()
	if refused != nil && !b.has("announces what Check refuses", "deletes before it checks") {
		return refused
	}
	if b.has("announces before it deletes") {
		b.announce(r)
		time.Sleep(time.Millisecond)
	}
	found := false
	b.mu.Lock()
	for k, s := range b.sessions {
		switch {
		case s.Subject == r.Subject:
		case b.has("takes a notice for all subjects") && r.AccessTTL > 0:
			delete(b.sessions, k)
			continue
		case b.has("folds the case of subjects") && k[0] == strings.ToLower(r.Subject):
		case b.has("deletes by prefix") && r.All && strings.HasPrefix(s.Subject, r.Subject):
		default:
			continue
		}
		before := s.CreatedAt.Before(r.Before) || b.has("deletes at the cut") && s.CreatedAt.Equal(r.Before)
		all := r.All || b.has("deletes by a cut alone") && len(r.Sessions) == 0
		spared := slices.Contains(r.Except, s.ID) && !b.has("ignores Except")
		if b.has("deletes the first that is named") {
			r.Sessions = r.Sessions[:min(len(r.Sessions), 1)]
		}
		named := slices.ContainsFunc(r.Sessions, func(id string) bool { return b.key("", id) == b.key("", s.ID) })
		if b.has("ignores the cut") && r.All {
			before = true
		}
		if named || all && before && !spared {
			delete(b.sessions, k)
			found = true
		}
	}
	b.mu.Unlock()
	if b.has("looks at the context half way") {
		time.Sleep(50 * time.Microsecond)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if refused != nil && b.has("deletes before it checks") {
		return refused
	}
	names := r.All || len(r.Sessions) > 0
	if b.has("announces only what it found") && names && !found || b.has("announces before it deletes") {
		return nil
	}
	b.announce(r)
	return nil
}

// bookPage is how many revocations a book returns at once.
const bookPage = 20

func (b *book) announce(r auth.Revocation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.numbers++
	switch {
	case b.has("forgets the IDs of announcements"):
		r.ID = ""
	case b.has("keeps lifetimes in seconds"):
		r.AccessTTL = r.AccessTTL.Truncate(time.Second)
	}
	e := entry{b.numbers, r}
	if !b.has("shares the slices of revocations") {
		e.Sessions, e.Except = slices.Clone(r.Sessions), slices.Clone(r.Except)
	}
	if b.has("announces in small messages") && len(r.Sessions) > 100 {
		e.Sessions = e.Sessions[:100]
	}
	if b.has("reads what is later than the last number") && e.number%2 == 0 {
		b.mu.Unlock() // it commits late
		time.Sleep(time.Millisecond)
		b.mu.Lock()
	}
	b.entries = append(b.entries, e)
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *book) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	from, err := strconv.Atoi(strings.TrimPrefix(after, "book "))
	switch {
	case after == "" || b.has("takes any position") && err != nil:
		from = 0
	case !strings.HasPrefix(after, "book ") || err != nil:
		if b.has("begins at the end after a bad position") {
			b.mu.Lock()
			defer b.mu.Unlock()
			return nil, b.position(b.last()), false, nil
		}
		return nil, "", false, auth.ErrFeedReset
	}
	var timeout <-chan time.Time
	if wait > 0 || !b.has("waits for ever with wait 0") {
		timeout = time.After(wait)
	}
	for {
		if err := b.ended(ctx); err != nil {
			return nil, "", false, err
		}
		b.mu.Lock()
		if from > b.last() && !b.has("does not notice a lost history") {
			b.mu.Unlock()
			return nil, "", false, auth.ErrFeedReset
		}
		var rs []auth.Revocation
		to, more := from, false
		for i, e := range b.entries {
			at := i + 1
			if b.has("reads what is later than the last number") {
				at = e.number
			}
			if at <= from {
				continue
			}
			if more = len(rs) == bookPage; more {
				break
			}
			r := e.Revocation
			if !b.has("shares the slices of revocations") {
				r.Sessions, r.Except = slices.Clone(r.Sessions), slices.Clone(r.Except)
			}
			rs, to = append(rs, r), max(to, at)
		}
		switch {
		case b.has("returns a page"):
			more = false
		case b.has("always says that there is more"):
			more = len(rs) > 0 || after != ""
		case b.has("skips one between pages") && more:
			to++
		case b.has("begins pages at the end") && more && after != "":
			rs, to, more = nil, b.last(), false
		}
		if b.has("gives each to one reader") && after != "" {
			n := len(rs)
			rs = slices.DeleteFunc(rs, func(r auth.Revocation) bool { return b.taken[r.Subject] })
			for _, r := range rs {
				b.taken[r.Subject] = true
			}
			if len(rs) < n {
				from = to
			}
		}
		if b.has("goes on one too far") && len(rs) > 1 {
			rs = rs[:len(rs)-1]
		}
		changed := b.changed
		b.mu.Unlock()
		next := b.position(to)
		waits := wait > 0 && more && b.has("waits though there is more")
		if !waits && (len(rs) > 0 || more || b.has("does not wait")) {
			return rs, next, more, nil
		}
		if b.has("does not wake") {
			changed = nil
		}
		done := ctx.Done()
		if b.has("ignores contexts", "is deaf while it waits") {
			done = nil
		}
		select {
		case <-changed:
		case <-timeout:
			if b.has("takes a wait for an error") {
				return nil, "", false, context.DeadlineExceeded
			}
			return nil, next, false, nil
		case <-done:
		}
	}
}

// last is the highest position, with b locked.
func (b *book) last() int {
	if !b.has("reads what is later than the last number") {
		return len(b.entries)
	}
	return b.numbers
}

func (b *book) position(n int) string {
	if n == 0 && b.has("returns the empty position") {
		return ""
	}
	return "book " + strconv.Itoa(n)
}

// flaws are what stores get wrong, the cases that have to notice, and those
// that may: what is a matter of timing, and "*" where the flaw is so gross that
// cases about other things stumble over it.
var flaws = []struct {
	flaw  string
	fails []string
	may   []string
}{
	{flaw: ""},
	{flaw: "gets, then sets", fails: []string{"Rotate_OneOfManyAtOnceMoves", "Rotate_OneOfManyAtOnceHeals"}, may: []string{"Rotate_LosersSeeTheWinnersWrite"}},
	{flaw: "shows losers a stale snapshot", fails: []string{"Rotate_LosersSeeTheWinnersWrite"}},
	{flaw: "rewrites the whole subject", fails: []string{"Rotate_SessionsOfOneSubjectAreIndependent", "Rotate_OneOfManyAtOnceMoves", "Rotate_OneOfManyAtOnceHeals"}, may: []string{"Rotate_LosersSeeTheWinnersWrite"}},
	{flaw: "writes in two steps", fails: []string{"Rotate_IsSeenWhole"}, may: []string{"Rotate_LosersSeeTheWinnersWrite", "Rotate_OneOfManyAtOnceMoves", "Rotate_OneOfManyAtOnceHeals"}},
	{flaw: "upserts", fails: []string{"Rotate_IsNeverAnUpsert", "Rotate_UnknownIsNotFound", "Revoke_EndsForGoodWhileOthersRotate"}},
	{flaw: "takes absence for a fault", fails: []string{"Rotate_UnknownIsNotFound", "Revoke_EndsForGoodWhileOthersRotate"}},
	{flaw: "ignores the rest", fails: []string{"Rotate_RestingSessionStays", "Rotate_OneOfManyAtOnceHeals"}},
	{flaw: "rests at the very instant", fails: []string{"Rotate_MovesFromTheStoredGeneration", "Rotate_RestingSessionStays"}},
	{flaw: "compares generations as text", fails: []string{"Rotate_SpentGenerationChangesNothing", "Rotate_AheadOfTheStoreBecomesFrom"}, may: []string{"Rotate_OneOfManyAtOnceHeals", "Rotate_OneOfManyAtOnceMoves", "Rotate_LosersSeeTheWinnersWrite", "Rotate_RotatedAtMayMoveBack"}},
	{flaw: "never heals", fails: []string{"Rotate_AheadOfTheStoreBecomesFrom", "Rotate_OneOfManyAtOnceHeals", "Rotate_RotatedAtMayMoveBack"}},
	{flaw: "heals only what does not rest", fails: []string{"Rotate_AheadOfTheStoreBecomesFrom"}},
	{flaw: "reports a repeat as a move", fails: []string{"Rotate_MayBeRepeated", "Rotate_OneOfManyAtOnceMoves", "Rotate_SpentGenerationChangesNothing", "Get_ReturnsLargeGenerations"}, may: []string{"Rotate_OneOfManyAtOnceHeals"}},
	{flaw: "never moves RotatedAt back", fails: []string{"Rotate_RotatedAtMayMoveBack"}},
	{flaw: "keeps a device that is known", fails: []string{"Rotate_SetsWhatUseSays"}},
	{flaw: "tells devices apart by their address", fails: []string{"Rotate_SetsWhatUseSays"}},
	{flaw: "tells devices apart by their agent", fails: []string{"Rotate_SetsWhatUseSays"}},
	{flaw: "looks before it creates", fails: []string{"Create_OneOfManyAtOnceWins"}},
	{flaw: "overwrites on Create", fails: []string{"Create_SecondOfSameIDIsRefused", "Create_OneOfManyAtOnceWins", "Nodes_SeeEachOthersWrites"}},
	{flaw: "keeps the caller's data", fails: []string{"Create_KeepsDataApartFromTheCaller"}},
	{flaw: "returns its own data", fails: []string{"Get_ResultIsTheCallers"}},
	{flaw: "returns local times", fails: []string{"Get_ReturnsTimesAsGiven"}},
	{flaw: "keeps generations in 32 bits", fails: []string{"Get_ReturnsLargeGenerations"}},
	{flaw: "keeps data as text", fails: []string{"Get_ReturnsDataAsGiven"}},
	{flaw: "cuts user agents", fails: []string{"Get_ReturnsDeviceAsGiven"}},
	{flaw: "touches on Get", fails: []string{"Get_ChangesNothing"}, may: []string{"*"}},
	{flaw: "returns nothing for absence", fails: []string{"Get_UnknownIsNotFound"}, may: []string{"*"}},
	{flaw: "folds the case of subjects", fails: []string{"Names_SubjectsAreComparedByteForByte"}},
	{flaw: "knows sessions by ID alone", fails: []string{"Create_SameIDUnderTwoSubjectsIsTwoSessions"}, may: []string{"*"}},
	{flaw: "refuses what lies ahead of its clock", fails: []string{"Expiry_ClocksOfCallersDiffer"}},
	{flaw: "keeps a record for each refresh", fails: []string{"Growth_RefreshesLeaveOneRecord"}, may: []string{"*"}},
	{flaw: "deletes by prefix", fails: []string{"Revoke_AllTouchesNoOtherSubject"}, may: []string{"*"}},
	{flaw: "deletes the first that is named", fails: []string{"Revoke_DeletesTheSessionsNamed"}, may: []string{"*"}},
	{flaw: "goes on one too far", fails: []string{"Feed_GoesOnFromNext"}, may: []string{"*"}},
	{flaw: "gives each to one reader", fails: []string{"Feed_TellsEveryProcess"}, may: []string{"*"}},
	{flaw: "trims IDs", fails: []string{"Names_IDsAreComparedByteForByte"}, may: []string{"Names_SubjectAndIDDoNotRunTogether"}},
	{flaw: "joins subject and ID", fails: []string{"Names_SubjectAndIDDoNotRunTogether"}},
	{flaw: "lists by prefix", fails: []string{"List_OnlyTheSubjects", "Names_SubjectsAreComparedByteForByte", "Names_SubjectAndIDDoNotRunTogether", "Revoke_AllTouchesNoOtherSubject"}},
	{flaw: "lists the oldest first", fails: []string{"List_LastUsedFirst", "List_ManySessionsInOrder"}},
	{flaw: "takes an empty list for an error", fails: []string{"List_UnknownSubjectIsEmpty"}, may: []string{"*"}},
	{flaw: "collects at ExpiresAt", fails: []string{"Expiry_RecordStaysAnotherMinute", "Expiry_MovesWithTheSession"}, may: []string{"Expiry_ClocksOfCallersDiffer"}},
	{flaw: "expires as at Create", fails: []string{"Expiry_MovesWithTheSession"}},
	{flaw: "deletes at the cut", fails: []string{"Revoke_AllEndsThoseCreatedBeforeCut", "Revoke_NamedAndAllTogether"}},
	{flaw: "ignores the cut", fails: []string{"Revoke_AllEndsThoseCreatedBeforeCut", "Revoke_NamedAndAllTogether", "Revoke_RepeatedTouchesNoLaterLogin", "Revoke_AllWhileOthersSignIn"}, may: []string{"Feed_AnnouncesAlsoWhatFoundNothing"}},
	{flaw: "ignores Except", fails: []string{"Revoke_AllSparesExcept", "Revoke_NamedAndAllTogether"}},
	{flaw: "deletes by a cut alone", fails: []string{"Revoke_CutAloneDeletesNothing"}},
	{flaw: "announces only what it found", fails: []string{"Feed_AnnouncesAlsoWhatFoundNothing"}},
	{flaw: "announces before it deletes", fails: []string{"Feed_AnnouncesWhatIsDeletedAlready"}},
	{flaw: "announces in small messages", fails: []string{"Feed_ReturnsWhatWasRevoked"}},
	{flaw: "reads what is later than the last number", fails: []string{"Feed_OmitsNothing"}, may: []string{"Feed_EmptyPositionMeansAll", "Feed_AnnouncesWhatIsDeletedAlready", "Feed_TellsEveryProcess"}},
	{flaw: "shares the slices of revocations", fails: []string{"Feed_ResultIsTheCallers"}},
	{flaw: "returns a page", fails: []string{"Feed_EmptyPositionMeansAll"}, may: []string{"Feed_OmitsNothing", "Feed_ManyComeInPages"}},
	{flaw: "always says that there is more", fails: []string{"Feed_ManyComeInPages", "Feed_WaitsAtMostWait"}, may: []string{"*"}},
	{flaw: "skips one between pages", fails: []string{"Feed_ManyComeInPages", "Feed_EmptyPositionMeansAll"}, may: []string{"Feed_OmitsNothing", "Feed_AnnouncesWhatIsDeletedAlready", "Feed_TellsEveryProcess"}},
	{flaw: "begins pages at the end", fails: []string{"Feed_ManyComeInPages"}, may: []string{"*"}},
	{flaw: "waits though there is more", fails: []string{"Feed_ManyComeInPages"}, may: []string{"*"}},
	{flaw: "creates what Check refuses", fails: []string{"Refuse_CreateOfWhatNoStoreRepresents"}},
	{flaw: "writes before it checks", fails: []string{"Refuse_CreateOfWhatNoStoreRepresents"}},
	{flaw: "moves to what Check refuses", fails: []string{"Refuse_RotateToWhatNoStoreRepresents"}},
	{flaw: "counts on for ever", fails: []string{"Refuse_RotateBeyondTheLastGeneration"}},
	{flaw: "announces what Check refuses", fails: []string{"Refuse_RevocationThatNoStoreRepresents"}},
	{flaw: "deletes before it checks", fails: []string{"Refuse_RevocationThatNoStoreRepresents"}},
	{flaw: "takes impossible names for a fault", fails: []string{"Refuse_ImpossibleNamesHaveNoSessions"}},
	{flaw: "unmaps addresses", fails: []string{"Refuse_NothingElse"}},
	{flaw: "forgets the IDs of announcements", fails: []string{"Feed_ReturnsIDsAndNotices"}, may: []string{"Refuse_NothingElse"}},
	{flaw: "keeps lifetimes in seconds", fails: []string{"Feed_ReturnsIDsAndNotices"}},
	{flaw: "takes a notice for all subjects", fails: []string{"Feed_ReturnsIDsAndNotices"}},
	{flaw: "takes any position"},
	{flaw: "begins at the end after a bad position", fails: []string{"Feed_RefusesPositionOfNoHistory"}},
	{flaw: "does not notice a lost history", fails: []string{"Feed_RefusesPositionOfNoHistory"}},
	{flaw: "returns the empty position", fails: []string{"Feed_EmptyPositionMeansAll"}, may: []string{"*"}},
	{flaw: "waits for ever with wait 0", fails: []string{"Feed_WaitsAtMostWait", "Feed_EmptyPositionMeansAll"}, may: []string{"*"}},
	{flaw: "does not wait", fails: []string{"Feed_WaitsAtMostWait"}, may: []string{"Feed_ReturnsWhenContextEnds"}},
	{flaw: "takes a wait for an error", fails: []string{"Feed_WaitsAtMostWait"}, may: []string{"*"}},
	{flaw: "does not wake", fails: []string{"Feed_WakesWhenOneIsAnnounced"}},
	{flaw: "is deaf while it waits", fails: []string{"Feed_ReturnsWhenContextEnds"}},
	{flaw: "ignores contexts", fails: []string{"Context_EndedCallReturnsError", "Feed_ReturnsWhenContextEnds"}},
	{flaw: "takes an error for absence", fails: []string{"Context_EndedIsNoDecision"}},
	{flaw: "looks at the context half way", fails: []string{"Context_EndedCallHappensWholeOrNot"}},
}

// wide are cases that meet much of the contract on their way, and so may notice
// any flaw.
var wide = []string{"Refuse_CreateOfWhatNoStoreRepresents", "Refuse_RevocationThatNoStoreRepresents", "Refuse_ImpossibleNamesHaveNoSessions", "Refuse_RotateBeyondTheLastGeneration", "Refuse_NothingElse", "Feed_ManyComeInPages"}

func TestRun_BookKeepsTheContract(t *testing.T) {
	t.Parallel()
	Run(t, func(*testing.T) func() auth.Store {
		b := newBook("")
		return func() auth.Store { return b }
	})
}

// TestCases_EachFlawIsNoticedByItsRule runs every case against every flaw: the
// cases that are meant to notice it fail, and no other does.
func TestCases_EachFlawIsNoticedByItsRule(t *testing.T) {
	t.Parallel()
	noticed := map[string]bool{}
	for _, f := range flaws {
		for _, name := range f.fails {
			noticed[name] = true
		}
		t.Run(cmp.Or(f.flaw, "none"), func(t *testing.T) {
			t.Parallel()
			for _, c := range cases() {
				err := runOn(t, c, f.flaw)
				switch {
				case slices.Contains(f.fails, c.name):
					require.Error(t, err, "%s did not notice", c.name)
				case !slices.Contains(f.may, c.name) && !slices.Contains(f.may, "*") && !slices.Contains(wide, c.name):
					require.NoError(t, err, c.name)
				}
				if err != nil {
					t.Logf("%s: %v", c.name, err)
				}
			}
		})
	}
	for _, c := range cases() {
		require.True(t, noticed[c.name], "no flaw is there for %s", c.name)
	}
}

// runOn runs a case on a book with a flaw, in a time of their own, so that
// waiting takes none.
func runOn(t *testing.T, c testcase, flaw string) (err error) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := newBook(flaw)
		b.latency = time.Microsecond // every call waits, or time would not go on
		e := &env{ctx: ctx, open: func() auth.Store { return b }, rounds: 12, many: 30, patience: 5 * time.Second}
		err = c.run(e)
		cancel()
		time.Sleep(time.Hour) // until the calls that nobody waits for have returned
	})
	return err
}

// TestCases_RulesAreTheContract compares each rule with the words of store.go.
func TestCases_RulesAreTheContract(t *testing.T) {
	t.Parallel()
	f, err := parser.ParseFile(token.NewFileSet(), "../store.go", nil, parser.ParseComments)
	require.NoError(t, err)
	var text []string
	plain := regexp.MustCompile(`\[(\w+)\]`)
	add := func(group *ast.CommentGroup) {
		text = append(text, plain.ReplaceAllString(strings.Join(strings.Fields(group.Text()), " "), "$1"))
	}
	for _, group := range f.Comments {
		add(group)
	}
	contract := strings.Join(text, "\n")
	names := map[string]bool{}
	for _, c := range cases() {
		require.Contains(t, contract, c.rule, c.name)
		require.False(t, names[c.name], c.name)
		names[c.name] = true
	}
}

func TestCases_NamesDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, name := range names() {
		require.False(t, seen[name], "%q", name)
		require.LessOrEqual(t, len(name), 255)
		seen[name] = true
	}
}
