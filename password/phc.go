package password

import (
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of hashes.
const (
	maxHash    = 512        // bytes of the whole string
	maxMemory  = 256 * 1024 // KiB
	maxTime    = 16
	maxThreads = 255         // of a stored hash, whose memory bounds the work
	newThreads = 16          // of a new hash
	maxWork    = 1024 * 1024 // memory × time, KiB

	minSalt, maxSalt = 8, 64  // bytes
	minTag, maxTag   = 16, 64 // bytes
)

// stored is a parsed hash that is within the bounds.
type stored interface {
	// matches hashes password with the functions of h, and reports whether it
	// is the one that was hashed.
	matches(h *Hasher, password string) bool

	// cost returns what the duration of matches depends on.
	cost() cost
}

// parse reads a hash of any form that is verified. Its errors wrap ErrHash and
// say what is wrong. They contain no part of the hash except its cost
// parameters.
func parse(hash string) (stored, error) {
	switch {
	case strings.TrimSpace(hash) != hash:
		return nil, unusable("begins or ends with white space")
	case strings.HasPrefix(hash, "$argon2id$"):
		return parseArgon2id(hash)
	case strings.HasPrefix(hash, "$2"):
		return parseBcrypt(hash)
	case strings.HasPrefix(hash, "$argon2i$"), strings.HasPrefix(hash, "$argon2d$"):
		return nil, unusable("argon2i and argon2d are not verified")
	}
	return nil, unusable("neither argon2id nor bcrypt; create it with Hash")
}

// unusable returns an error that wraps ErrHash and says what is wrong.
func unusable(what string) error {
	return fmt.Errorf("%w: %s", ErrHash, what)
}

// params are the costs of argon2id. Their types are wider than those of package
// argon2, so that any parsed value can be compared with the bounds.
type params struct {
	memory  uint32 // KiB
	time    uint32
	threads uint32
}

// weight returns the memory in bytes.
func (p params) weight() int64 {
	return int64(p.memory) * 1024
}

// mistakes returns a text for each bound that p exceeds. memory, time and
// threads are the names of the fields in these texts. Each thread has at least
// 8 KiB of the memory, so the memory also bounds the cost of threads: their
// stacks are small in comparison.
func (p params) mistakes(memory, time, threads string, maxThreads uint32) []string {
	var texts []string
	if p.memory > maxMemory {
		texts = append(texts, fmt.Sprintf("%s (%d KiB) exceeds %d KiB", memory, p.memory, maxMemory))
	}
	if uint64(p.memory) < 8*uint64(p.threads) {
		texts = append(texts, fmt.Sprintf("%s (%d KiB) is less than 8 KiB for each thread (%d)", memory, p.memory, p.threads))
	}
	if p.time < 1 || p.time > maxTime {
		texts = append(texts, fmt.Sprintf("%s (%d) is not between 1 and %d", time, p.time, maxTime))
	}
	if p.threads < 1 || p.threads > maxThreads {
		texts = append(texts, fmt.Sprintf("%s (%d) is not between 1 and %d", threads, p.threads, maxThreads))
	}
	if uint64(p.memory)*uint64(p.time) > maxWork {
		texts = append(texts, fmt.Sprintf("%s × %s exceeds %d KiB", memory, time, maxWork))
	}
	return texts
}

// An argon2idHash is a parsed PHC string.
type argon2idHash struct {
	params
	salt, tag []byte
}

// String returns the PHC string.
func (a argon2idHash) String() string {
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", a.memory, a.time, a.threads,
		base64.RawStdEncoding.EncodeToString(a.salt), base64.RawStdEncoding.EncodeToString(a.tag))
}

// derive returns the tag of password, computed by idKey.
func (a argon2idHash) derive(idKey func(_, _ []byte, _, _ uint32, _ uint8, _ uint32) []byte, password string, length int) []byte {
	return idKey([]byte(password), a.salt, a.time, a.memory, uint8(a.threads), uint32(length))
}

func (a argon2idHash) cost() cost { return cost{params: a.params} }

func (a argon2idHash) matches(h *Hasher, password string) bool {
	return subtle.ConstantTimeCompare(a.derive(h.argon2id, password, len(a.tag)), a.tag) == 1
}

// parseArgon2id parses a hash of exactly the form
// "$argon2id$v=19$m=…,t=…,p=…$salt$tag".
func parseArgon2id(hash string) (stored, error) {
	if len(hash) > maxHash {
		return nil, unusable(fmt.Sprintf("longer than %d bytes", maxHash))
	}
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[2] != "v=19" {
		return nil, unusable("form is not $argon2id$v=19$parameters$salt$tag")
	}
	var a argon2idHash
	costs := strings.Split(parts[3], ",")
	if len(costs) != 3 ||
		!parseCost(costs[0], "m=", &a.memory) || !parseCost(costs[1], "t=", &a.time) || !parseCost(costs[2], "p=", &a.threads) {
		return nil, unusable("parameters are not m=…,t=…,p=… with 32-bit decimal numbers")
	}
	if texts := a.mistakes("m", "t", "p", maxThreads); texts != nil {
		return nil, unusable(strings.Join(texts, "; "))
	}
	var ok bool
	if a.salt, ok = decode(parts[4]); !ok || len(a.salt) < minSalt || len(a.salt) > maxSalt {
		return nil, unusable(fmt.Sprintf("salt is not canonical base64 of %d to %d bytes", minSalt, maxSalt))
	}
	if a.tag, ok = decode(parts[5]); !ok || len(a.tag) < minTag || len(a.tag) > maxTag {
		return nil, unusable(fmt.Sprintf("tag is not canonical base64 of %d to %d bytes", minTag, maxTag))
	}
	return a, nil
}

// parseCost parses a name and a canonical decimal number.
func parseCost(text, name string, value *uint32) bool {
	digits, ok := strings.CutPrefix(text, name)
	if !ok {
		return false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != digits {
		return false
	}
	*value = uint32(n)
	return true
}

// decode decodes canonical unpadded base64. It refuses set bits after the end,
// and line breaks, which encoding/base64 skips even in strict mode.
func decode(text string) ([]byte, bool) {
	b, err := base64.RawStdEncoding.DecodeString(text)
	return b, err == nil && base64.RawStdEncoding.EncodeToString(b) == text
}
