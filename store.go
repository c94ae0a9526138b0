package auth

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Session is the record of one signed-in device. It contains no secret: a reader
// of the whole store cannot create a token. Times are UTC, in whole
// milliseconds.
type Session struct {
	ID         string    // random, 128 bits
	Subject    string    // User.ID
	Generation int64     // 1 after the login; each rotation adds 1
	CreatedAt  time.Time // when the user logged in, or the user's not-before instant if that was later
	RotatedAt  time.Time // the last rotation; the login if there was none
	ExpiresAt  time.Time // when the session ends, unless it is rotated before then
	Device     Device    // the client that logged in, or that rotated the session last
	Opaque     []byte    // opaque to the store, at most 1280 bytes, set by Create only

	// RetryTag is nil, or 16 bytes that identify the retry key of the last
	// rotation; see [Rotation]. Create may set it.
	RetryTag []byte

	// Key is nil, or the public key of the device to which the session is
	// bound: a P-256 point in compressed form, 33 bytes. Nothing sets it yet.
	Key []byte
}

// Name returns the name that the user gave the device at login, or "".
func (s Session) Name() string {
	name, _ := splitData(s.Opaque)
	return name
}

// Data returns the SessionOptions.Data of the login, or nil.
func (s Session) Data() []byte {
	_, data := splitData(s.Opaque)
	return data
}

// Actor returns the SessionOptions.Actor of the login, or "": the ID of the user who
// acts for Subject in this session.
func (s Session) Actor() string {
	actor, _ := splitActor(s.Opaque)
	return actor
}

// Sizes in bytes.
const (
	maxOpaque   = 1280
	retryTagLen = 16
	keyLen      = 33
)

// actorMark is the beginning of a Session.Opaque with an actor. As the length of a
// name, it is larger than any Opaque, so that versions that do not know it find
// neither a name nor data.
const actorMark = "\xff\x7f"

// joinData returns a Session.Opaque: actorMark and the actor, if there is one, then
// the name, each after its length, then data.
func joinData(actor, name string, data []byte) []byte {
	if actor == "" && name == "" && len(data) == 0 {
		return nil
	}
	var b []byte
	if actor != "" {
		b = appendText([]byte(actorMark), actor)
	}
	return append(appendText(b, name), data...)
}

func splitData(b []byte) (name string, data []byte) {
	_, b = splitActor(b)
	name, data = cutLeading(b)
	if len(data) == 0 {
		return name, nil
	}
	return name, data
}

// splitActor returns the actor, and what follows it.
func splitActor(b []byte) (actor string, rest []byte) {
	if after, ok := bytes.CutPrefix(b, []byte(actorMark)); ok {
		return cutLeading(after)
	}
	return "", b
}

// appendText appends the length of text, and text.
func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// cutLeading returns the text that appendText wrote at the beginning of b, and what
// follows it. If there is none, it returns "" and nil.
func cutLeading(b []byte) (text string, rest []byte) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return "", nil
	}
	return string(b[w : w+int(n)]), b[w+int(n):]
}

// Rotation is what [Store.Rotate] writes, and its precondition.
type Rotation struct {
	From      int64     // the generation to rotate from
	At        time.Time // becomes RotatedAt
	NotAfter  time.Time // rotate only if RotatedAt is not after this
	ExpiresAt time.Time // becomes ExpiresAt
	Device    Device    // becomes Device

	// RetryTag becomes RetryTag, unless the stored RetryTag equals SpentTag. In
	// that case the stored RetryTag becomes nil, because the client has used the
	// retry key of the previous rotation again. RetryTag and SpentTag are both nil
	// for a request without a retry key, and both 16 bytes otherwise.
	RetryTag []byte
	SpentTag []byte

	// Key is the public key whose possession the request has proved, or nil. A
	// session with a Key is rotated only by a Rotation with the same Key, and
	// keeps its Key. If the session has none, Key becomes its Key. Nothing sets
	// it yet.
	Key []byte
}

// Revocation ends sessions of a user before they expire, or ends only access
// tokens.
//
//   - It ends the sessions listed in Sessions.
//   - If All is set, it also ends all sessions of Subject whose CreatedAt is
//     earlier than Before, except those in Except. So repeating it does not end a
//     session that was created later.
//   - If All is not set and Sessions is empty, it ends only access tokens: those
//     of Subject that were issued earlier than Before.
//
// A Revocation with an AccessTTL is a notice instead, and ends nothing.
type Revocation struct {
	Subject  string
	Sessions []string
	All      bool
	Except   []string  // sessions that All does not end; no effect on Sessions
	Before   time.Time // whole seconds; the zero Time if only Sessions is set
	Until    time.Time // when every access token that it revokes has expired

	// ID is the ID of this publication: the random ID of the process that
	// published it, a dot, and a number; at most 64 bytes.
	ID string

	// If AccessTTL is not zero, this is a notice: access tokens with this
	// lifetime may exist up to the time Until. A notice has no Subject and ends
	// nothing. Notices let processes with different AccessTTLs share a store.
	// AccessTTL is in whole milliseconds.
	AccessTTL time.Duration

	// Reason is why it was made. It has no effect on what the Revocation ends. An
	// [Authenticator] sets one of these words:
	//
	//   - "reuse": a spent refresh token was presented, so two clients had it
	//   - "user": the user was deleted or disabled, or the actor of the session was
	//   - "revoked": Revoke or RevokeAll was called, or a password was changed
	//   - "logout": Logout was called
	//   - "replaced": a login in the same browser, or Continue, replaced the session
	//   - "evicted": a login exceeded Config.MaxSessions
	//   - "login": the login was not completed, and no client has its tokens
	//   - "access": ExpireAccess was called
	//
	// Versions may add words. Of several revocations that name a session, the
	// reason that comes first in this list applies. Any other word counts as "",
	// which means that the reason is not known.
	Reason string
}

// Feed delivers revocations to every process. A [Verifier] needs only this.
// It is safe for concurrent use.
type Feed interface {
	// Changes returns the revocations published since a position. That is the
	// next that an earlier call returned, or the empty string for all
	// revocations whose Until has not passed. If there are no revocations,
	// Changes waits for one. If none arrives within the duration wait, it
	// returns an empty list and no error. If wait is zero or negative, Changes
	// does not wait. next is never empty.
	//
	// Changes may return revocations in any order, and a revocation more than
	// once. It must not miss any. If a revocation commits only after a call has
	// returned newer ones, a later call still returns it.
	//
	// A store returns many revocations in pages of at most a few thousand. If
	// more is true, a call with next returns further revocations without waiting.
	//
	// An entry that this version of the store cannot read does not stop the
	// feed. Changes returns it as a Revocation with only Subject and ID set, or
	// only ID if it cannot read the subject either. The store chooses the ID,
	// which is the same at every read. An entry whose Reason is not valid is
	// returned without it.
	//
	// If ctx is done, Changes returns promptly with an error. After an error
	// the caller continues from the last position that it reached. ErrFeedReset
	// means that the position does not belong to the current history of the
	// database, for example after a failover, or because the database was
	// restored from a copy. The caller then rereads the whole feed. An
	// [Authenticator] also republishes the revocations that are missing from
	// the feed.
	Changes(ctx context.Context, after string, wait time.Duration) (rs []Revocation, next string, more bool, err error)
}

// Store keeps one record per session. It is safe for concurrent use, by many
// processes on one database. Subjects and session IDs are compared byte for
// byte. A session is identified by its subject and its ID together, so a store
// can be partitioned by subject.
//
// A store computes no times and applies no policy. Times are the caller's, in
// whole milliseconds, and are returned unchanged. A store may use its own clock
// only to delete expired records and revocations, at the earliest a minute
// after ExpiresAt or Until. It returns an expired record until it deletes it:
// the caller ignores expired sessions.
//
// The caller owns the slices that a method returns. A method neither modifies
// nor retains the slices that it is given.
//
// A store refuses a value that [Session.Check], [Rotation.Check] or
// [Revocation.Check] refuses, with that error, before it writes anything. So it
// only has to represent the values that these methods accept. Get and Rotate
// return [ErrSessionNotFound] for a subject or an ID that [Session.Check]
// refuses, and List returns an empty list. A store need not distinguish a nil
// Opaque, RetryTag or Key from an empty one.
//
// A record or a revocation may have been written by a newer version of the
// store. This version uses the parts that it knows, and ignores the others.
// Rotate preserves them.
//
// Any error that is not named here means that the outcome is unknown. The
// caller responds with 503, and may repeat the call: every method may be
// repeated. A call whose context has ended returns an error, and has either
// taken effect completely or not at all.
//
// Package storetest tests a store against this contract. Its package comment
// lists what it cannot test.
type Store interface {
	Feed

	// Create adds a record. It returns [ErrSessionExists], and does not change
	// the existing record, if the subject has a record with this ID.
	Create(ctx context.Context, s Session) error

	// Get returns a record and changes nothing. It returns [ErrSessionNotFound]
	// if there is no such record.
	Get(ctx context.Context, subject, id string) (Session, error)

	// Rotate advances a session to another generation, in one atomic step:
	//
	//   - If there is no such session, it returns [ErrSessionNotFound]. It never
	//     creates one, so a revoked session stays revoked.
	//   - If the stored Key is not empty and differs from r.Key, it changes
	//     nothing, and rotated is false.
	//   - If the stored Generation is less than r.From, which means that the
	//     store lost acknowledged writes, Generation becomes r.From.
	//   - If the stored Generation is r.From and RotatedAt is not after
	//     r.NotAfter, Generation becomes r.From+1.
	//   - Otherwise it changes nothing, and rotated is false.
	//
	// If rotated is true, RotatedAt, ExpiresAt and Device are set from r.
	// RotatedAt becomes r.At even if that is earlier, since a clock may have
	// been set back. RetryTag becomes r.RetryTag, even if that is empty. If the
	// stored RetryTag is not empty and equals r.SpentTag, RetryTag becomes empty
	// instead. If the stored Key is empty, Key becomes r.Key.
	//
	// s is the session as it is now stored, which may be the result of a
	// concurrent call. A From of 1<<53 or more is refused with [ErrNotStorable].
	//
	// Rotate should take one round trip where the database allows it.
	Rotate(ctx context.Context, subject, id string, r Rotation) (s Session, rotated bool, err error)

	// List returns the records of a subject in descending order of RotatedAt. For
	// a subject without records it returns an empty list and no error. It leaves
	// out a record that it cannot read.
	List(ctx context.Context, subject string) ([]Session, error)

	// Revoke deletes the sessions that r ends, then publishes r in the feed, even
	// if it deleted nothing. When it returns nil, both are as durable as any
	// acknowledged write of the store. If r.All is set, it also deletes records
	// of the subject that it cannot read, except those in r.Except.
	Revoke(ctx context.Context, r Revocation) error

	// Spend records that something was used that may be used only once. The first
	// call with a subject and an ID returns nil. Every other call, by any process,
	// returns [ErrSpent] until the record is deleted. That is at the earliest a
	// minute after until. Later calls do not change the record, whatever their
	// until is. The record is independent of sessions: it is not in List, a
	// session may have the same ID, and Revoke does not delete it. Spend refuses
	// what [Session.Check] refuses of a Session with this Subject, ID and
	// ExpiresAt.
	//
	// If the driver repeats a call whose response was lost, the call must not
	// return ErrSpent because of its own record. If the caller repeats the call, it
	// returns ErrSpent.
	Spend(ctx context.Context, subject, id string, until time.Time) error
}

// Errors of a [Store] and a [Feed] that have a defined meaning. Any other error
// means that the outcome is unknown. Test for them with errors.Is: a store may
// wrap them.
var (
	ErrSessionNotFound = errors.New("auth: session not found")
	ErrSessionExists   = errors.New("auth: session already exists")
	ErrSpent           = errors.New("auth: already used")
	ErrFeedReset       = errors.New("auth: feed position is no longer valid: the database failed over or was restored")

	// ErrNotStorable means that an argument has a value that no store accepts.
	// The call changed nothing, and repeating it does not help.
	ErrNotStorable = errors.New("auth: not storable")
)

// Bounds of the values in a store.
const (
	maxID          = 255 // bytes, of an ID or a subject
	maxStoredAgent = 1024
	maxGeneration  = 1 << 53
	firstSecond    = -62135596800 // start of the year 1
	endSecond      = 127206115200 // start of the year 6001; signed 48-bit milliseconds end in the year 6429
)

// notStorable is an [ErrNotStorable] that names the value.
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

// Check returns an [ErrNotStorable] that names the first field with a value that
// a [Store] must refuse. ID and Subject must be 1 to 255 bytes of UTF-8 without
// control characters, Generation must be from 0 to 1<<53, Opaque must be at most
// 1280 bytes, RetryTag must be empty or 16 bytes, Key must be empty or 33 bytes,
// and times must lie in the years 1 to 6000. Device.UserAgent must be at most 1 KiB
// of UTF-8 without control characters, and Device.IP must not have a zone.
func (s Session) Check() error {
	switch {
	case s.Generation < 0 || s.Generation > maxGeneration:
		return notStorable("Generation must be from 0 to 1<<53")
	case len(s.Opaque) > maxOpaque:
		return notStorable("Opaque must be at most 1280 bytes")
	}
	return firstError(
		checkLen("RetryTag", s.RetryTag, retryTagLen), checkLen("Key", s.Key, keyLen),
		checkName("a session ID", s.ID), checkName("a subject", s.Subject), checkDevice(s.Device),
		checkTime("CreatedAt", s.CreatedAt), checkTime("RotatedAt", s.RotatedAt), checkTime("ExpiresAt", s.ExpiresAt),
	)
}

// Check returns an [ErrNotStorable] that names the first field with a value that
// a [Store] must refuse. From must be less than 1<<53. For the other fields, the
// rules of [Session.Check] apply.
func (r Rotation) Check() error {
	if r.From >= maxGeneration {
		return notStorable("From must be less than 1<<53")
	}
	return firstError(
		checkLen("RetryTag", r.RetryTag, retryTagLen), checkLen("SpentTag", r.SpentTag, retryTagLen), checkLen("Key", r.Key, keyLen),
		checkTime("At", r.At), checkTime("NotAfter", r.NotAfter), checkTime("ExpiresAt", r.ExpiresAt), checkDevice(r.Device),
	)
}

// checkLen returns an error unless b is empty or n bytes long.
func checkLen(what string, b []byte, n int) error {
	if len(b) != 0 && len(b) != n {
		return notStorable(fmt.Sprintf("%s must be empty or %d bytes", what, n))
	}
	return nil
}

// Check returns an [ErrNotStorable] that names the first field with a value that
// a [Store] must refuse. The rules of [Session.Check] apply to subjects, session
// IDs and times. ID must be at most 64 printable ASCII characters. AccessTTL must
// be zero, or from 1ms to 24h; with it, Subject, Sessions, All, Except and Before
// must not be set. Reason must be at most 16 letters from a to z.
func (r Revocation) Check() error {
	var errs []error
	switch {
	case r.AccessTTL < 0 || r.AccessTTL > maxAccessTTL || r.AccessTTL > 0 && r.AccessTTL < time.Millisecond:
		errs = append(errs, notStorable("AccessTTL must be 0, or from 1ms to 24h"))
	case r.AccessTTL > 0 && (r.Subject != "" || len(r.Sessions) > 0 || r.All || len(r.Except) > 0 || !r.Before.IsZero()):
		errs = append(errs, notStorable("a Revocation with an AccessTTL must not end anything"))
	case r.AccessTTL == 0:
		errs = append(errs, checkName("a subject", r.Subject))
	}
	for _, id := range r.Sessions {
		errs = append(errs, checkName("a session ID", id))
	}
	for _, id := range r.Except {
		errs = append(errs, checkName("a session ID", id))
	}
	if !r.Before.IsZero() {
		errs = append(errs, checkTime("Before", r.Before))
	}
	if len(r.ID) > 64 || !isPrintable(r.ID) {
		errs = append(errs, notStorable("a Revocation.ID must be at most 64 printable ASCII characters"))
	}
	if !isReason(r.Reason) {
		errs = append(errs, notStorable("a Revocation.Reason must be at most 16 letters from a to z"))
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
