package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// maxToken bounds a token, before anything else is done with it.
const maxToken = 8 << 10

// maxHeaderMembers bounds the members of a header.
const maxHeaderMembers = 32

// headerSegment is what every token of the key begins with.
func headerSegment(k Key, typ string) string {
	w := strictjson.NewWriter(make([]byte, 0, 96))
	w.String("alg", k.alg)
	w.String("typ", typ)
	w.String("kid", k.ID())
	return base64.RawURLEncoding.EncodeToString(w.Close())
}

// signToken makes the compact serialization (RFC 7515 section 7.1), by the key
// that signs now.
func (ring *keyRing) signToken(now time.Time, payload []byte) (string, error) {
	i := ring.signer(now)
	enc := base64.RawURLEncoding
	const hmacLen = 1 + 86 // a point and what most often follows it, at most
	b := make([]byte, 0, len(ring.headers[i])+1+enc.EncodedLen(len(payload))+hmacLen)
	b = append(b, ring.headers[i]...)
	b = append(b, '.')
	b = enc.AppendEncode(b, payload)
	sig, err := ring.keys[i].sign(b)
	if err != nil {
		return "", fmt.Errorf("%w: signing a token: %w", ErrUnavailable, err)
	}
	b = enc.AppendEncode(append(b, '.'), sig)
	if len(b) > maxToken {
		return "", fmt.Errorf("auth: a token of %d bytes is over the limit of %d; put less into User.Extra, Roles or Scopes", len(b), maxToken)
	}
	return string(b), nil
}

// base64Value is the value of each letter of base64url, 0xff for every other
// byte (RFC 4648 section 5).
var base64Value = func() (values [256]byte) {
	for i := range values {
		values[i] = 0xff
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		values[c] = byte(i)
	}
	return values
}()

// decodeSegment appends the bytes of a segment to to. It refuses what decodes
// to the same bytes but is spelled another way: padding, line ends, bits after
// the last byte (RFC 4648 section 3.5).
func decodeSegment(to []byte, segment string) ([]byte, bool) {
	at, whole := len(to), len(segment)/4*3
	to = slices.Grow(to, whole+2)[:at+whole]
	var seen byte
	for dst := to[at:]; len(segment) >= 4 && len(dst) >= 3; segment, dst = segment[4:], dst[3:] {
		a, b, c, d := base64Value[segment[0]], base64Value[segment[1]], base64Value[segment[2]], base64Value[segment[3]]
		seen |= a | b | c | d
		dst[0], dst[1], dst[2] = a<<2|b>>4, b<<4|c>>2, c<<6|d
	}
	if seen > 63 {
		return nil, false
	}
	switch len(segment) {
	case 0:
		return to, true
	case 2:
		a, b := base64Value[segment[0]], base64Value[segment[1]]
		return append(to, a<<2|b>>4), a|b <= 63 && b&15 == 0
	case 3:
		a, b, c := base64Value[segment[0]], base64Value[segment[1]], base64Value[segment[2]]
		return append(to, a<<2|b>>4, b<<4|c>>2), a|b|c <= 63 && c&3 == 0
	}
	return nil, false
}

// malformed is an ErrInvalidToken with a reason that is not the token's own
// text.
type malformed string

func (m malformed) Error() string { return ErrInvalidToken.Error() + ": " + string(m) }

func (m malformed) Unwrap() error { return ErrInvalidToken }

// signedToken is a token that was signed by key.
type signedToken struct {
	payload string
	kid     string // as the token says it, which may be not at all
	key     *key
}

// openToken checks everything about a token but its claims, and returns them
// as they were signed. Nothing in the token chooses anything beyond which of
// the configured keys is tried.
func openToken(ctx context.Context, token, typ string, source KeySource) (signedToken, error) {
	if len(token) > maxToken {
		return signedToken{}, malformed("over the size limit")
	}
	first := strings.IndexByte(token, '.')
	last := strings.LastIndexByte(token, '.')
	if first < 0 || first == last || strings.IndexByte(token[first+1:last], '.') >= 0 {
		return signedToken{}, malformed("not three segments")
	}
	var sigBuf [1024]byte // of RSA with 8192 bits
	if base64.RawURLEncoding.DecodedLen(len(token)-last-1) > len(sigBuf) {
		return signedToken{}, malformed("signature is too long")
	}
	sig, ok := decodeSegment(sigBuf[:0], token[last+1:])
	if !ok {
		return signedToken{}, malformed("signature is not base64url")
	}
	if live, ok := source.(*activeKeys); ok {
		source = live.ring.Load()
	}
	// A header that is, letter for letter, the one that a key of ours writes
	// needs no reading.
	k := ownHeader(token[:first], source)
	kid := k.ID()
	if k.key == nil {
		var err error
		if k, kid, err = otherHeader(ctx, token, first, last, sig, typ, source); err != nil {
			return signedToken{}, err
		}
	} else if !k.verify(token[:last], sig) {
		return signedToken{}, malformed("signature does not verify")
	}
	var buf [2048]byte
	payload, ok := decodeSegment(buf[:0], token[first+1:last])
	if !ok {
		return signedToken{}, malformed("payload is not base64url")
	}
	return signedToken{string(payload), kid, k.key}, nil
}

// ownHeader returns the key whose header it is, or the zero Key.
func ownHeader(header string, source KeySource) Key {
	if ring, ok := source.(*keyRing); ok {
		for i, own := range ring.headers {
			if own == header && !ring.expired(i) {
				return ring.keys[i]
			}
		}
	}
	return Key{}
}

// otherHeader reads a header, and returns the key that made the signature, and
// the kid by which it was found.
func otherHeader(ctx context.Context, token string, first, last int, sig []byte, typ string, source KeySource) (Key, string, error) {
	var buf [256]byte
	text, ok := decodeSegment(buf[:0], token[:first])
	if !ok {
		return Key{}, "", malformed("header is not base64url")
	}
	h, err := readHeader(string(text))
	if err != nil {
		return Key{}, "", fmt.Errorf("%w: header: %w", ErrInvalidToken, err)
	}
	if h.typ != typ && (typ != typAccess || h.typ != "application/"+typAccess) {
		return Key{}, "", malformed("wrong typ")
	}
	if h.hasKid && h.kid == "" {
		return Key{}, "", malformed("empty kid")
	}
	candidates, err := lookupKeys(ctx, source, h.kid)
	if err != nil {
		return Key{}, "", fmt.Errorf("%w: keys: %w", ErrUnavailable, err)
	}
	if len(candidates) == 0 {
		if h.hasKid {
			return Key{}, "", malformed("unknown kid")
		}
		return Key{}, "", malformed("no kid, and no key that tokens without one are tried against")
	}
	for _, k := range candidates {
		if k.usable() && k.isFor(h.alg) && k.verify(token[:last], sig) {
			return k, h.kid, nil
		}
	}
	return Key{}, "", malformed("signature does not verify")
}

// lookupKeys asks a source, which may be the application's.
func lookupKeys(ctx context.Context, source KeySource, id string) (keys []Key, err error) {
	switch source := source.(type) {
	case *keyRing:
		return source.VerifyKeys(ctx, id)
	case *activeKeys:
		return source.VerifyKeys(ctx, id)
	}
	err = callHook("KeySource", func() (err error) {
		keys, err = source.VerifyKeys(ctx, id)
		return err
	})
	return keys, err
}

func intersects(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

type tokenHeader struct {
	alg, typ, kid string
	hasKid        bool
}

// refusedHeaders change what a token means or where its key comes from (RFC
// 7515 section 4.1, RFC 7797); a token that needs them is not one of ours.
// Other parameters are ignored, as RFC 7515 section 4 demands.
var refusedHeaders = [...]string{"crit", "b64", "jku", "jwk", "x5u", "x5c", "enc", "zip"}

func readHeader(b string) (h tokenHeader, err error) {
	err = strictjson.Object(b, maxHeaderMembers, func(name, value string) error {
		var ok bool
		switch name {
		case "alg":
			h.alg, ok = strictjson.String(value)
		case "typ":
			h.typ, ok = strictjson.String(value)
		case "kid":
			h.kid, ok = strictjson.String(value)
			h.hasKid = true
		default:
			for _, r := range refusedHeaders {
				if strings.EqualFold(name, r) {
					return errors.New(r + " is refused")
				}
			}
			for _, r := range [...]string{"alg", "typ", "kid"} {
				if strings.EqualFold(name, r) {
					return errors.New(r + " in another letter case")
				}
			}
			return nil
		}
		if !ok {
			return errors.New("alg, typ or kid is not a string")
		}
		return nil
	})
	return h, err
}
