package password

import (
	"context"
	"crypto/subtle"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// A call has the arguments of a call of a KDF.
type call struct {
	kdf                   string
	password, salt        string
	time, memory, threads uint32
	length                uint32
}

// A spy records the calls of the KDFs, which do the real work.
type spy struct {
	mu    sync.Mutex
	calls []call
}

// cheap returns a Hasher with low costs, and the spy on its KDFs.
func cheap() (*Hasher, *spy) {
	s := new(spy)
	h := &Hasher{Memory: 64, Time: 1}
	h.argon2id = func(password, salt []byte, time, memory uint32, threads uint8, length uint32) []byte {
		s.record(call{"argon2id", string(password), string(salt), time, memory, uint32(threads), length})
		return argon2.IDKey(password, salt, time, memory, threads, length)
	}
	h.bcrypt = func(hash, password []byte) error {
		s.record(call{kdf: "bcrypt", password: string(password)})
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	return h, s
}

func (s *spy) record(c call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, c)
}

// take returns the calls since the last take.
func (s *spy) take() []call {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

// mint returns the PHC string of password, even of one that Hash refuses.
func mint(password string, p params, salt, tag int) string {
	a := argon2idHash{params: p, salt: []byte(strings.Repeat("s", salt))}
	a.tag = a.derive(argon2.IDKey, password, tag)
	return a.String()
}

func mintBcrypt(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	require.NoError(t, err)
	return string(hash)
}

var leastParams = params{memory: 64, time: 1, threads: 1}

func TestHash_DefaultHasTheDocumentedForm(t *testing.T) {
	t.Parallel()
	hash, err := Hash("correct horse battery staple")
	require.NoError(t, err)
	require.Regexp(t, `^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`, hash)
	require.NoError(t, Verify(hash, "correct horse battery staple"))
	require.ErrorIs(t, Verify(hash, "correct horse battery stable"), ErrMismatch)
	require.False(t, new(Hasher).NeedsRehash(hash))
}

func TestHasher_HashHasParametersAndRandomSalt(t *testing.T) {
	t.Parallel()
	h := &Hasher{Memory: 128, Time: 3, Threads: 2}
	one, err := h.Hash(t.Context(), "password")
	require.NoError(t, err)
	two, err := h.Hash(t.Context(), "password")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(one, "$argon2id$v=19$m=128,t=3,p=2$"), one)
	require.NotEqual(t, strings.Split(one, "$")[4], strings.Split(two, "$")[4])
	require.NoError(t, h.Verify(t.Context(), one, "password"))
	require.NoError(t, h.Verify(t.Context(), two, "password"))
}

func TestVerify_AcceptsHashesOfOtherPrograms(t *testing.T) {
	t.Parallel()
	for _, vector := range []struct{ source, password, hash string }{
		// github.com/P-H-C/phc-winner-argon2, src/test.c
		{"reference", "password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"},
		{"reference, two lanes", "password", "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc"},
		// The program argon2 of Debian 12.
		{"argon2 -k 19456", "correct horse battery staple", "$argon2id$v=19$m=19456,t=2,p=1$c2l4dGVlbmJ5dGVzYWx0IQ$FY0dSvYcwDYwIPm8ffQcifseQmzjcKXJTa0zhwORJH0"},
		{"argon2 -p 4 -l 24", "passéwort", "$argon2id$v=19$m=64,t=3,p=4$c2l4dGVlbmJ5dGVzYWx0IQ$kBI+sGVRljZ9u8PLpuzgsmkcOCw73l+4"},
		// htpasswd -B of Apache 2.4.
		{"htpasswd", "correct horse", "$2y$04$EfY7Nx9YFW7WFLzudKhgoeAkAAaHt5WCk20A1B0W38OCKH4vnoXfK"},
		// crypt_blowfish, wrapper.c
		{"crypt_blowfish", "U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
		{"crypt_blowfish", "U*U*U", "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"},
		{"crypt_blowfish, 72 bytes", "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui"},
	} {
		t.Run(vector.source, func(t *testing.T) {
			t.Parallel()
			require.NoError(t, Verify(vector.hash, vector.password))
			require.ErrorIs(t, Verify(vector.hash, vector.password+"!"), ErrMismatch)
			require.ErrorIs(t, Verify(vector.hash, strings.ToUpper(vector.password[:1])+vector.password[1:]+" "), ErrMismatch)
		})
	}
}

func TestVerify_EveryVersionOfBcrypt(t *testing.T) {
	t.Parallel()
	hash := mintBcrypt(t, "password")
	for _, version := range []string{"$2a$", "$2b$", "$2y$"} {
		h, _ := cheap()
		require.NoError(t, h.Verify(t.Context(), version+hash[4:], "password"), version)
		require.ErrorIs(t, h.Verify(t.Context(), version+hash[4:], "passwore"), ErrMismatch, version)
	}
}

func TestVerify_BcryptOver72BytesIsRefusedNotTruncated(t *testing.T) {
	t.Parallel()
	password := strings.Repeat("0123456789", 7) + "ab"
	hash := mintBcrypt(t, password)
	h, s := cheap()
	require.NoError(t, h.Verify(t.Context(), hash, password), "all 72 bytes are used")
	s.take()

	// Package bcrypt and many programs treat this as the same password.
	require.NoError(t, bcrypt.CompareHashAndPassword([]byte(hash), []byte(password+"c")))
	require.ErrorIs(t, h.Verify(t.Context(), hash, password+"c"), ErrMismatch)
	require.Equal(t, []call{{kdf: "bcrypt", password: password}}, s.take(), "the work must be done with 72 bytes")

	// This vector of crypt_blowfish contradicts our policy.
	require.ErrorIs(t, Verify("$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui",
		"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored"), ErrMismatch)
}

func TestVerify_BcryptWithNULIsRefusedAfterTheWork(t *testing.T) {
	t.Parallel()
	hash := mintBcrypt(t, "a")
	require.NoError(t, bcrypt.CompareHashAndPassword([]byte(hash), []byte("a\x00a")), "package bcrypt treats them as equal")
	h, s := cheap()
	for _, password := range []string{"a\x00a", "a\x00", "\x00"} {
		require.ErrorIs(t, h.Verify(t.Context(), hash, password), ErrMismatch)
		require.Equal(t, []call{{kdf: "bcrypt", password: password}}, s.take())
	}
	same := mintBcrypt(t, "a\x00b")
	require.ErrorIs(t, h.Verify(t.Context(), same, "a\x00b"), ErrMismatch)
}

func TestVerify_BcryptSaltMayHaveUnusedBits(t *testing.T) {
	t.Parallel()
	hash := []byte(mintBcrypt(t, "password"))
	hash[28] = bcryptAlphabet[strings.IndexByte(bcryptAlphabet, hash[28])|1] // last of the salt
	require.NoError(t, Verify(string(hash), "password"))
}

func TestVerify_Argon2idAcceptsNULAndMoreThan72Bytes(t *testing.T) {
	t.Parallel()
	h, _ := cheap()
	for _, password := range []string{"a\x00b", strings.Repeat("x", 73), strings.Repeat("x", maxPassword)} {
		hash, err := h.Hash(t.Context(), password)
		require.NoError(t, err)
		require.NoError(t, h.Verify(t.Context(), hash, password))
		require.ErrorIs(t, h.Verify(t.Context(), hash, password[:len(password)-1]), ErrMismatch)
	}
}

func TestVerify_PasswordIsNotNormalized(t *testing.T) {
	t.Parallel()
	h, _ := cheap()
	hash, err := h.Hash(t.Context(), "Pässwörd")
	require.NoError(t, err)
	for _, other := range []string{" Pässwörd", "Pässwörd ", "pässwörd", "Pässwörd\n", "Pa\u0308sswo\u0308rd"} {
		require.ErrorIs(t, h.Verify(t.Context(), hash, other), ErrMismatch, "%q", other)
	}
	invalid, err := h.Hash(t.Context(), "\xff\xfe")
	require.NoError(t, err)
	require.ErrorIs(t, h.Verify(t.Context(), invalid, "\ufffd\ufffd"), ErrMismatch)
}

func TestPassword_TooLongIsRefusedBeforeHashing(t *testing.T) {
	t.Parallel()
	h, s := cheap()
	long := strings.Repeat("x", 1025)

	_, err := h.Hash(t.Context(), long)
	require.ErrorIs(t, err, ErrTooLong)
	require.ErrorIs(t, h.VerifyUnknown(t.Context(), long), ErrTooLong)
	for _, hash := range []string{mint("x", leastParams, 16, 32), mintBcrypt(t, "x"), "not a hash"} {
		require.ErrorIs(t, h.Verify(t.Context(), hash, long), ErrTooLong, "for any stored hash")
	}
	require.Empty(t, s.take())

	_, err = Hash(long)
	require.ErrorIs(t, err, ErrTooLong)
	require.ErrorIs(t, Verify(mint("x", leastParams, 16, 32), long), ErrTooLong)
}

func TestHash_EmptyPasswordIsRefused(t *testing.T) {
	t.Parallel()
	h, s := cheap()
	_, err := h.Hash(t.Context(), "")
	require.EqualError(t, err, "password: empty")
	require.NotErrorIs(t, err, ErrTooLong)
	require.Empty(t, s.take())
}

func TestVerify_EmptyPasswordNeverMatches(t *testing.T) {
	t.Parallel()
	h, s := cheap()
	for _, password := range []string{"", "x"} { // the password that another program hashed
		require.ErrorIs(t, h.Verify(t.Context(), mint(password, leastParams, 16, 32), ""), ErrMismatch)
		require.ErrorIs(t, h.Verify(t.Context(), mintBcrypt(t, password), ""), ErrMismatch)
		require.Len(t, s.take(), 2)
	}
	require.ErrorIs(t, h.VerifyUnknown(t.Context(), ""), ErrMismatch)
	require.Len(t, s.take(), 1)
}

func TestVerifyUnknown_DoesTheWorkOfAWrongPassword(t *testing.T) {
	t.Parallel()
	for _, p := range []params{{memory: 64, time: 1, threads: 1}, {memory: 128, time: 3, threads: 2}, {}} {
		h, s := cheap()
		h.Memory, h.Time, h.Threads = p.memory, p.time, uint8(p.threads)
		hash, err := h.Hash(t.Context(), "password")
		require.NoError(t, err)
		require.Len(t, s.take(), 1)

		require.ErrorIs(t, h.Verify(t.Context(), hash, "wrong"), ErrMismatch)
		known := s.take()
		require.ErrorIs(t, h.VerifyUnknown(t.Context(), "wrong"), ErrMismatch)
		unknown := s.take()

		require.Len(t, known, 1)
		require.Len(t, unknown, 1)
		require.Len(t, unknown[0].salt, len(known[0].salt))
		known[0].salt, unknown[0].salt = "", ""
		require.Equal(t, known, unknown)
	}
}

func TestVerifyUnknown_NeverSucceeds(t *testing.T) {
	t.Parallel()
	h := &Hasher{Memory: 64, Time: 1}
	h.argon2id = func(_, _ []byte, _, _ uint32, _ uint8, length uint32) []byte { return make([]byte, length) }
	require.ErrorIs(t, h.VerifyUnknown(t.Context(), "password"), ErrMismatch)
}

func TestVerifyUnknown_WaitsInTheQueue(t *testing.T) {
	t.Parallel()
	h, s := cheap()
	h.Budget, h.Queue = 64*1024, -1
	h.init()
	weight, err := h.gate.enter(t.Context(), 1)
	require.NoError(t, err)
	require.ErrorIs(t, h.VerifyUnknown(t.Context(), "password"), ErrBusy)
	require.Empty(t, s.take())
	h.gate.leave(weight)
	require.ErrorIs(t, h.VerifyUnknown(t.Context(), "password"), ErrMismatch)
	require.Len(t, s.take(), 1)
}

func TestVerify_ComparesEveryByteOfTheTag(t *testing.T) {
	t.Parallel()
	h, _ := cheap()
	right := argon2idHash{params: leastParams, salt: make([]byte, 16)}
	right.tag = right.derive(argon2.IDKey, "password", 32)
	for i := range right.tag {
		wrong := right
		wrong.tag = append([]byte(nil), right.tag...)
		wrong.tag[i] ^= 1
		require.Zero(t, subtle.ConstantTimeCompare(right.tag, wrong.tag))
		require.ErrorIs(t, h.Verify(t.Context(), wrong.String(), "password"), ErrMismatch)
	}
	require.NoError(t, h.Verify(t.Context(), right.String(), "password"))
}

func TestNeedsRehash(t *testing.T) {
	t.Parallel()
	h := &Hasher{Memory: 128, Time: 2, Threads: 2}
	own, err := h.Hash(t.Context(), "password")
	require.NoError(t, err)
	for _, c := range []struct {
		name, hash string
		want       bool
	}{
		{"its own", own, false},
		{"more memory", mint("x", params{256, 2, 2}, 16, 32), false},
		{"more passes", mint("x", params{128, 3, 2}, 16, 32), false},
		{"other threads", mint("x", params{128, 2, 1}, 16, 32), false},
		{"longer salt and tag", mint("x", params{128, 2, 2}, 32, 64), false},
		{"less memory", mint("x", params{127, 2, 2}, 16, 32), true},
		{"less memory, more passes", mint("x", params{64, 8, 2}, 16, 32), true},
		{"fewer passes", mint("x", params{128, 1, 2}, 16, 32), true},
		{"shorter salt", mint("x", params{128, 2, 2}, 15, 32), true},
		{"shorter tag", mint("x", params{128, 2, 2}, 16, 31), true},
		{"bcrypt", mintBcrypt(t, "x"), true},
		{"argon2i", strings.Replace(own, "argon2id", "argon2i", 1), true},
		{"argon2d", strings.Replace(own, "argon2id", "argon2d", 1), true},
		{"unreadable", own + " ", true},
		{"empty", "", true},
	} {
		require.Equal(t, c.want, h.NeedsRehash(c.hash), c.name)
	}
	require.True(t, new(Hasher).NeedsRehash(own), "the defaults are stronger")
}

func TestCheck_ReportsEveryMistake(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		h    *Hasher
		want string
	}{
		{&Hasher{}, ""},
		{&Hasher{Memory: 8, Time: 16}, ""},
		{&Hasher{Memory: 256 * 1024, Time: 4, Threads: 16}, ""},
		{&Hasher{Memory: 64 * 1024, Time: 16}, ""},
		{&Hasher{Budget: 19 * 1024 * 1024}, ""},
		{&Hasher{Memory: 7}, "password: Hasher.Memory (7 KiB) is less than 8 KiB for each thread (1)"},
		{&Hasher{Memory: 127, Threads: 16}, "password: Hasher.Memory (127 KiB) is less than 8 KiB for each thread (16)"},
		{&Hasher{Memory: 256*1024 + 1}, "password: Hasher.Memory (262145 KiB) exceeds 262144 KiB"},
		{&Hasher{Time: 17}, "password: Hasher.Time (17) is not between 1 and 16"},
		{&Hasher{Memory: 65536, Threads: 255}, "password: Hasher.Threads (255) is not between 1 and 16"},
		{&Hasher{Threads: 17}, "password: Hasher.Threads (17) is not between 1 and 16"},
		{&Hasher{Memory: 256 * 1024, Time: 5}, "password: Hasher.Memory × Hasher.Time exceeds 1048576 KiB"},
		{&Hasher{Budget: 19*1024*1024 - 1}, "password: Hasher.Budget (19922943 bytes) is less than the memory of one hash (19922944 bytes)"},
		{&Hasher{Memory: 64, Budget: -1}, "password: Hasher.Budget (-1 bytes) is less than the memory of one hash (65536 bytes)"},
		{&Hasher{Memory: 4294967295, Time: 4294967295, Threads: 255, Budget: 1}, "password: Hasher.Memory (4294967295 KiB) exceeds 262144 KiB\n" +
			"password: Hasher.Time (4294967295) is not between 1 and 16\n" +
			"password: Hasher.Threads (255) is not between 1 and 16\n" +
			"password: Hasher.Memory × Hasher.Time exceeds 1048576 KiB\n" +
			"password: Hasher.Budget (1 bytes) is less than the memory of one hash (4398046510080 bytes)"},
	} {
		if c.want == "" {
			require.NoError(t, c.h.Check())
			continue
		}
		require.EqualError(t, c.h.Check(), c.want)
	}
}

func TestHasher_WithMistakesDoesNoWork(t *testing.T) {
	t.Parallel()
	h, s := cheap()
	h.Time = 17
	hash := mint("password", leastParams, 16, 32)
	_, err := h.Hash(t.Context(), "password")
	require.EqualError(t, err, h.Check().Error())
	require.EqualError(t, h.Verify(t.Context(), hash, "password"), h.Check().Error())
	require.EqualError(t, h.VerifyUnknown(t.Context(), "password"), h.Check().Error())
	require.Empty(t, s.take())
}

func TestHasher_DefaultBudgetAndQueue(t *testing.T) {
	t.Parallel()
	h := new(Hasher)
	require.NoError(t, h.Check())
	others := int64(max(1, runtime.GOMAXPROCS(0)-1)) // processors but one
	require.Equal(t, others*19*1024*1024, h.gate.budget)
	require.Equal(t, others*32, h.gate.queue)

	h = &Hasher{Memory: 1024, Budget: 5*1024*1024 + 1}
	require.NoError(t, h.Check())
	require.EqualValues(t, 5*1024*1024+1, h.gate.budget)
	require.EqualValues(t, 5*32, h.gate.queue)
}

// It changes GOMAXPROCS, so it does not run in parallel.
func TestHasher_DefaultBudgetLeavesOneProcessorFree(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, c := range []struct {
		processors int
		threads    uint8
		want       int64 // hashes at once
	}{
		{1, 1, 1}, {2, 1, 1}, {3, 1, 2}, {8, 1, 7},
		{2, 4, 1}, {4, 4, 1}, {5, 4, 1}, {8, 4, 1}, {9, 4, 2}, {16, 16, 1},
	} {
		runtime.GOMAXPROCS(c.processors)
		h := &Hasher{Memory: 1024, Threads: c.threads}
		require.NoError(t, h.Check())
		require.Equal(t, c.want*1024*1024, h.gate.budget, "%+v", c)
		require.Equal(t, c.want*32, h.gate.queue, "%+v", c)
	}
}

func TestVerify_StoredHashCountsItsMemoryAndItsThreads(t *testing.T) {
	t.Parallel()
	const kib = 1024
	for _, c := range []struct {
		name    string
		threads uint8 // of new hashes, which need 256 KiB
		stored  params
		want    int64
	}{
		{"like a new hash", 1, params{256, 1, 1}, 256 * kib},
		{"more memory", 1, params{1000, 1, 1}, 1000 * kib},
		{"less memory, one processor", 1, params{8, 1, 1}, 256 * kib},
		{"less memory, three processors", 1, params{64, 1, 3}, 3 * 256 * kib},
		{"more memory, three processors", 1, params{1000, 1, 3}, 1000 * kib},
		{"more processors than any machine has", 1, params{2040, 1, 255}, 255 * 256 * kib},
		{"as many threads", 4, params{256, 1, 4}, 256 * kib},
		{"fewer threads", 4, params{256, 1, 1}, 256 * kib},
		{"more threads", 4, params{256, 1, 5}, 2 * 256 * kib},
	} {
		h, _ := cheap()
		h.Memory, h.Threads, h.Budget = 256, c.threads, 1<<30
		var used int64
		original := h.argon2id
		h.argon2id = func(password, salt []byte, time, memory uint32, threads uint8, length uint32) []byte {
			h.gate.mu.Lock()
			used = h.gate.used
			h.gate.mu.Unlock()
			return original(password, salt, time, memory, threads, length)
		}
		require.NoError(t, h.Verify(t.Context(), mint("password", c.stored, 16, 32), "password"))
		require.Equal(t, c.want, used, c.name)
	}
}

func TestErrors_ContainNeitherPasswordNorHash(t *testing.T) {
	t.Parallel()
	h, _ := cheap()
	h.Budget, h.Queue = 64*1024, -1
	const password = "correct horse battery staple"
	hash := mint(password, leastParams, 16, 32)
	ended, cancel := context.WithCancel(t.Context())
	cancel()

	var errs []error
	for _, stored := range []string{hash, hash + "=", hash[1:], strings.Replace(hash, "m=64", "m=4294967295", 1), mintBcrypt(t, password) + "x"} {
		errs = append(errs, h.Verify(t.Context(), stored, "wrong "+password), h.Verify(ended, stored, password))
	}
	_, err := h.Hash(ended, password)
	errs = append(errs, err, h.VerifyUnknown(ended, password), h.VerifyUnknown(t.Context(), password))
	for _, err := range errs {
		require.Error(t, err)
		for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
			require.NotContains(t, text, "horse")
			for _, part := range strings.Split(hash, "$")[4:] {
				require.NotContains(t, text, part)
			}
		}
		require.True(t, strings.HasPrefix(err.Error(), "password: "), err.Error())
	}
}

func BenchmarkHash(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Hash("correct horse battery staple"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkHasher_64LoginsAtOnce measures the time until the last of 64
// concurrent logins has ended.
func BenchmarkHasher_64LoginsAtOnce(b *testing.B) {
	h := &Hasher{Queue: 64}
	hash, err := h.Hash(b.Context(), "correct horse battery staple")
	require.NoError(b, err)
	var peak uint64
	for b.Loop() {
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				if err := h.Verify(b.Context(), hash, "correct horse battery staple"); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		peak = max(peak, stats.HeapSys-stats.HeapReleased)
	}
	b.ReportMetric(float64(peak)/(1<<20), "heap-MiB")
}

// TestVerify_AcceptsManyThreads: other programs create such hashes on large
// machines.
func TestVerify_AcceptsManyThreads(t *testing.T) {
	t.Parallel()
	for _, p := range []params{{136, 1, 17}, {256, 2, 32}, {1000, 1, 100}, {2040, 1, 255}, {4099, 2, 128}} {
		h, s := cheap()
		hash := mint("password", p, 16, 32)
		require.NoError(t, h.Verify(t.Context(), hash, "password"), hash)
		require.ErrorIs(t, h.Verify(t.Context(), hash, "Password"), ErrMismatch)
		require.NoError(t, Verify(hash, "password"))
		require.Equal(t, p.threads, s.take()[0].threads)
		require.False(t, (&Hasher{Memory: 64, Time: 1}).NeedsRehash(hash), "threads do not affect the strength")
	}
}
