package site

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/ratchet-go/auth"
)

// Secrets are those of the two kinds of token. One is never the other;
// auth.Config.Secrets would derive both from one.
type Secrets struct{ Access, Refresh string }

// NewSecrets returns random ones, of 260 bits each.
func NewSecrets() Secrets { return Secrets{rand.Text() + rand.Text(), rand.Text() + rand.Text()} }

// SecretsFrom returns what ACCESS_SECRET and REFRESH_SECRET say, or found is
// false if there is neither. One alone is a mistake, and so is an empty one:
// half a configuration must not silently become another one.
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

// SetKeys makes s the keys of c.
func (s Secrets) SetKeys(c *auth.Config) {
	c.AccessKeys = auth.Keys{auth.HS256([]byte(s.Access))}
	c.RefreshKeys = auth.Keys{auth.HS256([]byte(s.Refresh))}
}
