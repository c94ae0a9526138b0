package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"time"
)

// headerRetryKey is the header of a refresh request with a retry key.
const headerRetryKey = "Refresh-Key"

const retryKeyDigest = "sha256=" // before the digest of a retry key

// errRetryKey does not contain the value, which may be a key.
const errRetryKey = requestError(headerRetryKey + ` must be given once, as 32 bytes in base64url (43 characters), or as "sha256=" and the SHA-256 of these characters in base64url`)

// retryKey is the retry key of a refresh request. It proves that two requests
// with the same refresh token come from the same client.
type retryKey struct {
	digest [sha256.Size]byte // SHA-256 of the 43 characters of the key
	given  bool              // the request has a retry key
	whole  bool              // the request has the key itself and not only its digest
}

// parseRetryKey reads [RefreshOptions].RetryKey. It accepts only one spelling of
// each key.
func parseRetryKey(value string) (k retryKey, err error) {
	if value == "" {
		return k, nil
	}
	text, digest := strings.CutPrefix(value, retryKeyDigest)
	var b [sha256.Size]byte
	if len(text) != strictBase64.EncodedLen(len(b)) {
		return k, errRetryKey
	}
	// Decode ignores line breaks, so the number of bytes is examined as well.
	if n, err := strictBase64.Decode(b[:], []byte(text)); err != nil || n != len(b) {
		return k, errRetryKey
	}
	if !digest {
		b = sha256.Sum256([]byte(text))
	}
	return retryKey{digest: b, given: true, whole: !digest}, nil
}

// retryKeyOf returns the value of the header Refresh-Key, or "" if the request
// does not have it.
func retryKeyOf(r *http.Request) (string, error) {
	values := r.Header[headerRetryKey]
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 || values[0] == "" {
		return "", errRetryKey
	}
	_, err := parseRetryKey(values[0])
	return values[0], err
}

// tag returns the [Session].RetryTag of a rotation from a generation. It is
// different for every session and generation, so a tag does not say which
// sessions or rotations have the same key.
func (k *retryKey) tag(generation int64, sid string) []byte {
	b := make([]byte, 0, 128)
	b = append(b, "refresh-key\x00"...)
	b = append(b, k.digest[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(generation))
	sum := sha256.Sum256(append(b, sid...))
	return sum[:retryTagLen:retryTagLen]
}

// repeats reports whether the request, which presents the token of a generation,
// repeats the request that rotated s. Only a request with the key itself does:
// whoever has read the first request knows the digest.
func (k *retryKey) repeats(generation int64, s Session) bool {
	return k.whole && subtle.ConstantTimeCompare(k.tag(generation, s.ID), s.RetryTag) == 1
}

// reportUsedAgain emits an event if a rotation with a retry key has set no tag,
// because the key is that of the previous rotation. The client is then treated like
// one without a key.
func (a *Authenticator) reportUsedAgain(ctx context.Context, k *retryKey, s Session, e Event) {
	if k.given && len(s.RetryTag) == 0 {
		e.Type, e.Session = EventFault, s
		e.Err = errors.New("auth: a client has used the retry key of its previous refresh token again, so this refresh has none; a client must create a new key for each refresh token")
		a.emitLimited(ctx, "retry key", e)
	}
}

// inOwnCooldown reports whether a refresh token was issued less than a cooldown
// ago, by its iat. Then it does not rotate its session. For the response to a
// rotation this follows from RotatedAt too. The response to a late retry has a
// later iat, and needs the cooldown as much: other requests of its client may
// still be on the way. An iat that is ahead by more than the clocks may differ
// does not count.
//
// The token of generation 1 is exempt, because a login has no cooldown. So is a
// token that expires within the cooldown: it could never rotate its session, which
// would end although its client is active. The longer cooldown of cooldownOf does
// not apply, for the same reason.
func (a *Authenticator) inOwnCooldown(c *refreshClaims, now time.Time) bool {
	end := c.issuedAt.Add(a.cooldownOf(&c.constants, false))
	return c.generation > 1 && now.Before(end) && end.Before(c.expiresAt) && !c.issuedAt.After(ceilSecond(now.Add(a.leeway)))
}
