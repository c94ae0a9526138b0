package redisstore

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
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
//	    sections, if a newer version added any: a zero byte, which no user
//	    agent contains, then for each a tag (1 byte), the length of its bytes
//	    (2 bytes), and these
//
// The scripts read these places, counted from 1. This version knows no section.
// It ignores all of them, and Rotate keeps them byte for byte.
//
// A newer version may add a section, and keep the version byte, if a process
// that ignores the section and keeps it still does right by the session. It must
// raise the version byte if it changes anything before the sections, or if a
// process that does not know the section must not move the session. A record
// with another version byte cannot be read.
const (
	recordVersion = 1
	recordHead    = 32
)

// collectAfter is how long after its end something may be collected.
const collectAfter = time.Minute

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

// appendDevice appends the address and the user agent. The address has no zone,
// so it is at most 16 bytes.
func appendDevice(b []byte, d auth.Device) []byte {
	ip, _ := d.IP.MarshalBinary() // it never fails
	b = append(b, byte(len(ip)))
	b = append(b, ip...)
	return append(b, d.UserAgent...)
}

// encode returns the record of s, which Session.Check has let pass.
func encode(s auth.Session, nonce uint32) []byte {
	b := make([]byte, recordHead, recordHead+len(s.Opaque)+17+len(s.Device.UserAgent))
	binary.BigEndian.PutUint64(b, uint64(s.Generation)) //nolint:gosec // it is not negative
	b[0] = recordVersion
	put48(b[8:], s.CreatedAt.UnixMilli())
	put48(b[14:], s.RotatedAt.UnixMilli())
	put48(b[20:], s.ExpiresAt.UnixMilli())
	binary.BigEndian.PutUint32(b[26:], nonce)
	binary.BigEndian.PutUint16(b[30:], uint16(len(s.Opaque))) //nolint:gosec // at most 1 KiB
	return appendDevice(append(b, s.Opaque...), s.Device)
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
		s.Opaque = []byte(r[:n])
	}
	n, r = int(r[n]), r[n+1:]
	if len(r) < n {
		return auth.Session{}, broken
	}
	// The address tells only where the session was used. One that cannot be
	// read is unknown.
	var ip netip.Addr
	_ = ip.UnmarshalBinary([]byte(r[:n]))
	agent, _, _ := strings.Cut(r[n:], "\x00") // sections follow
	s.Device = auth.Device{IP: ip, UserAgent: agent}
	return s, nil
}
