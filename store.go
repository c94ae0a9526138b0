package auth

import (
	"context"
	"encoding/binary"
	"errors"
	"time"
)

// Session is one signed-in device: one record in the store, for as long as it
// lives. Nothing in it is a secret: whoever reads the whole store can mint
// nothing. Times are UTC in whole milliseconds.
type Session struct {
	ID         string    // random, 128 bits
	Subject    string    // User.ID
	Generation int64     // counts from 1, by one at every refresh that moves the session
	CreatedAt  time.Time // the login; it may lie ahead of the clock by Leeway and a second
	RotatedAt  time.Time // the last move; the login at first, by the clock
	ExpiresAt  time.Time // the end, unless the session moves before
	Device     Device    // who moved it last
	Opaque     []byte    // opaque to the store, at most 1 KiB, set by Create and never again
}

// Name returns the name of the device that was given at login, or "".
func (s Session) Name() string {
	name, _ := splitData(s.Opaque)
	return name
}

// Data returns the application's own data that was given at login
// ([SessionOptions].Data), or nil.
func (s Session) Data() []byte {
	_, data := splitData(s.Opaque)
	return data
}

// maxOpaque bounds Session.Opaque, so that a store can plan for it.
const maxOpaque = 1024

// joinData lays out Session.Opaque: the length of the name, the name, the
// application's own.
func joinData(name string, data []byte) []byte {
	if name == "" && len(data) == 0 {
		return nil
	}
	b := binary.AppendUvarint(nil, uint64(len(name)))
	b = append(b, name...)
	return append(b, data...)
}

func splitData(b []byte) (name string, data []byte) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return "", nil
	}
	name, data = string(b[w:w+int(n)]), b[w+int(n):]
	if len(data) == 0 {
		return name, nil
	}
	return name, data
}

// Rotation is what [Store.Rotate] writes, and its precondition.
type Rotation struct {
	From      int64     // the generation to rotate from
	At        time.Time // becomes RotatedAt
	NotAfter  time.Time // rotate only if RotatedAt is not after this
	ExpiresAt time.Time // becomes ExpiresAt
	Device    Device    // becomes Device
}

// Revocation is the early end of sessions, of access tokens, or of both. It
// names the sessions listed in Sessions, and with All those of Subject that
// were created before Before, except those in Except, so that repeating it never
// touches a later login. If it neither lists a session nor sets All, it ends
// only access tokens: those of Subject that were issued before Before.
type Revocation struct {
	Subject  string
	Sessions []string
	All      bool
	Except   []string  // of All; it does not spare a session that Sessions lists
	Before   time.Time // whole seconds; the zero Time if only Sessions is set
	Until    time.Time // when the last access token that it concerns has expired

	// ID names the announcement: the random ID of the process that made it, a
	// dot, and a number. At most 64 bytes.
	ID string

	// AccessTTL, if it is not zero, makes this a notice instead of a
	// revocation: until Until, access tokens with this lifetime may be alive.
	// A notice has no Subject and ends nothing. It is in whole milliseconds.
	AccessTTL time.Duration
}

// Feed delivers revocations to every process. A [Verifier] needs only this.
// It is safe for concurrent use.
type Feed interface {
	// Changes returns the revocations announced after the position after,
	// which an earlier call returned as next; the empty position means all
	// whose Until has not passed. With none it waits for one, at most wait,
	// then returns none and no error. It may repeat and reorder; it must not
	// omit: a revocation that commits late, behind one that was returned
	// already, is still returned. A wait of zero or less does not wait, and
	// next is never empty. When ctx ends it returns in time, with an error.
	//
	// A store returns many revocations in pages, of some thousands at most:
	// more reports that there are others to be had from next at once. The
	// caller knows the whole feed after the first answer without more.
	//
	// An entry that this version of the store cannot read does not stop the
	// feed. It is returned as a Revocation with only Subject set, or nothing
	// where not even that can be read, and with an ID of the store's choice
	// that is the same at every read.
	//
	// After an error the caller goes on from the last position that it
	// reached. [ErrFeedReset]: the position is not of this server's history (a
	// failover, a restored copy). The caller begins again with the empty
	// position, and announces again what it knows and the feed does not.
	Changes(ctx context.Context, after string, wait time.Duration) (rs []Revocation, next string, more bool, err error)
}

// Store keeps one record per session. It is safe for concurrent use, by many
// processes on one database. IDs and subjects are compared byte for byte; a
// session is known by its subject and its ID together, so that a store can be
// partitioned by subject.
//
// A store does no arithmetic and applies no policy. Times are the caller's, in
// whole milliseconds, and come back equal; a store's own clock only collects
// records, not before ExpiresAt plus a minute. A record is there until it is
// collected: the core leaves out what has expired. What a call returns is the
// caller's to keep and to change. What a call is given stays the caller's too.
//
// What [Session.Check], [Rotation.Check] and [Revocation.Check] refuse, a store
// refuses with that error, before it writes anything. So it need not store any
// other value. Get and Rotate return [ErrSessionNotFound] for a subject or an
// ID that they refuse, and List an empty list. nil and empty Opaque are the same.
//
// A record and an entry may have been written by a newer version of the store.
// What this version knows in it counts; what it does not know is ignored, and
// kept by Rotate.
//
// An error other than those named means "unknown": the caller answers 503 and
// may repeat the call; every method may be repeated. A call whose context has
// ended returns an error, and has either happened whole or not at all.
//
// Package storetest checks every sentence of this contract against a store.
type Store interface {
	Feed

	// Create adds a record. [ErrSessionExists] if the subject has one of that
	// ID; that record is then unchanged.
	Create(ctx context.Context, s Session) error

	// Get returns a record and changes nothing. [ErrSessionNotFound].
	Get(ctx context.Context, subject, id string) (Session, error)

	// Rotate moves a session on. If the stored Generation is r.From and
	// RotatedAt is not after r.NotAfter, it becomes r.From+1; if it is less than
	// r.From (the store has lost acknowledged writes), it becomes r.From. In both
	// cases RotatedAt, ExpiresAt and Device are set from r, in one atomic
	// step, and rotated is true. RotatedAt becomes r.At also where that is
	// earlier: a clock may have been set back. Otherwise nothing changes. Either way
	// s is the session as it now stands, the winner's write included.
	//
	// Rotate is never an upsert: a session that was revoked stays so.
	// A From of 1<<53 or more is refused with [ErrNotStorable].
	// It takes one round trip where the database allows it.
	// [ErrSessionNotFound].
	Rotate(ctx context.Context, subject, id string, r Rotation) (s Session, rotated bool, err error)

	// List returns the subject's records, last used (RotatedAt) first. A
	// subject without any has an empty list, not an error. It leaves out a
	// record that cannot be read.
	List(ctx context.Context, subject string) ([]Session, error)

	// Revoke deletes the sessions that r names, then announces r to the feed,
	// also when nothing was there to delete. nil means that both are as
	// durable as the store's acknowledged writes. With All it also deletes
	// records of the subject that cannot be read, except those in Except.
	Revoke(ctx context.Context, r Revocation) error
}

// The errors that a [Store] and a [Feed] answer with. They are decisions, not
// faults; errors.Is finds them wrapped too.
var (
	ErrSessionNotFound = errors.New("auth: session not found")
	ErrSessionExists   = errors.New("auth: session exists already")
	ErrFeedReset       = errors.New("auth: feed position is not of this history")

	// ErrNotStorable means that no store can represent a value. The call
	// changed nothing, and repeating it does not help.
	ErrNotStorable = errors.New("auth: not storable")
)

// Bounds of what a store keeps.
const (
	maxID          = 255 // bytes of an ID or a subject
	maxStoredAgent = 1024
	maxGeneration  = 1 << 53
	firstSecond    = -62135596800 // of the year 1
	endSecond      = 127206115200 // of the year 6000; 48 bits of milliseconds count to the year 6429
)

// notStorable is an [ErrNotStorable] that says which value it is about.
type notStorable string

func (e notStorable) Error() string { return ErrNotStorable.Error() + ": " + string(e) }

func (e notStorable) Unwrap() error { return ErrNotStorable }

// checkName returns an error unless a subject or an ID is 1 to 255 bytes of
// UTF-8 without control characters.
func checkName(what, name string) error {
	if name == "" || len(name) > maxID || !isPlainText(name) {
		return notStorable(what + " must be 1 to 255 bytes of UTF-8 without control characters")
	}
	return nil
}

func checkTime(what string, t time.Time) error {
	if s := t.Unix(); s < firstSecond || s >= endSecond {
		return notStorable(what + " must lie in the years 1 to 6000")
	}
	return nil
}

// Check returns an [ErrNotStorable] that names the first field that a [Store]
// must refuse. An ID and a subject are 1 to 255 bytes of UTF-8 without control
// characters; a Generation is at most 1<<53; Opaque is at most 1 KiB; times lie in
// the years 1 to 6000; a user agent is at most 1 KiB of UTF-8 without control
// characters, and an IP address has no zone.
func (s Session) Check() error {
	switch {
	case s.Generation < 0 || s.Generation > maxGeneration:
		return notStorable("Generation must be 0 to 1<<53")
	case len(s.Opaque) > maxOpaque:
		return notStorable("Opaque must be at most 1024 bytes")
	}
	return firstError(
		checkName("a session's ID", s.ID), checkName("a subject", s.Subject), checkDevice(s.Device),
		checkTime("CreatedAt", s.CreatedAt), checkTime("RotatedAt", s.RotatedAt), checkTime("ExpiresAt", s.ExpiresAt),
	)
}

// Check returns an [ErrNotStorable] that names the first field that a [Store]
// must refuse. The rules are those of [Session.Check]; From is less than 1<<53.
func (r Rotation) Check() error {
	if r.From >= maxGeneration {
		return notStorable("From must be less than 1<<53")
	}
	return firstError(checkTime("At", r.At), checkTime("NotAfter", r.NotAfter), checkTime("ExpiresAt", r.ExpiresAt), checkDevice(r.Device))
}

// Check returns an [ErrNotStorable] that names the first field that a [Store]
// must refuse. The rules are those of [Session.Check]; a notice has no subject.
func (r Revocation) Check() error {
	var errs []error
	switch {
	case r.AccessTTL < 0 || r.AccessTTL > maxAccessTTL || r.AccessTTL > 0 && r.AccessTTL < time.Millisecond:
		errs = append(errs, notStorable("AccessTTL must be 0, or 1ms to 24h"))
	case r.AccessTTL > 0 && (r.Subject != "" || len(r.Sessions) > 0 || r.All || len(r.Except) > 0 || !r.Before.IsZero()):
		errs = append(errs, notStorable("a notice of an AccessTTL must not end anything"))
	case r.AccessTTL == 0:
		errs = append(errs, checkName("a subject", r.Subject))
	}
	for _, id := range r.Sessions {
		errs = append(errs, checkName("a session's ID", id))
	}
	for _, id := range r.Except {
		errs = append(errs, checkName("a session's ID", id))
	}
	if !r.Before.IsZero() {
		errs = append(errs, checkTime("Before", r.Before))
	}
	if len(r.ID) > 64 || !isPrintable(r.ID) {
		errs = append(errs, notStorable("a revocation's ID must be at most 64 printable ASCII characters"))
	}
	errs = append(errs, checkTime("Until", r.Until))
	return firstError(errs...)
}

// firstError returns the first of errs that is not nil.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
