// Package password makes and checks password hashes.
//
// [Hash] and [Verify] are the two calls of a small program. A server uses a
// [Hasher], which does the same within a budget of memory: a hash is costly by
// intent (tens of milliseconds, 19 MiB), and 200 logins at the same moment must not
// cost 200 times that. Who cannot be served soon gets [ErrBusy] at once.
//
//	var passwords password.Hasher // one for the program; the zero value is ready
//
//	hash, err := passwords.Hash(ctx, newPassword)        // at registration
//	err = passwords.Verify(ctx, user.Hash, typed)        // at login
//	err = passwords.VerifyUnknown(ctx, typed)            // at login, for a name that nobody has
//	if passwords.NeedsRehash(user.Hash) { … }            // after a successful login
//
// # Hashes
//
// New hashes are argon2id (RFC 9106, version 19) with 19 MiB, 2 passes and 1
// thread, as the OWASP Password Storage Cheat Sheet advises, with a random salt of
// 16 bytes and a tag of 32 bytes. They are strings of the PHC form:
//
//	$argon2id$v=19$m=19456,t=2,p=1$<salt>$<tag>
//
// Verify reads exactly this form: m, t and p in this order, decimal numbers without
// sign or leading zeros, canonical base64 without padding, at most 512 bytes. The
// parameters come from a store, so they are held to bounds before any work is done:
// m from 8 KiB a thread to 262144 KiB, t from 1 to 16, p from 1 to 255, m×t at
// most 1 GiB, a salt of 8 to 64 and a tag of 16 to 64 bytes. Everything else, argon2i and argon2d
// too, is [ErrHash].
//
// Verify also reads bcrypt hashes ($2a$, $2b$ and $2y$, 60 bytes, cost 4 to 15), so
// that an application can move away from them; they are never made. bcrypt sees no
// more than 72 bytes of a password, and hashing one that contains a NUL byte depends
// on the implementation. Such a password never matches a bcrypt hash, whatever was
// hashed when it was set: the work is done, so that time tells nothing, and the
// answer is [ErrMismatch]. Its owner needs a reset of the password.
//
// # Passwords
//
// A password is a string of bytes. It is not trimmed, not normalised (Unicode) and
// not shortened, and no kinds of characters are demanded. More than 1024 bytes are
// [ErrTooLong]. The empty password is refused by Hash and never matches in Verify.
//
// This package sets no minimum length, because Verify must take whatever was
// allowed when the password was set. The application does so where a password is set
// or changed: at least 15 characters where the password is the only factor, at
// least 8 where there is a second one, and none from a list of common or leaked ones
// (NIST SP 800-63B-4, section 3.1.1.2).
//
// # What is not here
//
// There is no limit on attempts, no pepper and no PBKDF2. Memory that held a
// password or a key is not erased. Errors contain neither a password nor a hash.
package password

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// The errors by which a caller decides. Compare with [errors.Is].
var (
	// ErrMismatch says that the password is not the one that was hashed.
	ErrMismatch = errors.New("password: mismatch")

	// ErrTooLong says that the password has more than 1024 bytes. It depends on
	// nothing but the password, and no work was done.
	ErrTooLong = errors.New("password: longer than 1024 bytes")

	// ErrHash says that the stored hash is of no form that Verify reads, or outside
	// of its bounds. It is wrapped with what is wrong, never with the hash. No work
	// was done: a login that must not tell this by its time calls
	// [Hasher.VerifyUnknown] before it answers.
	ErrHash = errors.New("password: unusable hash")

	// ErrBusy says that [Hasher.Queue] others wait already. No work was done; a
	// server answers 503 with Retry-After.
	ErrBusy = errors.New("password: too many hashes at once")
)

const (
	maxPassword = 1024 // bytes

	defaultMemory  = 19 * 1024 // KiB
	defaultTime    = 2
	defaultThreads = 1
	saltLength     = 16 // bytes
	tagLength      = 32 // bytes

	queuePerHash = 32
)

// Hash returns a new argon2id hash of password, with the default parameters of a
// [Hasher]. It refuses the empty password, and one of more than 1024 bytes with
// [ErrTooLong]. Nothing bounds how many calls run at once: see [Hasher.Hash]. It is
// safe for concurrent use.
func Hash(password string) (string, error) {
	return new(Hasher).Hash(context.Background(), password)
}

// Verify checks password against hash, which [Hash], a [Hasher] or another program
// made, argon2id or bcrypt. It returns nil, [ErrMismatch], [ErrTooLong] or an error
// that wraps [ErrHash]. Nothing bounds how many calls run at once: see
// [Hasher.Verify]. It is safe for concurrent use.
func Verify(hash, password string) error {
	return new(Hasher).Verify(context.Background(), hash, password)
}

// A Hasher makes and checks hashes, all of them together within one budget of
// memory. Its zero value is ready. The fields are read at the first call of a method
// and must not change after it; [Hasher.Check] tells whether they are right, and so
// does every other method that returns an error, before it does any work.
//
// A Hasher is safe for concurrent use. It must not be copied after that first call.
// It starts no goroutines of its own and needs no closing.
type Hasher struct {
	// Memory is what one new hash needs, in KiB: from 8 for each of Threads to
	// 262144 (256 MiB). The default is 19456 (19 MiB). Memory × Time is at most 1 GiB.
	Memory uint32

	// Time is the number of passes over the memory for a new hash, from 1 to 16. The
	// default is 2.
	Time uint32

	// Threads is the parallelism of a new hash, from 1 to 16. The default is 1, which
	// serves most logins a second; more make one login faster on an idle machine.
	Threads uint8

	// Budget is how many bytes all hashes may use at the same time, at least Memory.
	// The default is Memory for each of GOMAXPROCS, as it is at the first call. A stored
	// argon2id hash counts with its own memory, a bcrypt hash like a new hash: it
	// needs no memory to speak of, but a processor. A stored hash that needs more
	// than Budget (up to 256 MiB) runs alone.
	//
	// This is the memory in use. Go's heap may hold about as much again until it is
	// collected, as GOGC and GOMEMLIMIT say.
	Budget int64

	// Queue is how many calls may wait for their turn. The default is 32 for each new
	// hash that fits into Budget, which is about a second of work with the defaults,
	// but ten of it if all who log in still have bcrypt of cost 12: a deadline on ctx
	// bounds the wait in any case. If it is negative, none waits.
	Queue int

	once    sync.Once
	params  params // with defaults
	mistake error  // of Check
	gate    gate

	// argon2id and bcrypt replace the functions of golang.org/x/crypto in tests.
	argon2id func(password, salt []byte, time, memory uint32, threads uint8, keyLen uint32) []byte
	bcrypt   func(hash, password []byte) error
}

// Check returns every mistake in the fields of h, joined, or nil. Each names its
// field. It is for the start of a program, and does no hashing.
func (h *Hasher) Check() error {
	h.init()
	return h.mistake
}

// Hash returns a new argon2id hash of password, with the parameters of h. It waits
// for its turn until ctx ends.
//
// It refuses the empty password. It returns [ErrTooLong], [ErrBusy], or an error
// that wraps the one of ctx; the mistakes of [Hasher.Check] if there are any. Once
// the work has begun, the end of ctx does not stop it.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	switch {
	case len(password) > maxPassword:
		return "", ErrTooLong
	case password == "":
		return "", errors.New("password: empty")
	}
	h.init()
	made := argon2idHash{params: h.params, salt: make([]byte, saltLength)}
	_, _ = rand.Read(made.salt) // never fails: it ends the program rather
	err := h.run(ctx, made.weight(), func() {
		made.tag = made.derive(h.argon2id, password, tagLength)
	})
	if err != nil {
		return "", err
	}
	return made.String(), nil
}

// Verify checks password against hash, argon2id or bcrypt; see the comment of the
// package for what it reads. It waits for its turn until ctx ends.
//
// It returns nil if the password is right, and [ErrMismatch] if it is not. It
// returns [ErrTooLong], [ErrBusy], an error that wraps [ErrHash], or one that wraps
// the one of ctx; the mistakes of [Hasher.Check] if there are any. Once the work has
// begun, the end of ctx does not stop it.
func (h *Hasher) Verify(ctx context.Context, hash, password string) error {
	if len(password) > maxPassword {
		return ErrTooLong
	}
	stored, err := parse(hash)
	if err != nil {
		return err
	}
	return h.verify(ctx, stored, password)
}

// VerifyUnknown does the work of checking a wrong password against a hash of h, in
// the same turn of the same queue, and returns [ErrMismatch]. It is for a login with
// a name that nobody has, so that the time of the answer does not tell so. This
// holds as far as the stored hashes have the parameters of h: one of bcrypt, or with
// older parameters, takes another time until it is replaced (see
// [Hasher.NeedsRehash]).
//
// Its other errors are those of [Hasher.Verify], without ErrHash. It never returns
// nil.
func (h *Hasher) VerifyUnknown(ctx context.Context, password string) error {
	if len(password) > maxPassword {
		return ErrTooLong
	}
	h.init()
	nobody := argon2idHash{params: h.params, salt: make([]byte, saltLength), tag: make([]byte, tagLength)}
	if err := h.verify(ctx, nobody, password); err != nil {
		return err
	}
	return ErrMismatch
}

// NeedsRehash reports whether hash should be replaced by one of [Hasher.Hash], which
// is possible where the password is at hand: after a login with it. It is true for
// bcrypt, for less memory or fewer passes than h has, for a shorter salt or tag than
// h makes, and for whatever Verify does not read. It is false for a stronger hash,
// and it ignores the threads, which are no measure of strength.
func (h *Hasher) NeedsRehash(hash string) bool {
	h.init()
	stored, err := parse(hash)
	if err != nil {
		return true
	}
	old, ok := stored.(argon2idHash)
	return !ok ||
		old.memory < h.params.memory || old.time < h.params.time ||
		len(old.salt) < saltLength || len(old.tag) < tagLength
}

// init reads the fields, once.
func (h *Hasher) init() {
	h.once.Do(func() {
		h.params = params{memory: h.Memory, time: h.Time, threads: uint32(h.Threads)}
		if h.params.memory == 0 {
			h.params.memory = defaultMemory
		}
		if h.params.time == 0 {
			h.params.time = defaultTime
		}
		if h.params.threads == 0 {
			h.params.threads = defaultThreads
		}
		var mistakes []error
		for _, text := range h.params.mistakes("Hasher.Memory", "Hasher.Time", "Hasher.Threads", newThreads) {
			mistakes = append(mistakes, errors.New("password: "+text))
		}

		one := h.params.weight()
		h.gate.budget = h.Budget
		if h.Budget == 0 {
			h.gate.budget = int64(runtime.GOMAXPROCS(0)) * one
		}
		if h.gate.budget < one {
			mistakes = append(mistakes, fmt.Errorf("password: Hasher.Budget (%d bytes) is less than one hash needs (%d bytes)", h.Budget, one))
		}
		h.gate.queue = int64(h.Queue)
		if h.Queue == 0 {
			h.gate.queue = h.gate.budget / one * queuePerHash
		}
		h.mistake = errors.Join(mistakes...)

		if h.argon2id == nil {
			h.argon2id = argon2.IDKey
		}
		if h.bcrypt == nil {
			h.bcrypt = bcrypt.CompareHashAndPassword
		}
	})
}

// verify does the work of s and gives its verdict.
func (h *Hasher) verify(ctx context.Context, s stored, password string) error {
	h.init()
	weight := h.params.weight()
	if a, ok := s.(argon2idHash); ok {
		weight = a.weight()
	}
	matches := false
	if err := h.run(ctx, weight, func() { matches = s.matches(h, password) }); err != nil {
		return err
	}
	// Other programs hash the empty password; it is no password all the same.
	if !matches || password == "" {
		return ErrMismatch
	}
	return nil
}

// run calls work when its turn has come, and ends the turn when work has ended,
// whether it returned or panicked.
func (h *Hasher) run(ctx context.Context, weight int64, work func()) error {
	if h.mistake != nil {
		return h.mistake
	}
	weight, err := h.gate.enter(ctx, weight)
	if err != nil {
		return err
	}
	defer h.gate.leave(weight)
	work()
	return nil
}
