package password

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	bcryptLength   = 60 // bytes of the whole string
	bcryptPassword = 72 // bytes that bcrypt looks at

	minBcryptCost, maxBcryptCost = 4, 15 // 2^cost rounds

	bcryptAlphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
)

// A bcryptHash is "$2b$10$" (or $2a$, $2y$), 22 characters of salt, 31 of tag.
type bcryptHash string

// matches reports whether password was hashed, which it denies, after the work, to a
// password that bcrypt cannot tell from others: "a\x00a" has the hash of "a", and
// whatever follows 72 bytes has no effect.
func (b bcryptHash) matches(h *Hasher, password string) bool {
	seen := password
	if len(seen) > bcryptPassword {
		seen = seen[:bcryptPassword]
	}
	matches := h.bcrypt([]byte(b), []byte(seen)) == nil
	return matches && len(password) <= bcryptPassword && strings.IndexByte(password, 0) < 0
}

// parseBcrypt checks the form of hash. The unused bits at the end of the salt may be
// set, as some old programs did; those of the tag may not, because no password could
// match then.
func parseBcrypt(hash string) (stored, error) {
	if len(hash) != bcryptLength {
		return nil, unusable("bcrypt hash not of 60 bytes")
	}
	switch hash[:4] {
	case "$2a$", "$2b$", "$2y$":
	default:
		return nil, unusable("bcrypt version not 2a, 2b or 2y")
	}
	cost, err := strconv.ParseUint(hash[4:6], 10, 8)
	if err != nil || hash[6] != '$' {
		return nil, unusable("bcrypt cost not of two digits")
	}
	if cost < minBcryptCost || cost > maxBcryptCost {
		return nil, unusable(fmt.Sprintf("bcrypt cost (%d) not within %d to %d", cost, minBcryptCost, maxBcryptCost))
	}
	for i := 7; i < bcryptLength; i++ {
		if strings.IndexByte(bcryptAlphabet, hash[i]) < 0 {
			return nil, unusable("bcrypt salt and tag not of their alphabet")
		}
	}
	if strings.IndexByte(bcryptAlphabet, hash[bcryptLength-1])%4 != 0 {
		return nil, unusable("bcrypt tag not canonical")
	}
	return bcryptHash(hash), nil
}
