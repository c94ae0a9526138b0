package authtest

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/ratchet-go/auth"
)

// maxThrottleTries is more than the attempts that an account or a known device has.
const maxThrottleTries = 100

// ThrottleLogin signs in as the user with this login and a wrong password until the next
// login is refused with [auth.ErrThrottled], which is status 429. The attempts count for
// the user, so changing their password is refused too, but for no source. No user needs
// to have this login: the response does not say whether one does.
//
// The user must wait for a second by the clock of a. A browser that has the cookie of an
// earlier login ([auth.Cookies].DeviceName) has attempts of its own.
//
// ThrottleLogin reports an error with t.Fatal. Each attempt hashes a password, so set no
// Config.Hasher that is slow.
func ThrottleLogin(t testing.TB, a *Authenticator, login string) {
	t.Helper()
	wrong := rand.Text()
	for range maxThrottleTries {
		_, err := a.CheckPassword(context.Background(), login, wrong, auth.Device{})
		switch {
		case errors.Is(err, auth.ErrThrottled):
			return
		case !errors.Is(err, auth.ErrInvalidCredentials) || errors.Is(err, auth.ErrUnavailable):
			t.Fatalf("authtest.ThrottleLogin: signing in as %q: %v", login, err)
		}
	}
	t.Fatalf("authtest.ThrottleLogin: Config.Limiter permits %d failed attempts for %q", maxThrottleTries, login)
}
