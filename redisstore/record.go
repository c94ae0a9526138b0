package redisstore

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/ratchet-go/auth"
)

// A record is, big-endian:
//
//	 0  1 byte    version
//	 1  7 bytes   Generation
//	 8  6 bytes   CreatedAt, in Unix milliseconds, signed, as the next two
//	14  6 bytes   RotatedAt
//	20  6 bytes   ExpiresAt
//	26  4 bytes   drawn by the call of Create, which knows its own record by it
//	30  2 bytes   the length of Data
//	32  Data
//	    1 byte    the length of the address
//	    the address, the user agent
//
// The scripts read these places, counted from 1.
const (
	recordVersion = 1
	recordHead    = 32
)

// Bounds of what is packed.
const (
	maxGeneration = 1 << 53 // a Lua number counts no further
	maxMillis     = 1<<47 - 1
)

// collectAfter is how long after its end something may be collected.
const collectAfter = time.Minute

// millis returns t as it is kept, or an error that names the field.
func millis(field string, t time.Time) (int64, error) {
	ms := t.UnixMilli()
	if ms < -maxMillis || ms > maxMillis {
		return 0, fmt.Errorf("%s (%s) is out of range", field, t.Format(time.RFC3339))
	}
	return ms, nil
}

func put48(b []byte, ms int64) {
	binary.BigEndian.PutUint16(b, uint16(ms>>32)) //nolint:gosec // six bytes of it
	binary.BigEndian.PutUint32(b[2:], uint32(ms)) //nolint:gosec // six bytes of it
}

func get48(s string) time.Time {
	var ms uint64
	for i := range 6 {
		ms = ms<<8 | uint64(s[i])
	}
	return time.UnixMilli(int64(ms<<16) >> 16).UTC() //nolint:gosec // the sign is spread
}

// appendDevice appends the last part of a record.
func appendDevice(b []byte, d auth.Device) ([]byte, error) {
	at := len(b)
	b, err := d.IP.AppendBinary(append(b, 0))
	if err != nil {
		return nil, fmt.Errorf("Device.IP: %w", err)
	}
	n := len(b) - at - 1
	if n > math.MaxUint8 {
		return nil, errors.New("Device.IP has a zone that is too long")
	}
	b[at] = byte(n)
	return append(b, d.UserAgent...), nil
}

// encode returns the record of s.
func encode(s auth.Session, nonce uint32) ([]byte, error) {
	created, err1 := millis("CreatedAt", s.CreatedAt)
	rotated, err2 := millis("RotatedAt", s.RotatedAt)
	expires, err3 := millis("ExpiresAt", s.ExpiresAt)
	if err := cmp.Or(err1, err2, err3); err != nil {
		return nil, err
	}
	switch {
	case s.ID == "" || s.Subject == "":
		return nil, errors.New("a session needs an ID and a subject")
	case s.Generation < 0 || s.Generation > maxGeneration:
		return nil, fmt.Errorf("the generation (%d) is out of range", s.Generation)
	case len(s.Data) > math.MaxUint16:
		return nil, fmt.Errorf("session data is %d bytes, at most %d can be kept", len(s.Data), math.MaxUint16)
	}
	b := make([]byte, recordHead, recordHead+len(s.Data)+17+len(s.Device.UserAgent))
	binary.BigEndian.PutUint64(b, uint64(s.Generation))
	b[0] = recordVersion
	put48(b[8:], created)
	put48(b[14:], rotated)
	put48(b[20:], expires)
	binary.BigEndian.PutUint32(b[26:], nonce)
	binary.BigEndian.PutUint16(b[30:], uint16(len(s.Data)))
	return appendDevice(append(b, s.Data...), s.Device)
}

// decode returns the session of a record.
func decode(subject, id, r string) (auth.Session, error) {
	if r == "" || r[0] != recordVersion {
		return auth.Session{}, errors.New("a session record has an unknown version")
	}
	broken := errors.New("a session record is broken")
	if len(r) < recordHead {
		return auth.Session{}, broken
	}
	s := auth.Session{
		ID: id, Subject: subject,
		CreatedAt: get48(r[8:]), RotatedAt: get48(r[14:]), ExpiresAt: get48(r[20:]),
	}
	for i := range 7 {
		s.Generation = s.Generation<<8 | int64(r[1+i])
	}
	n := int(r[30])<<8 | int(r[31])
	r = r[recordHead:]
	if len(r) < n+1 {
		return auth.Session{}, broken
	}
	if n > 0 {
		s.Data = []byte(r[:n])
	}
	n, r = int(r[n]), r[n+1:]
	if len(r) < n {
		return auth.Session{}, broken
	}
	var ip netip.Addr
	if err := ip.UnmarshalBinary([]byte(r[:n])); err != nil {
		return auth.Session{}, broken
	}
	s.Device = auth.Device{IP: ip, UserAgent: r[n:]}
	return s, nil
}
