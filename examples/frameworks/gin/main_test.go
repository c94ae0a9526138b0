package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/examples/frameworks/internal/frameworktest"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.TestMode) // does not print the routes
	os.Exit(m.Run())
}

func TestGin_BehavesAsNetHTTP(t *testing.T) {
	t.Parallel()
	frameworktest.Play(t, config(), frameworktest.Handler(routes))
}

// This is the wrong way, which wrap replaces.
func TestGin_WrapHOfRequireRunsTheHandlerOfARefusedRequest(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	ran := false
	r := gin.New()
	r.GET("/me", gin.WrapH(a.Require()(nothing)), func(c *gin.Context) {
		ran = true
		c.String(http.StatusOK, "the secret")
	})
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/me", nil))
	require.True(t, ran, "gin no longer runs the handler: change the comment on wrap")
	require.Equal(t, http.StatusUnauthorized, w.Code)
	require.Contains(t, w.Body.String(), "the secret", "the client gets the response of the handler after that of Require")
}

func TestGin_RefusedRequestDoesNotRunLaterHandlers(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	ran := 0
	r := gin.New()
	r.Use(wrap(a.Require(auth.Role("admin"))), func(*gin.Context) { ran++ })
	r.GET("/me", func(*gin.Context) { ran++ }, func(*gin.Context) { ran++ })
	for _, roles := range [][]string{{"user"}, {"admin"}} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, authtest.As(t, a, httptest.NewRequest(http.MethodGet, "/me", nil), auth.User{ID: "u1", Roles: roles}))
		require.Equal(t, roles[0] == "admin", w.Code == http.StatusOK)
	}
	require.Equal(t, 3, ran, "each handler must run once, for the user who has the role")
}
