// Package password creates and verifies password hashes.
//
// A small program needs only [Hash] and [Verify]. A server uses a [Hasher],
// which limits the memory that concurrent hashing uses. A hash is expensive by
// design (tens of milliseconds, 19 MiB), and 200 logins at the same moment must
// not use 200 times the memory. Calls beyond the limit wait in a queue, which the
// sources of the calls share fairly ([WithSource]). If the queue is full, they fail
// with [ErrBusy] at once.
//
//	var passwords password.Hasher // one for the program; the zero value is ready
//
//	err = passwords.CheckNew(ctx, newPassword)           // at registration, if Screen is set
//	hash, err := passwords.Hash(ctx, newPassword)        // at registration
//	err = passwords.Verify(ctx, user.Hash, typed)        // at login
//	err = passwords.VerifyUnknown(ctx, typed)            // at login, if no user has the name
//	if passwords.NeedsRehash(user.Hash) { … }            // after a successful login
//
// # Hashes
//
// New hashes are argon2id (RFC 9106, version 19) with 19 MiB, 2 passes and 1
// thread, as the OWASP Password Storage Cheat Sheet recommends, with a random
// salt of 16 bytes and a tag of 32 bytes. They are strings in the PHC format:
//
//	$argon2id$v=19$m=19456,t=2,p=1$<salt>$<tag>
//
// Verify accepts exactly this form: m, t and p in this order, decimal numbers
// without sign or leading zeros, canonical base64 without padding, at most 512
// bytes. The parameters come from a database, so Verify checks their bounds
// before it does any work: m from 8 KiB for each thread to 262144 KiB, t from 1
// to 16, p from 1 to 255, m×t at most 1 GiB, a salt of 8 to 64 bytes and a tag
// of 16 to 64 bytes. For any other hash, including argon2i and argon2d, it
// returns [ErrHash].
//
// Verify also accepts bcrypt hashes ($2a$, $2b$ and $2y$, 60 bytes, cost 4 to
// 15), so that an application can migrate from bcrypt. This package never
// creates them. bcrypt uses only the first 72 bytes of a password, and the hash
// of a password with a NUL byte depends on the implementation. A password with
// more than 72 bytes or a NUL byte therefore never matches a bcrypt hash, even
// if that password was hashed: Verify does the work, so that its duration
// reveals nothing, and returns [ErrMismatch]. The user must reset the password.
//
// # Passwords
//
// A password is a string of bytes. It is not trimmed, normalized (Unicode) or
// truncated, and it needs no particular kinds of characters. A password of more
// than 1024 bytes is refused with [ErrTooLong]. Hash refuses the empty
// password; in Verify it never matches.
//
// This package requires no minimum length, because Verify must accept any
// password that was allowed when it was set. Applications check the length
// where a password is set or changed, for example in [Hasher.Screen]. NIST SP
// 800-63B-4, section 3.1.1.2, requires at least 15 characters if the password is
// the only factor and at least 8 if there is a second one, and no password from a
// list of common or leaked ones.
//
// # What this package does not do
//
// It does not limit login attempts, and does not support a pepper or PBKDF2. It
// does not erase memory that held a password or a key. Its errors contain
// neither a password nor a hash.
package password

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Sentinel errors. Test them with [errors.Is].
var (
	// ErrMismatch means that the password is not the one that was hashed.
	ErrMismatch = errors.New("password: mismatch")

	// ErrTooLong means that the password has more than 1024 bytes. It depends
	// only on the password. No hashing was done.
	ErrTooLong = errors.New("password: longer than 1024 bytes")

	// ErrEmpty means that the password to hash is empty.
	ErrEmpty = errors.New("password: empty")

	// ErrHash means that the stored hash has a form that Verify does not
	// accept, or is out of bounds. Errors that wrap it say what is wrong and
	// never contain the hash. No hashing was done. To keep the response time of
	// a login from revealing this, call [Hasher.VerifyUnknown] before
	// responding.
	ErrHash = errors.New("password: unusable hash")

	// ErrBusy means that the queue is full: [Hasher.Queue] calls are waiting, or one
	// of another source took the place of this call. No hashing was done. A server
	// responds with 503 and Retry-After.
	ErrBusy = errors.New("password: too many hashes at once")

	// ErrRefused means that [Hasher.Screen] refused a new password, which the user
	// must replace by another one. A Screen returns it, or an error that wraps it
	// and says why.
	ErrRefused = errors.New("password: refused")

	// ErrScreen means that [Hasher.Screen] failed, so it is not known whether it
	// would refuse the password. The caller of [Hasher.CheckNew] reports the error
	// and accepts the password.
	ErrScreen = errors.New("password: not screened")
)

const (
	maxPassword = 1024 // bytes

	defaultMemory  = 19 * 1024 // KiB
	defaultTime    = 2
	defaultThreads = 1
	saltLength     = 16 // bytes
	tagLength      = 32 // bytes

	queuePerHash = 32

	defaultScreenTimeout               = 2 * time.Second
	minScreenTimeout, maxScreenTimeout = time.Millisecond, time.Minute
)

// Hash returns a new argon2id hash of password, with the default parameters of
// a [Hasher]. It returns an error for the empty password, and [ErrTooLong] for
// one of more than 1024 bytes. It does not limit concurrent calls;
// [Hasher.Hash] does. It is safe for concurrent use.
func Hash(password string) (string, error) {
	return new(Hasher).Hash(context.Background(), password)
}

// Verify checks password against hash, an argon2id or bcrypt hash that [Hash],
// a [Hasher] or another program created. It returns nil, [ErrMismatch],
// [ErrTooLong] or an error that wraps [ErrHash]. It does not limit concurrent
// calls; [Hasher.Verify] does. It is safe for concurrent use.
func Verify(hash, password string) error {
	return new(Hasher).Verify(context.Background(), hash, password)
}

// A Hasher creates and verifies hashes, and limits the memory that all its
// calls use together. Its zero value is ready to use. The first call of a
// method reads the fields; they must not be changed after it. [Hasher.Check]
// checks the fields. So does every other method that returns an error, before
// it does any work.
//
// A Hasher is safe for concurrent use. It must not be copied after the first
// call. It starts no goroutines and need not be closed.
type Hasher struct {
	// Memory is the memory of one new hash, in KiB: at least 8 for each thread,
	// at most 262144 (256 MiB). The default is 19456 (19 MiB). Memory × Time is
	// at most 1 GiB.
	Memory uint32

	// Time is the number of passes over the memory for a new hash, from 1 to
	// 16. The default is 2.
	Time uint32

	// Threads is the parallelism of a new hash, from 1 to 16. The default is 1,
	// which allows the most logins per second. More threads make a single login
	// faster on an idle machine, but each uses a processor: see Budget.
	Threads uint8

	// Budget is the maximum memory of all running hashes together, in bytes. It
	// must be at least the memory of one new hash. The default is Memory for each
	// new hash that can run while one processor stays free: GOMAXPROCS at the first
	// call, minus 1, divided by Threads, but at least 1.
	//
	// A stored hash counts with its own memory, but at least like the new hashes
	// that use as many threads. A bcrypt hash counts like one new hash: it uses
	// little memory, but a processor. A stored hash that needs more than Budget (up
	// to 256 MiB) runs while no other does.
	//
	// If hashes use all processors of Go's scheduler, other goroutines wait until it
	// interrupts one, for 10 ms and more. So the default serves fewer logins in favor
	// of all other requests. With 64 MiB, on two processors that the clients use too,
	// it served 14 logins per second instead of 23, and 99 % of the other requests
	// took less than 18 ms instead of 40 ms. To use all processors, set GOMAXPROCS to
	// one more than their number, so that the operating system shares them. With
	// GOMAXPROCS=3, that machine served 21 logins per second, and 99 % of the other
	// requests took less than 20 ms. If GOMAXPROCS does not exceed Threads, no processor stays free.
	//
	// Budget does not include memory that Go has yet to collect. With the default
	// GOGC, that may be two or three times as much again. To limit it, set GOMEMLIMIT
	// to twice Budget plus the memory of the rest of the program.
	Budget int64

	// Queue is the maximum number of calls that wait. The default is 32 for
	// each new hash that fits into Budget. With the defaults that is about a
	// second of work, or ten seconds if every user still has a bcrypt hash of
	// cost 12. A deadline of ctx also bounds the wait. If Queue is negative, no
	// call waits.
	//
	// The sources (see [WithSource]) that have waiting calls take turns: of each,
	// the call that waits longest. A call that needs more memory than is free keeps
	// its turn until it fits. If the queue is full, a call of a source that has
	// at least two fewer waiting calls than the source with the most takes the
	// place of the newest call of that source, which fails with [ErrBusy]. So a
	// source can use the whole queue as long as no other needs it. If each
	// waiting call is of a different source, the queue is full for everybody.
	Queue int

	// Screen, if it is not nil, decides whether a new password may be used, for
	// example by its length or by a list of leaked passwords. It returns nil to
	// accept it, and [ErrRefused], or an error that wraps it, to refuse it. Any
	// other error means that Screen could not decide. The password is then
	// accepted, so that an outage of a list prevents no sign-up.
	//
	// [Hasher.CheckNew] calls Screen, and so do the methods of package auth that
	// set a password. Verify never does, and neither does Hash, which also replaces
	// the hash of a password that a user already has. So a password that was set
	// before stays valid.
	//
	// Screen is called concurrently. It must return when its context is done. Its
	// errors must not contain the password, nor a hash of it without salt.
	Screen func(ctx context.Context, password string) error

	// ScreenTimeout limits each call of Screen: its context ends after this time.
	// The default is 2 seconds; it must be from 1 millisecond to 1 minute.
	ScreenTimeout time.Duration

	once          sync.Once
	params        params // with defaults set
	mistake       error  // result of Check
	gate          gate
	pace          pace
	screenTimeout time.Duration // with the default set

	// argon2id and bcrypt replace the functions of golang.org/x/crypto in tests.
	argon2id func(password, salt []byte, time, memory uint32, threads uint8, keyLen uint32) []byte
	bcrypt   func(hash, password []byte) error
}

// Check validates the fields of h. The error joins every problem, each naming its
// field. Check does no hashing. Programs call it when they start.
func (h *Hasher) Check() error {
	h.init()
	return h.mistake
}

// CheckNew returns nil if password can be hashed and [Hasher.Screen], if it is
// set, accepts it. Call it before Hash where a password is set or changed, unless
// a method of package auth does. It does no hashing and does not wait in the queue.
//
// It returns [ErrEmpty], [ErrTooLong] or an error that wraps [ErrRefused] if the
// user must choose another password. Other errors are one that wraps [ErrScreen]
// and the error of Screen, one that wraps that of ctx, and the error of
// [Hasher.Check]. CheckNew does not recover a panic of Screen; package auth does,
// and accepts the password.
func (h *Hasher) CheckNew(ctx context.Context, password string) error {
	if err := checkForm(password); err != nil {
		return err
	}
	if h.init(); h.mistake != nil || h.Screen == nil {
		return h.mistake
	}
	limited, cancel := context.WithTimeout(ctx, h.screenTimeout)
	defer cancel()
	err := h.Screen(limited, password)
	switch {
	case errors.Is(err, ErrRefused) && errors.Is(err, ErrScreen): // of several lists, one refused the password and one failed
		return refusedError{err}
	case err == nil, errors.Is(err, ErrRefused):
		return err
	case ctx.Err() != nil: // the caller has given up, so the password must not be accepted
		return fmt.Errorf("password: screening: %w", ctx.Err())
	}
	return screenError{err}
}

// screenError is an [ErrScreen] with the error of a Screen. Package fmt would show
// the value with which a method of that error panics.
type screenError struct{ error }

func (e screenError) Error() string { return ErrScreen.Error() + ": " + e.error.Error() }

func (e screenError) Unwrap() []error { return []error{ErrScreen, e.error} }

// refusedError is an [ErrRefused] that does not wrap [ErrScreen], with which the
// caller would accept the password.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return ErrRefused }

// checkForm returns the error of a password that cannot be hashed.
func checkForm(password string) error {
	switch {
	case len(password) > maxPassword:
		return ErrTooLong
	case password == "":
		return ErrEmpty
	}
	return nil
}

// Hash returns a new argon2id hash of password, with the parameters of h. It does
// not call Screen; see [Hasher.CheckNew]. If Budget is used up, the call waits in
// the queue, but not longer than ctx.
//
// It returns an error for the empty password, [ErrTooLong], [ErrBusy], an error
// that wraps that of ctx, or the error of [Hasher.Check]. Hashing that has
// started does not stop when ctx is done.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	if err := checkForm(password); err != nil {
		return "", err
	}
	h.init()
	a := argon2idHash{params: h.params, salt: make([]byte, saltLength)}
	_, _ = rand.Read(a.salt) // never returns an error; it crashes the program instead
	err := h.run(ctx, a.weight(), func() {
		a.tag = a.derive(h.argon2id, password, tagLength)
	})
	if err != nil {
		return "", err
	}
	return a.String(), nil
}

// Verify checks password against an argon2id or bcrypt hash. The package comment
// describes the hashes that it accepts. If Budget is used up, the call waits in
// the queue, but not longer than ctx.
//
// It returns nil if the password is correct and [ErrMismatch] if it is not. Once h
// has verified hashes of different algorithms or parameters, ErrMismatch is returned
// no sooner than it usually takes for the slowest of them, but at most 3 seconds
// after the hashing started. So the response time does not reveal which kind of hash
// a user has. The wait uses neither a processor nor Budget, and ends early if ctx is
// done. Other errors are [ErrTooLong], [ErrBusy], one that wraps [ErrHash], one that
// wraps that of ctx, and the error of [Hasher.Check]. Hashing that has started
// does not stop when ctx is done.
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

// VerifyUnknown does the same work as Verify of a wrong password against a hash
// that h created, in the same queue, and returns [ErrMismatch], as Verify does.
// Logins call it if no user has the name, so that the response time does not reveal
// that. If there are bcrypt hashes, or hashes with other parameters than those of h,
// both methods wait; see Verify.
//
// Its other errors are those of [Hasher.Verify], except ErrHash. It never returns
// nil.
func (h *Hasher) VerifyUnknown(ctx context.Context, password string) error {
	if len(password) > maxPassword {
		return ErrTooLong
	}
	h.init()
	unknown := argon2idHash{params: h.params, salt: make([]byte, saltLength), tag: make([]byte, tagLength)}
	if err := h.verify(ctx, unknown, password); err != nil {
		return err
	}
	return ErrMismatch
}

// NeedsRehash reports whether hash should be replaced by a new hash from
// [Hasher.Hash]. That is possible after a successful login, when the password
// is known. It returns true for a bcrypt hash, for less memory or fewer passes
// than those of h, for a shorter salt or tag than those of new hashes, and for
// a hash that Verify does not accept. It returns false for a stronger hash. It
// ignores the threads, which do not affect the strength.
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

// init reads the fields of h, once.
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
			h.gate.budget = int64(max(1, (runtime.GOMAXPROCS(0)-1)/int(h.params.threads))) * one
		}
		if h.gate.budget < one {
			mistakes = append(mistakes, fmt.Errorf("password: Hasher.Budget (%d bytes) is less than the memory of one hash (%d bytes)", h.Budget, one))
		}
		h.gate.queue = int64(h.Queue)
		if h.Queue == 0 {
			h.gate.queue = h.gate.budget / one * queuePerHash
		}
		h.screenTimeout = h.ScreenTimeout
		if h.ScreenTimeout == 0 {
			h.screenTimeout = defaultScreenTimeout
		}
		if h.screenTimeout < minScreenTimeout || h.screenTimeout > maxScreenTimeout {
			mistakes = append(mistakes, fmt.Errorf("password: Hasher.ScreenTimeout (%s) is not between %s and %s", h.ScreenTimeout, minScreenTimeout, maxScreenTimeout))
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

// verify checks password against s, when its turn has come.
func (h *Hasher) verify(ctx context.Context, s stored, password string) error {
	h.init()
	matches := false
	var began time.Time
	var took time.Duration
	if err := h.run(ctx, h.weight(s), func() {
		began = time.Now()
		matches = s.matches(h, password)
		took = time.Since(began)
	}); err != nil {
		return err
	}
	least := h.pace.add(s.cost(), took, began)
	// Other programs may hash the empty password; it must not match here.
	if !matches || password == "" {
		waitUntil(ctx, began.Add(least))
		return ErrMismatch
	}
	return nil
}

// weight returns what s counts against Budget: its memory, but at least that of the
// new hashes that use as many processors.
func (h *Hasher) weight(s stored) int64 {
	one := h.params.weight()
	a, ok := s.(argon2idHash)
	if !ok {
		return one
	}
	hashes := (a.threads + h.params.threads - 1) / h.params.threads
	return max(a.weight(), int64(hashes)*one)
}

// run waits for the turn of a job, calls work, and ends the turn when work
// returns or panics.
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
