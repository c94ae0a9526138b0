package auth_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

// panickingSigner is a signer that panics, such as the driver of a hardware
// key.
type panickingSigner struct{ ed25519.PrivateKey }

func (panickingSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	panic("a fault of a test")
}

// failingKeys is a KeySource that fails.
type failingKeys struct{ err error }

func (f failingKeys) VerifyKeys(context.Context, string) ([]auth.Key, error) { return nil, f.err }

func TestErrors_NameThePackageOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	inner := fmt.Errorf("a store of a test: %w", auth.ErrSessionExists)
	for name, f := range map[string]func(t *testing.T) ([]auth.Event, error){
		"a user without ID": func(t *testing.T) ([]auth.Event, error) {
			fx := newFixture(t)
			fx.users.change("u1", func(u *auth.User) { u.ID = "" })
			_, err := fx.Login(ctx, "ada", pass, auth.SessionOptions{})
			return fx.events.take(auth.EventFault), err
		},
		"another user": func(t *testing.T) ([]auth.Event, error) {
			fx := newFixture(t)
			fx.users.change("u1", func(u *auth.User) { u.ID = "u9" })
			_, err := fx.StartSession(ctx, "u1", auth.SessionOptions{})
			return fx.events.take(auth.EventFault), err
		},
		"a lookup that panics": func(t *testing.T) ([]auth.Event, error) {
			fx := newFixture(t)
			fx.users.onFind = func() { panic("a fault of a test") }
			_, err := fx.StartSession(ctx, "u1", auth.SessionOptions{})
			return fx.events.take(auth.EventFault), err
		},
		"a store that fails": func(t *testing.T) ([]auth.Event, error) {
			fx := newFixture(t)
			fx.store.failBefore("List", inner)
			_, err := fx.Sessions(ctx, "u1")
			return fx.events.take(auth.EventFault), err
		},
		"a refused login": func(t *testing.T) ([]auth.Event, error) {
			fx := newFixture(t)
			_, err := fx.Login(ctx, "ada", "wrong", auth.SessionOptions{})
			return fx.events.take(auth.EventLoginRefused), err
		},
		"a signer that panics": func(t *testing.T) ([]auth.Event, error) {
			_, private, err := ed25519.GenerateKey(nil)
			require.NoError(t, err)
			fx := newFixture(t, knownKeys, func(c *auth.Config) { c.AccessKeys = auth.Keys{auth.EdDSA(panickingSigner{private})} })
			_, err = fx.StartSession(ctx, "u1", auth.SessionOptions{})
			return fx.events.take(auth.EventFault), err
		},
		"a key source that fails": func(t *testing.T) ([]auth.Event, error) {
			v, err := auth.NewVerifier(auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: failingKeys{auth.ErrUnavailable}})
			require.NoError(t, err)
			_, err = v.Verify(ctx, newFixture(t).login(t).Access)
			return nil, err
		},
		"a canceled wait": func(t *testing.T) ([]auth.Event, error) {
			fx := newFixture(t)
			require.NoError(t, fx.ExpireAccess(ctx, "u1"))
			ended, cancel := context.WithCancelCause(ctx)
			cancel(auth.ErrSessionRevoked)
			return nil, fx.ExpireAccess(ended, "u1")
		},
		"a guard": func(t *testing.T) ([]auth.Event, error) {
			var got error
			fx := newFixture(t, func(c *auth.Config) {
				c.OnError = func(w http.ResponseWriter, _ *http.Request, err error) { got = err }
			})
			refuse := func(context.Context, *auth.Claims) error { return fmt.Errorf("auth: %w", errors.New("no")) }
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer "+fx.login(t).Access)
			fx.Require(refuse)(hello).ServeHTTP(httptest.NewRecorder(), r)
			return nil, got
		},
	} {
		list, err := f(t)
		require.Error(t, err, name)
		texts := []string{err.Error()}
		for _, e := range list {
			texts = append(texts, e.Err.Error())
		}
		for _, text := range texts {
			require.True(t, strings.HasPrefix(text, "auth: "), "%s: %s", name, text)
			require.Equal(t, 1, strings.Count(text, "auth: "), "%s: %s", name, text)
		}
	}
}

func TestErrors_KeepTheTextsOfTheApplication(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	fx.store.failBefore("List", errors.New("proxy: auth: 407: EOF"))
	_, err := fx.Sessions(context.Background(), "u1")
	require.EqualError(t, err, "auth: temporarily unavailable: Store.List: proxy: auth: 407: EOF")

	fx.store.failBefore("List", fmt.Errorf("a store: reading: %w", auth.ErrSessionExists))
	_, err = fx.Sessions(context.Background(), "u1")
	require.EqualError(t, err, "auth: temporarily unavailable: Store.List: a store: reading: session already exists")
	require.ErrorIs(t, err, auth.ErrSessionExists)
}
