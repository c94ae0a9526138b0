package auth_test

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"strconv"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// The second step of this login is a time-based code or a recovery code. Either is
// accepted once, in all processes that share the store.
func ExampleSecondFactor() {
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		log.Fatal(err)
	}
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	factor := &codes{
		now:      func() time.Time { return now },
		secret:   []byte("12345678901234567890"), // of the user's authenticator app; store it encrypted
		recovery: map[[32]byte]bool{sha256.Sum256([]byte("QJ7XKM2A4RWTNB5C")): true},
	}
	a, err := auth.New(auth.Config{
		Issuer:       "https://example.com",
		Audience:     []string{"https://api.example.com"},
		Secrets:      [][]byte{[]byte(rand.Text() + rand.Text())}, // a program reads it from its configuration
		Users:        oneUser{auth.User{ID: "u1", PasswordHash: hash}},
		SecondFactor: factor,
		Now:          factor.now,
	})
	if err != nil {
		log.Fatal(err)
	}
	factor.once = a.Once
	ctx := context.Background()

	login := func(method, response string) {
		_, err := a.Login(ctx, "ada", "correct horse battery staple", auth.SessionOptions{})
		var required *auth.FactorError
		if !errors.As(err, &required) {
			log.Fatal("expected a second step: ", err)
		}
		tokens, err := a.LoginFactor(ctx, required.Challenge, method, response, auth.SessionOptions{})
		if err != nil {
			fmt.Println(err)
			return
		}
		c, err := a.Verify(ctx, tokens.Access)
		fmt.Println(c.AMR, err)
	}
	code := factor.code(now.Unix() / 30)
	login("otp", "000000")
	login("otp", code)
	login("otp", code) // somebody has seen it
	login("recovery", "QJ7XKM2A4RWTNB5C")
	login("recovery", "QJ7XKM2A4RWTNB5C")
	// Output:
	// auth: invalid credentials: the response to the second factor is wrong
	// [pwd otp mfa] <nil>
	// auth: invalid credentials: the response to the second factor is wrong
	// [pwd recovery mfa] <nil>
	// auth: invalid credentials: the response to the second factor is wrong
}

// codes is the second factor of all users. A program has a secret and recovery
// codes for each user.
type codes struct {
	now      func() time.Time
	once     func(ctx context.Context, subject, id string, ttl time.Duration) error
	secret   []byte
	recovery map[[32]byte]bool // the hashes of random codes of at least 80 bits
}

// Methods implements [auth.SecondFactor]. For a user without a second factor, it
// would return nil, or "enroll" if they must set one up.
func (c *codes) Methods(context.Context, auth.User, auth.Device) ([]string, error) {
	return []string{"otp", "recovery"}, nil
}

// Verify implements [auth.SecondFactor].
func (c *codes) Verify(ctx context.Context, u auth.User, method, response string) error {
	switch method {
	case "otp":
		step := c.now().Unix() / 30
		for _, s := range []int64{step, step - 1, step + 1} { // the clocks may differ
			if hmac.Equal([]byte(response), []byte(c.code(s))) {
				return c.once(ctx, u.ID, "otp "+strconv.FormatInt(s, 10), 2*time.Minute)
			}
		}
	case "recovery":
		// A program deletes the code, so that it is used up for good.
		if id := sha256.Sum256([]byte(response)); c.recovery[id] {
			return c.once(ctx, u.ID, fmt.Sprintf("recovery %x", id), 30*24*time.Hour)
		}
	}
	return auth.ErrInvalidCredentials
}

// code returns the code of a time step (RFC 6238).
func (c *codes) code(step int64) string {
	mac := hmac.New(sha1.New, c.secret)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(step)))
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 15
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(sum[at:])&0x7fffffff%1_000_000)
}

// oneUser is a user lookup with one user.
type oneUser struct{ user auth.User }

func (u oneUser) FindByLogin(_ context.Context, login string) (auth.User, error) {
	if login != "ada" {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.user, nil
}

func (u oneUser) FindByID(_ context.Context, id string) (auth.User, error) {
	if id != u.user.ID {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u.user, nil
}
