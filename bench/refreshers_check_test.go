package bench

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The benchmarks are fair only if every peer is set up correctly: each refresh
// returns a new refresh token, and only the newest is accepted.
func TestRefreshers_RotateAtEveryRefresh(t *testing.T) {
	t.Parallel()
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for _, x := range s.open(t, s.start(t)) {
				if x.name == "ratchet-cooldown" {
					continue
				}
				c, own := newClient(x), open(x, newUser())
				var seen []string
				for range 50 {
					seen = append(seen, string(own.token))
					c.mustRefresh(t, own)
					require.NotContains(t, seen, string(own.token), x.name)
				}
				requireTokens(t, x, c)
				if x.name == "ratchet" {
					require.EqualValues(t, 51, generation(t, own.token), "each refresh advances the session by one generation")
				}
				require.Nil(t, c.refresh([]byte("else")), x.name)
				require.GreaterOrEqual(t, c.w.status, http.StatusBadRequest, x.name)
				if x.name == "bare" && s.name == "memory" {
					continue // it has no store
				}
				require.Nil(t, c.refresh([]byte(seen[48])), x.name)
				require.GreaterOrEqual(t, c.w.status, http.StatusBadRequest, x.name)
			}
		})
	}
}

// requireTokens checks the last response to a client.
func requireTokens(t *testing.T, x *refresher, c *client) {
	t.Helper()
	var response struct {
		Access string `json:"access_token"`
		Type   string `json:"token_type"`
	}
	require.NoError(t, json.Unmarshal(c.w.body, &response), x.name)
	require.Equal(t, "bearer", strings.ToLower(response.Type), x.name)
	require.NotEmpty(t, response.Access, x.name)
	if x.name == "gin-jwt" || x.name == "ratchet" { // their access tokens are signed and contain claims
		var claims struct {
			Subject  string   `json:"sub"`
			Username string   `json:"username"`
			Roles    []string `json:"roles"`
		}
		payload(t, response.Access, &claims)
		require.Regexp(t, `^user-\d{6}$`, claims.Subject, x.name)
		require.Equal(t, username, claims.Username, x.name)
		require.Equal(t, []string{role}, claims.Roles, x.name)
	}
}

func payload(t *testing.T, token string, to any) {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, to))
}

func generation(t *testing.T, token []byte) int64 {
	t.Helper()
	var claims struct {
		Generation int64 `json:"gen"`
	}
	payload(t, string(token), &claims)
	return claims.Generation
}

func TestCooldown_ReturnsTheSameToken(t *testing.T) {
	t.Parallel()
	x := cooldown()
	c, own := newClient(x), open(x, newUser())
	c.mustRefresh(t, own)
	require.EqualValues(t, 2, generation(t, own.token), "the first refresh advances the session")
	for range 5 {
		c.mustRefresh(t, own)
		require.EqualValues(t, 2, generation(t, own.token))
	}
}

func TestRefresh_OfRatchetTakesOneRoundTrip(t *testing.T) {
	t.Parallel()
	for _, s := range counting {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			addr := s.start(t)
			calls, w := s.calls(t, addr), newProxy(t, addr)
			require.Less(t, countProtected(t, s.ratchet(t, w.addr), w, 20_000).waits, 0.01, "protected requests do not use the store")
			for _, x := range s.open(t, w.addr) {
				got := countRoundTrips(t, x, w, calls, 200)
				t.Logf("%s: %s", x.name, got)
				if x.name != "gin-jwt" {
					require.InDelta(t, 1, got.waits, 0.02, x.name)
					require.InDelta(t, 1, got.commands, 0.02, x.name)
				}
			}
		})
	}
}

// The peers are only logged.
func TestConcurrentRefresh_OfRatchetHasOneSuccessor(t *testing.T) {
	t.Parallel()
	often, many := 20, 100
	if os.Getenv("AUTH_LONG") == "1" {
		often, many = rounds, repeats
	}
	for _, c := range concurrentStores {
		t.Run(c.store+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			left, o := recordsAfter(t, c.open(t), many), refreshAtOnce(t, c.open(t), simultaneous, often)
			t.Logf("%d clients got %.2f different successors on average and %.0f at most; %.2f clients got one; %d records after %d refreshes",
				simultaneous, o.average, o.most, o.served, left, many)
			require.GreaterOrEqual(t, o.average, 1.0)
			if c.name == "ratchet" {
				require.InDelta(t, 1, o.most, 0)
				require.InDelta(t, simultaneous, o.served, 0, "every client gets the successor")
				require.Equal(t, 1, left)
			}
		})
	}
}

// measureLatency fails if a live session is missing or expired sessions remain.
// The test is not parallel: it measures the heap and turns the collector off.
func TestMemoryStores_KeepLiveAndDropExpiredSessions(t *testing.T) {
	const n = 2_000
	for _, k := range memoryStores {
		each, _ := memorySize(k.build, n)
		require.Greater(t, each, 100.0, k.name)
		if k.name == "fosite" {
			continue
		}
		w := measureLatency(t, k.build, n, true)
		require.NotEmpty(t, w, k.name)
		require.GreaterOrEqual(t, w.at(1), w.at(0.5), k.name)
	}
}

func TestDatabaseStores_StoreEachSession(t *testing.T) {
	t.Parallel()
	for _, o := range databaseStores {
		t.Run(o.store+"/"+o.name, func(t *testing.T) {
			t.Parallel()
			require.Greater(t, stored(t, o, 500), 100.0)
		})
	}
}
