package main

import (
	"net/http"
	"net/http/cookiejar"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

func TestProgram_SignsUsersIn(t *testing.T) {
	t.Parallel()
	p := exampletest.Start(t, []string{"AUTH_SECRET=the secret of these tests, 0123456789"}, "-addr", "127.0.0.1:0")
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	b := &browser{t, p.URL, &http.Client{Jar: jar}}
	require.Equal(t, 200, b.signIn("bob", "correct horse battery staple"))
	status, body := b.do(http.MethodGet, "/notes", nil)
	require.Equal(t, 200, status)
	require.Equal(t, "zeta []\n", body)
}
