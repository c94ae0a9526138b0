package redisstore

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/ratchet-go/auth"
)

// A record is a session in the following binary form. Integers are big-endian.
//
//	 0  1 byte    version
//	 1  7 bytes   Generation
//	 8  6 bytes   CreatedAt, in Unix milliseconds, signed
//	14  6 bytes   RotatedAt, likewise
//	20  6 bytes   ExpiresAt, likewise
//	26  4 bytes   a random number by which a call of Create recognizes its record
//	30  2 bytes   length of the data
//	32  Key, 33 bytes, only in version 2
//	    the data
//	    1 byte    length of the IP address
//	    the IP address
//	    the user agent
//	    sections, if there are any: a zero byte, which no user agent contains,
//	    then for each section its type (1 byte), the length of its content (2
//	    bytes) and the content
//
// The version is 2 if the session has a Key, and 1 otherwise: a process that does
// not know of keys cannot read the record, so it does not rotate the session
// without a proof of the key.
//
// Section 1 is RetryTag: the last byte of Generation, and the 16 bytes of the
// tag. A process that does not know this section keeps it when it rotates the
// session. Generation is then another one, so the byte differs from the last byte
// of Generation, and the section counts as absent. It does the same after a
// multiple of 256 such rotations, since the tag is that of one generation.
//
// The scripts use these offsets too, counted from 1. This version ignores any
// other section, and what follows the last complete one. Rotate keeps both
// unchanged, after section 1.
//
// A newer version may add a section without changing the version byte if a
// process that ignores and keeps the section still handles the session
// correctly. It must raise the version byte if it changes anything before the
// sections, or if a process that does not know the section must not rotate the
// session. A record with another version byte cannot be read.
const (
	recordVersion      = 1
	recordVersionBound = 2 // with a Key
	recordHead         = 32
	keyLen             = 33

	sectionTag = 1
	tagLen     = 16
)

// collectAfter is how long a session or revocation is kept after its end.
const collectAfter = time.Minute

func put48(b []byte, ms int64) {
	binary.BigEndian.PutUint16(b, uint16(ms>>32)) //nolint:gosec // the lower six bytes
	binary.BigEndian.PutUint32(b[2:], uint32(ms)) //nolint:gosec // the lower six bytes
}

func get48(s string) time.Time {
	var ms uint64
	for i := range 6 {
		ms = ms<<8 | uint64(s[i])
	}
	return time.UnixMilli(int64(ms<<16) >> 16).UTC() //nolint:gosec // extends the sign
}

// appendDevice appends the length of the IP address, the address and the user
// agent to b. The address has no zone, so it is at most 16 bytes long.
func appendDevice(b []byte, d auth.Device) []byte {
	ip, _ := d.IP.MarshalBinary() // never fails
	b = append(b, byte(len(ip)))
	b = append(b, ip...)
	return append(b, d.UserAgent...)
}

// encode returns the record of s, for which Session.Check must have returned nil.
func encode(s auth.Session, nonce uint32) []byte {
	b := make([]byte, recordHead, recordHead+len(s.Key)+len(s.Opaque)+17+len(s.Device.UserAgent)+5+len(s.RetryTag))
	binary.BigEndian.PutUint64(b, uint64(s.Generation)) //nolint:gosec // not negative
	b[0] = recordVersion
	if len(s.Key) > 0 {
		b[0] = recordVersionBound
	}
	put48(b[8:], s.CreatedAt.UnixMilli())
	put48(b[14:], s.RotatedAt.UnixMilli())
	put48(b[20:], s.ExpiresAt.UnixMilli())
	binary.BigEndian.PutUint32(b[26:], nonce)
	binary.BigEndian.PutUint16(b[30:], uint16(len(s.Opaque))) //nolint:gosec // at most 1280 bytes
	b = append(append(b, s.Key...), s.Opaque...)
	b = appendDevice(b, s.Device)
	if len(s.RetryTag) > 0 {
		b = append(b, 0, sectionTag, 0, 1+tagLen, byte(s.Generation)) //nolint:gosec // the last byte
		b = append(b, s.RetryTag...)
	}
	return b
}

// decode returns the session in the record r.
func decode(subject, id, r string) (auth.Session, error) {
	if r == "" || r[0] != recordVersion && r[0] != recordVersionBound {
		return auth.Session{}, errors.New("the session record has an unknown version")
	}
	malformed := errors.New("the session record is malformed")
	if len(r) < recordHead {
		return auth.Session{}, malformed
	}
	s := auth.Session{
		ID: id, Subject: subject,
		CreatedAt: get48(r[8:]), RotatedAt: get48(r[14:]), ExpiresAt: get48(r[20:]),
	}
	for i := range 7 {
		s.Generation = s.Generation<<8 | int64(r[1+i])
	}
	n, bound := int(r[30])<<8|int(r[31]), r[0] == recordVersionBound
	r = r[recordHead:]
	if bound {
		if len(r) < keyLen {
			return auth.Session{}, malformed
		}
		s.Key, r = []byte(r[:keyLen]), r[keyLen:]
	}
	if len(r) < n+1 {
		return auth.Session{}, malformed
	}
	if n > 0 {
		s.Opaque = []byte(r[:n])
	}
	n, r = int(r[n]), r[n+1:]
	if len(r) < n {
		return auth.Session{}, malformed
	}
	// The address is only informative. If it cannot be read, it is left unset.
	var ip netip.Addr
	_ = ip.UnmarshalBinary([]byte(r[:n]))
	agent, sections, _ := strings.Cut(r[n:], "\x00")
	s.Device = auth.Device{IP: ip, UserAgent: agent}
	s.RetryTag = decodeTag(sections, byte(s.Generation)) //nolint:gosec // the last byte
	return s, nil
}

// decodeTag returns the RetryTag in the sections of a record, or nil. generation
// is the last byte of its Generation.
func decodeTag(r string, generation byte) []byte {
	for len(r) >= 3 {
		kind, n := r[0], int(r[1])<<8|int(r[2])
		if r = r[3:]; len(r) < n {
			break
		}
		if kind == sectionTag && n == 1+tagLen && r[0] == generation {
			return []byte(r[1:n])
		}
		r = r[n:]
	}
	return nil
}
