package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gofiber/fiber/v3"
	"github.com/gofiber/fiber/v3/middleware/adaptor"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/examples/frameworks/internal/frameworktest"
)

func TestFiber_BehavesAsNetHTTP(t *testing.T) {
	t.Parallel()
	frameworktest.Play(t, config(), func(a *auth.Authenticator, listener net.Listener) error {
		return routes(a).Listener(listener, fiber.ListenConfig{DisableStartupMessage: true})
	})
}

// This is the wrong way, which wrap replaces.
func TestFiber_HTTPMiddlewareLosesTheClaims(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	found := func(middleware fiber.Handler) (found bool) {
		app := fiber.New()
		app.Get("/me", middleware, func(c fiber.Ctx) error {
			_, inContext := auth.FromContext(c.Context())
			_, inRequest := auth.FromContext(c.RequestCtx())
			found = inContext || inRequest
			return nil
		})
		resp, err := app.Test(authtest.As(t, a, httptest.NewRequest(http.MethodGet, "/me", nil), auth.User{ID: "u1"}))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode)
		return found
	}
	require.False(t, found(adaptor.HTTPMiddleware(a.Require())), "the adaptor keeps the claims: change the comment on wrap")
	require.True(t, found(wrap(a.Require())))
}

func TestFiber_WrapKeepsHeadersAndContext(t *testing.T) {
	t.Parallel()
	type key struct{}
	a := authtest.New(t, auth.Config{})
	guard := func(ctx context.Context, _ *auth.Claims) error {
		_, hasAddr := ctx.Value(http.LocalAddrContextKey).(net.Addr) // for Config.TrustUnixPeers
		if ctx.Value(key{}) != "outer" || !hasAddr {
			return auth.ErrForbidden
		}
		return nil
	}
	app := fiber.New()
	app.Use(func(c fiber.Ctx) error {
		c.Vary("Origin")
		c.Set("Access-Control-Allow-Origin", "https://app.example.com")
		c.SetContext(context.WithValue(c.Context(), key{}, "outer"))
		return c.Next()
	})
	app.Get("/me", wrap(a.Require(guard)), func(c fiber.Ctx) error {
		return c.SendString(c.Context().Value(key{}).(string))
	})
	request := httptest.NewRequest(http.MethodGet, "/me", nil)
	for _, want := range []int{http.StatusUnauthorized, http.StatusOK} {
		resp, err := app.Test(request)
		require.NoError(t, err)
		require.Equal(t, want, resp.StatusCode)
		require.Equal(t, []string{"Origin", "Authorization"}, resp.Header.Values("Vary"))
		require.Equal(t, "https://app.example.com", resp.Header.Get("Access-Control-Allow-Origin"))
		authtest.As(t, a, request, auth.User{ID: "u1"})
	}
}
