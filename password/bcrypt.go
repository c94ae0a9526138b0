package password

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	bcryptLength   = 60 // bytes of the whole string
	bcryptPassword = 72 // bytes that bcrypt uses

	minBcryptCost, maxBcryptCost = 4, 15 // 2^cost rounds

	bcryptAlphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
)

// A bcryptHash is a bcrypt hash: "$2b$10$" (or $2a$, $2y$), 22 characters of salt
// and 31 of tag.
type bcryptHash string

// matches reports whether b is the hash of password. For a password that bcrypt
// does not distinguish from others it returns false, after the work: "a\x00a"
// has the same hash as "a", and bytes after the 72nd have no effect.
func (b bcryptHash) matches(h *Hasher, password string) bool {
	used := password
	if len(used) > bcryptPassword {
		used = used[:bcryptPassword]
	}
	matches := h.bcrypt([]byte(b), []byte(used)) == nil
	return matches && len(password) <= bcryptPassword && strings.IndexByte(password, 0) < 0
}

func (b bcryptHash) cost() cost { return cost{bcrypt: int(b[4]-'0')*10 + int(b[5]-'0')} }

// parseBcrypt checks the form of hash. The unused bits at the end of the salt
// may be set, because some old programs set them. Those of the tag may not: no
// password would match.
func parseBcrypt(hash string) (stored, error) {
	if len(hash) != bcryptLength {
		return nil, unusable("bcrypt hash is not 60 bytes long")
	}
	switch hash[:4] {
	case "$2a$", "$2b$", "$2y$":
	default:
		return nil, unusable("bcrypt version is not 2a, 2b or 2y")
	}
	cost, err := strconv.ParseUint(hash[4:6], 10, 8)
	if err != nil || hash[6] != '$' {
		return nil, unusable("bcrypt cost does not have two digits")
	}
	if cost < minBcryptCost || cost > maxBcryptCost {
		return nil, unusable(fmt.Sprintf("bcrypt cost (%d) is not between %d and %d", cost, minBcryptCost, maxBcryptCost))
	}
	for i := 7; i < bcryptLength; i++ {
		if strings.IndexByte(bcryptAlphabet, hash[i]) < 0 {
			return nil, unusable("bcrypt salt or tag has an invalid character")
		}
	}
	if strings.IndexByte(bcryptAlphabet, hash[bcryptLength-1])%4 != 0 {
		return nil, unusable("bcrypt tag is not canonical")
	}
	return bcryptHash(hash), nil
}
