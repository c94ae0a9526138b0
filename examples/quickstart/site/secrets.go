package site

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/ratchet-go/auth"
)

// Secrets are the secrets for access and refresh tokens. They must differ. A single
// secret is possible too: auth.Config.Secrets derives both keys from it.
type Secrets struct{ Access, Refresh string }

// NewSecrets returns random secrets of 260 bits each.
func NewSecrets() Secrets { return Secrets{rand.Text() + rand.Text(), rand.Text() + rand.Text()} }

// SecretsFrom returns the values of ACCESS_SECRET and REFRESH_SECRET. If neither is
// set, found is false. It returns an error if only one is set or one is empty, so
// that an incomplete configuration does not silently use random keys.
func SecretsFrom(lookup func(string) (string, bool)) (s Secrets, found bool, err error) {
	access, hasAccess := lookup("ACCESS_SECRET")
	refresh, hasRefresh := lookup("REFRESH_SECRET")
	if !hasAccess && !hasRefresh {
		return Secrets{}, false, nil
	}
	var errs []error
	for _, v := range [][2]string{{"ACCESS_SECRET", access}, {"REFRESH_SECRET", refresh}} {
		if v[1] == "" {
			errs = append(errs, fmt.Errorf("%s is missing: set both ACCESS_SECRET and REFRESH_SECRET, or neither", v[0]))
		}
	}
	return Secrets{access, refresh}, true, errors.Join(errs...)
}

// SetKeys sets the keys of c to s.
func (s Secrets) SetKeys(c *auth.Config) {
	c.AccessKeys = auth.Keys{auth.HS256([]byte(s.Access))}
	c.RefreshKeys = auth.Keys{auth.HS256([]byte(s.Refresh))}
}
