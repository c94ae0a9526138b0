package jwks_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/jwks"
)

func TestNew_ReportsEveryMistakeWithItsField(t *testing.T) {
	t.Parallel()
	const good = "https://example.com/jwks.json"
	for _, test := range []struct {
		config jwks.Config
		want   string
	}{
		{jwks.Config{}, "jwks: Config.URL is empty"},
		{jwks.Config{URL: "http://example.com/jwks.json"}, "jwks: Config.URL is http; it must be https unless Config.InsecureHTTP is set"},
		{jwks.Config{URL: "HTTP://127.0.0.1/jwks.json"}, "jwks: Config.URL is http; it must be https unless Config.InsecureHTTP is set"},
		{jwks.Config{URL: "file:///etc/jwks.json", InsecureHTTP: true}, "jwks: Config.URL is not https"},
		{jwks.Config{URL: "/jwks.json"}, "jwks: Config.URL is not https"},
		{jwks.Config{URL: "https:///jwks.json"}, "jwks: Config.URL has no host"},
		{jwks.Config{URL: "https://user:hunter2@example.com/"}, "jwks: Config.URL has a user name"},
		{jwks.Config{URL: "https://user:hunter2@exa mple.com/"}, "jwks: Config.URL cannot be parsed"},
		{jwks.Config{URL: good + "#1"}, "jwks: Config.URL has a fragment"},
		{jwks.Config{URL: good, Timeout: -1}, "jwks: Config.Timeout (-1ns) is not between 0 and 1m0s"},
		{jwks.Config{URL: good, Timeout: 5, MinRefresh: 30, MaxStale: time.Millisecond - 1}, "jwks: Config.Timeout (5ns) is less than 1ms; missing time unit?\njwks: Config.MinRefresh (30ns) is less than 1ms; missing time unit?\njwks: Config.MaxStale (999.999µs) is less than 1ms; missing time unit?"},
		{jwks.Config{URL: good, Timeout: time.Hour}, "jwks: Config.Timeout (1h0m0s) is not between 0 and 1m0s"},
		{jwks.Config{URL: good, MinRefresh: time.Millisecond}, "jwks: Config.MinRefresh (1ms) is not between 1s and 1h0m0s"},
		{jwks.Config{URL: good, MinRefresh: 2 * time.Hour}, "jwks: Config.MinRefresh (2h0m0s) is not between 1s and 1h0m0s"},
		{jwks.Config{URL: good, MaxStale: 25 * time.Hour}, "jwks: Config.MaxStale (25h0m0s) exceeds 24h0m0s"},
		{jwks.Config{Timeout: -1, MinRefresh: -1}, "jwks: Config.URL is empty\njwks: Config.Timeout (-1ns) is not between 0 and 1m0s\njwks: Config.MinRefresh (-1ns) is not between 1s and 1h0m0s"},
	} {
		k, err := jwks.New(test.config)
		require.EqualError(t, err, test.want)
		require.Nil(t, k)
		require.False(t, strings.Contains(err.Error(), "hunter2"))
	}
}

func TestNew_AcceptsValidConfigs(t *testing.T) {
	t.Parallel()
	for _, config := range []jwks.Config{
		{URL: "https://example.com/jwks.json?tenant=1"},
		{URL: "HTTPS://example.com:8443/"},
		{URL: "http://127.0.0.1:8080/jwks.json", InsecureHTTP: true},
		{URL: "https://example.com/", MaxStale: -1, MinRefresh: time.Second, Timeout: time.Millisecond, Client: &http.Client{}},
	} {
		_, err := jwks.New(config)
		require.NoError(t, err)
	}
}

// TestNew_DoesNotModifyTheClient: only the copy has the redirect policy.
func TestNew_DoesNotModifyTheClient(t *testing.T) {
	t.Parallel()
	client := &http.Client{}
	_, err := jwks.New(jwks.Config{URL: "https://example.com/", Client: client})
	require.NoError(t, err)
	require.Nil(t, client.CheckRedirect)
}
