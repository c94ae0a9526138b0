package password

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// paced returns a Hasher whose functions take the given time, without any work: in a
// synctest bubble they take no real time. No password is right, except "right".
func paced(argon, bcrypt *time.Duration) *Hasher {
	return &Hasher{
		Memory: 64, Time: 1,
		argon2id: func(password, _ []byte, _, _ uint32, _ uint8, length uint32) []byte {
			time.Sleep(*argon)
			tag := make([]byte, length)
			if string(password) != "right" {
				tag[0] = 1
			}
			return tag
		},
		bcrypt: func(_, password []byte) error {
			time.Sleep(*bcrypt)
			if string(password) != "right" {
				return errors.New("mismatch")
			}
			return nil
		},
	}
}

const (
	ofArgon2id = "$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	ofBcrypt   = "$2y$04$EfY7Nx9YFW7WFLzudKhgoeAkAAaHt5WCk20A1B0W38OCKH4vnoXfK"
)

// duration returns how long a verification takes.
func duration(t *testing.T, h *Hasher, hash, password string) time.Duration {
	t.Helper()
	began := time.Now()
	var err error
	if hash == "" {
		err = h.VerifyUnknown(t.Context(), password)
	} else {
		err = h.Verify(t.Context(), hash, password)
	}
	if password == "right" && hash != "" {
		require.NoError(t, err)
	} else {
		require.Equal(t, ErrMismatch, err)
	}
	return time.Since(began)
}

func TestVerify_RefusalsOfAllKindsOfHashesTakeTheSameTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		argon, bcrypt := 40*time.Millisecond, 250*time.Millisecond
		h := paced(&argon, &bcrypt)
		// No other kind is known, so nothing waits.
		duration(t, h, ofArgon2id, "wrong")
		argon = 20 * time.Millisecond
		require.Equal(t, argon, duration(t, h, ofArgon2id, "wrong"))
		require.Equal(t, argon, duration(t, h, "", "wrong"))
		// The first bcrypt hash is noticed.
		require.Equal(t, bcrypt, duration(t, h, ofBcrypt, "wrong"))
		for range 3 * paceSize {
			require.Equal(t, bcrypt, duration(t, h, ofArgon2id, "wrong"))
			require.Equal(t, bcrypt, duration(t, h, "", "wrong"))
			require.Equal(t, bcrypt, duration(t, h, ofArgon2id, ""))
			require.Equal(t, argon, duration(t, h, ofArgon2id, "right"), "a login that succeeds does not wait")
		}
		// Hashes of more memory are slower than bcrypt now.
		argon = 300 * time.Millisecond
		duration(t, h, ofArgon2id, "wrong")
		bcrypt = 30 * time.Millisecond
		for range paceSize {
			duration(t, h, ofArgon2id, "wrong")
		}
		require.Equal(t, argon, duration(t, h, ofBcrypt, "wrong"))
		require.Equal(t, bcrypt, duration(t, h, ofBcrypt, "right"))
	})
}

// One verification that a busy machine has delayed must not delay all others.
func TestVerify_OneSlowHashDoesNotDelayRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		argon, usual := 20*time.Millisecond, 250*time.Millisecond
		bcrypt := usual
		h := paced(&argon, &bcrypt)
		for i := range 3 * paceSize {
			if bcrypt = usual; i%16 == 15 {
				bcrypt = 2 * time.Second
			}
			duration(t, h, ofBcrypt, "wrong")
		}
		require.Equal(t, usual, duration(t, h, ofArgon2id, "wrong"))
		bcrypt = time.Minute
		for range paceSize {
			duration(t, h, ofBcrypt, "wrong")
		}
		require.Equal(t, maxPace, duration(t, h, "", "wrong"), "the wait is bounded")
	})
}

// A client that has disconnected does not wait. The password is known to be wrong, so
// the error must say that: another error would not count as an attempt.
func TestVerify_ACanceledRefusalIsStillARefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		argon, bcrypt := 20*time.Millisecond, 250*time.Millisecond
		h := paced(&argon, &bcrypt)
		duration(t, h, ofArgon2id, "wrong")
		duration(t, h, ofBcrypt, "wrong")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		require.Equal(t, ErrMismatch, h.Verify(ctx, ofArgon2id, "wrong"))
		require.Equal(t, 100*time.Millisecond, time.Since(began))
	})
}

// The wait begins when the hashing has ended, and takes no place of the queue.
func TestVerify_RefusalsThatWaitUseNoBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		argon, bcrypt := 20*time.Millisecond, 250*time.Millisecond
		h := paced(&argon, &bcrypt)
		h.Budget, h.Queue = 64*1024, 1 // one at a time
		duration(t, h, ofBcrypt, "wrong")
		duration(t, h, ofArgon2id, "wrong")
		began := time.Now()
		done := make(chan error)
		for range 2 {
			go func() { done <- h.Verify(t.Context(), ofArgon2id, "wrong") }()
		}
		synctest.Wait()
		require.ErrorIs(t, h.Verify(t.Context(), ofArgon2id, "wrong"), ErrBusy)
		time.Sleep(2*argon + 1)
		require.Equal(t, argon, duration(t, h, ofArgon2id, "right"), "the two that wait have left the queue")
		require.Equal(t, ErrMismatch, <-done)
		require.Equal(t, bcrypt, time.Since(began))
		require.Equal(t, ErrMismatch, <-done)
		require.Equal(t, bcrypt+argon, time.Since(began), "it counts from the begin of the hashing")
	})
}

func TestPace_ForgetsAKindThatIsNotUsed(t *testing.T) {
	t.Parallel()
	var p pace
	now := time.Now()
	require.Zero(t, p.add(cost{bcrypt: 12}, time.Second, now))
	require.Equal(t, time.Second, p.add(cost{}, time.Millisecond, now.Add(paceAge-1)))
	require.Zero(t, p.add(cost{}, time.Millisecond, now.Add(paceAge)))
}

func TestPace_KeepsTheSlowestOfManyKinds(t *testing.T) {
	t.Parallel()
	var p pace
	for i := range uint32(10 * paceKinds) {
		p.add(cost{params: params{memory: i}}, time.Duration(i%7)*time.Millisecond, time.Now())
		require.LessOrEqual(t, len(p.kinds), paceKinds)
	}
	require.Equal(t, time.Second, p.add(cost{bcrypt: 12}, time.Second, time.Now()))
	for i := range uint32(10 * paceKinds) {
		require.Equal(t, time.Second, p.add(cost{params: params{memory: i}}, time.Millisecond, time.Now()))
	}
}
