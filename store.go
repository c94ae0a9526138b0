package auth

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Device is what is known of the program that presented a credential.
// [Verifier.Device] reads it from a request.
type Device struct {
	UserAgent string     // cleaned, at most 256 bytes of UTF-8
	IP        netip.Addr // the zero Addr when unknown
}

// Session is one signed-in device: one record in the store, for as long as it
// lives. Nothing in it is a secret: whoever reads the whole store can mint
// nothing. Times are UTC in whole milliseconds.
type Session struct {
	ID         string    // random, 128 bits
	Subject    string    // User.ID
	Generation int64     // counts from 1, by one at every refresh that moves the session
	CreatedAt  time.Time // the login; it may lie ahead of the clock by Leeway and a second
	RotatedAt  time.Time // the last move; CreatedAt at first
	ExpiresAt  time.Time // the end, unless the session moves before
	Device     Device    // who moved it last
	Data       []byte    // opaque to the store, at most 1 KiB, set by Create and never again
}

// Name returns the name of the device that was given at login, or "".
func (s Session) Name() string {
	name, _ := splitData(s.Data)
	return name
}

// AppData returns the application's own data that was given at login
// ([SignIn].Data), or nil.
func (s Session) AppData() []byte {
	_, data := splitData(s.Data)
	return data
}

// maxSessionData bounds Session.Data, so that a store can plan for it.
const maxSessionData = 1024

// joinData lays out Session.Data: the length of the name, the name, the
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

// Use is what a refresh writes, and the condition under which it may.
type Use struct {
	At        time.Time // becomes RotatedAt
	Rested    time.Time // the session moves only if its RotatedAt is not after this
	ExpiresAt time.Time // becomes ExpiresAt
	Device    Device    // becomes Device
}

// Revocation is the early end of sessions, of access tokens, or of both. It
// names the sessions listed in Sessions, and with All those of Subject that
// were created before Cut, Except apart, so that repeating it never touches a
// later login. If neither names a session it ends access tokens alone: those
// of Subject issued before Cut.
type Revocation struct {
	Subject  string
	Sessions []string
	All      bool
	Except   []string  // of All; it does not spare what Sessions lists
	Cut      time.Time // whole seconds; the zero Time if only Sessions is set
	Until    time.Time // when the last access token that it concerns has expired
}

// Feed tells every process of revocations. A [Verifier] needs only this.
// It is safe for concurrent use.
type Feed interface {
	// Changes returns the revocations announced after the position after,
	// which an earlier call returned as next; the empty position means all
	// whose Until has not passed. With none it waits for one, at most wait,
	// then returns none and no error. It may repeat and reorder; it must not
	// omit: a revocation that commits late, behind one that was returned
	// already, is still returned. The empty position is answered whole, in one
	// call. A wait of zero or less does not wait, and next is never empty. When
	// ctx ends it returns in time, with an error.
	//
	// After an error the caller begins again with the empty position.
	// [ErrFeedReset]: the position is not of this server's history (a
	// failover, a restored copy); the core begins again, and announces again
	// what it knows and the feed does not. A position may be asked for again
	// after errors: the core does so to learn whether an outage was one.
	Changes(ctx context.Context, after string, wait time.Duration) (rs []Revocation, next string, err error)
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
// IDs and subjects are UTF-8 without control characters, 1 to 255 bytes; a
// Generation is at most 1<<53; nil and empty Data are the same.
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

	// Rotate moves a session on. If the stored Generation is from and
	// RotatedAt is not after use.Rested, it becomes from+1; if it is less than
	// from (the store has lost acknowledged writes), it becomes from. In both
	// cases RotatedAt, ExpiresAt and Device are set from use, in one atomic
	// step, and moved is true; only RotatedAt never moves back: it stays as it
	// was if that is later than use.At. Otherwise nothing changes. Either way
	// s is the session as it now stands, the winner's write included.
	//
	// Rotate is never an upsert: a session that was revoked stays so.
	// It takes one round trip where the database allows it.
	// [ErrSessionNotFound].
	Rotate(ctx context.Context, subject, id string, from int64, use Use) (s Session, moved bool, err error)

	// List returns the subject's records, last used (RotatedAt) first. A
	// subject without any has an empty list, not an error.
	List(ctx context.Context, subject string) ([]Session, error)

	// Revoke deletes the sessions that r names, then announces r to the feed,
	// also when nothing was there to delete. nil means that both are as
	// durable as the store's acknowledged writes.
	Revoke(ctx context.Context, r Revocation) error
}

// The errors that a [Store] and a [Feed] answer with. They are decisions, not
// faults; errors.Is finds them wrapped too.
var (
	ErrSessionNotFound = errors.New("auth: session not found")
	ErrSessionExists   = errors.New("auth: session exists already")
	ErrFeedReset       = errors.New("auth: feed position is not of this history")
)

// cutMillis brings t to the resolution in which everything is stored.
func cutMillis(t time.Time) time.Time {
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// checkSession refuses what a store could not give back as it was given.
func checkSession(s Session) error {
	switch {
	case s.ID == "" || s.Subject == "":
		return errors.New("auth: a session needs an ID and a subject")
	case len(s.ID) > maxSubject || len(s.Subject) > maxSubject:
		return fmt.Errorf("auth: a session's ID or subject is longer than %d bytes", maxSubject)
	case len(s.Data) > maxSessionData:
		return fmt.Errorf("auth: session data is %d bytes, at most %d are kept", len(s.Data), maxSessionData)
	}
	return nil
}
