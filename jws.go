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

// maxToken is the size limit of a token, in bytes.
const maxToken = 8 << 10

// maxHeaderMembers is the largest number of members of a header.
const maxHeaderMembers = 32

// headerSegment returns the encoded header of tokens that k signs.
func headerSegment(k Key, typ string) string {
	w := strictjson.NewWriter(make([]byte, 0, 96))
	w.String("alg", k.alg)
	w.String("typ", typ)
	w.String("kid", k.ID())
	return base64.RawURLEncoding.EncodeToString(w.Close())
}

// signToken returns the compact serialization of a JWS (RFC 7515 section 7.1),
// signed with the key that signs at now.
func (ring *keyRing) signToken(now time.Time, payload []byte) (string, error) {
	i := ring.signer(now)
	enc := base64.RawURLEncoding
	const hmacLen = 1 + 86 // the dot and the longest HMAC
	b := make([]byte, 0, len(ring.headers[i])+1+enc.EncodedLen(len(payload))+hmacLen)
	b = append(b, ring.headers[i]...)
	b = append(b, '.')
	b = enc.AppendEncode(b, payload)
	sig, err := ring.keys[i].sign(b)
	if err != nil {
		return "", fmt.Errorf("%w: signing a token: %w", ErrUnavailable, detail{err})
	}
	b = enc.AppendEncode(append(b, '.'), sig)
	if len(b) > maxToken {
		return "", fmt.Errorf("auth: the token is %d bytes; the limit is %d: put less into User.Extra, Roles or Scopes", len(b), maxToken)
	}
	return string(b), nil
}

// strictBase64 refuses nonzero bits after the last byte, unlike base64url by
// default. Both skip line breaks.
var strictBase64 = base64.RawURLEncoding.Strict()

// decodeSegment appends the decoded bytes of segment to dst. It accepts only the
// canonical spelling of the bytes (RFC 4648 section 3.5).
func decodeSegment(dst []byte, segment string) ([]byte, bool) {
	if strings.IndexByte(segment, '\n') >= 0 || strings.IndexByte(segment, '\r') >= 0 {
		return nil, false
	}
	dst, err := strictBase64.AppendDecode(dst, []byte(segment))
	return dst, err == nil
}

// malformed is an ErrInvalidToken with a reason that contains no text of the
// token.
type malformed string

func (m malformed) Error() string { return ErrInvalidToken.Error() + ": " + string(m) }

func (m malformed) Unwrap() error { return ErrInvalidToken }

// Reasons that the client is told too, because they are most likely a mistake in
// how it sends a token, or in a configuration.
const (
	tooLarge         malformed = "larger than 8 KiB"
	notThreeSegments malformed = "not three segments"
	badHeader        malformed = "header is not base64url"
	badPayload       malformed = "payload is not base64url"
	badSignature     malformed = "signature is not base64url"
	unknownKid       malformed = "unknown kid: signed with another key; all processes need the same keys, and Verifiers key pairs"
)

// description returns the text for the client, or "" for that of ErrInvalidToken.
func (m malformed) description() string {
	switch m {
	case notThreeSegments:
		return "the token is not valid: it does not have three parts with dots between them"
	case badHeader, badPayload, badSignature:
		return "the token is not valid: it contains a character that no token has, or was cut off"
	case unknownKid:
		return "the token is not valid: this server does not have the key that signed it"
	}
	return ""
}

// signedToken is a token whose signature was verified with key.
type signedToken struct {
	payload string
	kid     string // as in the token's header; "" if absent
	key     *key
}

// openToken checks the form, the header and the signature of a token, and returns
// its payload. The token can only choose among the configured keys.
func openToken(ctx context.Context, token, typ string, source KeySource) (signedToken, error) {
	if len(token) > maxToken {
		return signedToken{}, tooLarge
	}
	first := strings.IndexByte(token, '.')
	last := strings.LastIndexByte(token, '.')
	if first < 0 || first == last || strings.IndexByte(token[first+1:last], '.') >= 0 {
		return signedToken{}, notThreeSegments
	}
	var sigBuf [1024]byte // enough for RSA with 8192 bits
	if base64.RawURLEncoding.DecodedLen(len(token)-last-1) > len(sigBuf) {
		return signedToken{}, malformed("signature is too long")
	}
	sig, ok := decodeSegment(sigBuf[:0], token[last+1:])
	if !ok {
		return signedToken{}, badSignature
	}
	if live, ok := source.(*activeKeys); ok {
		source = live.ring.Load()
	}
	// A header that equals the header of a configured key need not be parsed.
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
		return signedToken{}, badPayload
	}
	return signedToken{string(payload), kid, k.key}, nil
}

// ownHeader returns the key of source whose tokens have exactly this header, or
// the zero Key.
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

// otherHeader parses a header, verifies the signature, and returns the key and
// the kid with which it was found.
func otherHeader(ctx context.Context, token string, first, last int, sig []byte, typ string, source KeySource) (Key, string, error) {
	var buf [256]byte
	text, ok := decodeSegment(buf[:0], token[:first])
	if !ok {
		return Key{}, "", badHeader
	}
	h, err := readHeader(string(text))
	if err != nil {
		return Key{}, "", fmt.Errorf("%w: header: %w", ErrInvalidToken, err)
	}
	if h.typ != typ && (typ != typAccess || h.typ != "application/"+typAccess) {
		return Key{}, "", wrongType(h.typ, typ)
	}
	if h.hasKid && h.kid == "" {
		return Key{}, "", malformed("empty kid")
	}
	candidates, err := lookupKeys(ctx, source, h.kid)
	if err != nil {
		return Key{}, "", fmt.Errorf("%w: keys: %w", ErrUnavailable, detail{err})
	}
	if len(candidates) == 0 {
		if h.hasKid {
			return Key{}, "", unknownKid
		}
		return Key{}, "", malformed("no kid")
	}
	for _, k := range candidates {
		if k.usable() && k.isFor(h.alg) && k.verify(token[:last], sig) {
			return k, h.kid, nil
		}
	}
	return Key{}, "", malformed("signature does not verify")
}

// wrongType returns the error for a token whose header has the type found. The
// header is not authenticated, so the text contains it only if it is one of the
// known types.
func wrongType(found, want string) error {
	switch {
	case found == typRefresh && want == typAccess:
		return &tokenError{"wrong typ " + typRefresh + ": this is a refresh token", "typ", "this is a refresh token; an access token is required"}
	case want == typRefresh && (found == typAccess || found == "application/"+typAccess):
		return &tokenError{"wrong typ " + typAccess + ": this is an access token", "typ", "this is an access token; a refresh token is required"}
	case found == "", strings.EqualFold(found, "JWT"):
		return &tokenError{
			"wrong typ: the token was not issued by this package, whose tokens have the typ " + want, "foreign",
			"the token is not valid: it was not issued by this package, whose tokens have the typ " + want,
		}
	}
	return malformed("wrong typ")
}

// lookupKeys calls source.VerifyKeys, which may be the application's code.
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

// refusedHeaders are header parameters that change the meaning of a token or the
// source of its key (RFC 7515 section 4.1, RFC 7797). Other parameters are
// ignored, as RFC 7515 section 4 requires.
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
					return errors.New("unexpected " + r)
				}
			}
			for _, r := range [...]string{"alg", "typ", "kid"} {
				if strings.EqualFold(name, r) {
					return errors.New("a name differs from " + r + " only in case")
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
