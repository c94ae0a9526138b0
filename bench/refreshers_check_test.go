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

// Nobody is measured broken: each refresh gives another token, the new one is
// good, and the old one is not, nor is any other.
func TestRefreshers_ReplaceTheTokenAtEveryRefresh(t *testing.T) {
	t.Parallel()
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			for _, x := range s.open(t, s.start(t)) {
				if x.name == "ratchet-resting" {
					continue
				}
				c, own := newClient(x), open(x, fresh())
				var seen []string
				for range 50 {
					seen = append(seen, string(own.token))
					c.move(t, own)
					require.NotContains(t, seen, string(own.token), x.name)
				}
				requireAnswer(t, x, c)
				if x.name == "ratchet" {
					require.EqualValues(t, 51, generation(t, own.token), "each of them moves the session")
				}
				require.Nil(t, c.refresh([]byte("else")), x.name)
				require.GreaterOrEqual(t, c.w.status, http.StatusBadRequest, x.name)
				if x.name == "floor" && s.name == "memory" {
					continue // it knows nothing
				}
				require.Nil(t, c.refresh([]byte(seen[48])), x.name)
				require.GreaterOrEqual(t, c.w.status, http.StatusBadRequest, x.name)
			}
		})
	}
}

// requireAnswer looks at the last answer that a client had.
func requireAnswer(t *testing.T, x *refresher, c *client) {
	t.Helper()
	var answer struct {
		Access string `json:"access_token"`
		Type   string `json:"token_type"`
	}
	require.NoError(t, json.Unmarshal(c.w.body, &answer), x.name)
	require.Equal(t, "bearer", strings.ToLower(answer.Type), x.name)
	require.NotEmpty(t, answer.Access, x.name)
	if x.name == "gin-jwt" || x.name == "ratchet" { // signed tokens, which tell the user's claims
		var claims struct {
			Subject  string   `json:"sub"`
			Username string   `json:"username"`
			Roles    []string `json:"roles"`
		}
		payload(t, answer.Access, &claims)
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

func TestResting_AnswersWithTheSameToken(t *testing.T) {
	t.Parallel()
	x := resting()
	c, own := newClient(x), open(x, fresh())
	c.move(t, own)
	require.EqualValues(t, 2, generation(t, own.token), "a session that was never refreshed does not rest")
	for range 5 {
		c.move(t, own)
		require.EqualValues(t, 2, generation(t, own.token))
	}
}

func TestRefresh_AsksARatchetStoreOnce(t *testing.T) {
	t.Parallel()
	for _, s := range counting {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			addr := s.start(t)
			calls, w := s.calls(t, addr), newWire(t, addr)
			for _, x := range s.open(t, w.addr) {
				got := countTrips(t, x, w, calls, 200)
				t.Logf("%s: %s", x.name, got)
				if x.name != "gin-jwt" {
					require.InDelta(t, 1, got.turns, 0.02, x.name)
					require.InDelta(t, 1, got.commands, 0.02, x.name)
				}
			}
		})
	}
}

// The others have the winners that they have.
func TestWinners_OfRatchetAreOne(t *testing.T) {
	t.Parallel()
	often, many := 20, 100
	if os.Getenv("AUTH_LONG") == "1" {
		often, many = rounds, repeats
	}
	for _, c := range contenders {
		t.Run(c.store+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			left, o := remains(t, c.open(t), many), race(t, c.open(t), racers, often)
			t.Logf("%.2f of %d win on average, at most %.0f; %.2f are answered; %d records after %d refreshes", o.average, racers, o.most, o.served, left, many)
			require.GreaterOrEqual(t, o.average, 1.0)
			if c.name == "ratchet" {
				require.InDelta(t, 1, o.most, 0)
				require.InDelta(t, racers, o.served, 0, "all of them have the one answer")
				require.Equal(t, 1, left)
			}
		})
	}
}

// observe fails where a living session is gone, or the others are not. It is
// not parallel: the heap is measured, and the collector switched off.
func TestKeepers_KeepTheLivingAndDropTheRest(t *testing.T) {
	const n = 2_000
	for _, k := range keepers {
		each, _ := weigh(k.build, n)
		require.Greater(t, each, 100.0, k.name)
		if k.name == "fosite" {
			continue
		}
		w := observe(t, k.build, n, true)
		require.NotEmpty(t, w, k.name)
		require.GreaterOrEqual(t, w.at(1), w.at(0.5), k.name)
	}
}

func TestStored_HoldsEachSession(t *testing.T) {
	t.Parallel()
	for _, o := range occupants {
		t.Run(o.store+"/"+o.name, func(t *testing.T) {
			t.Parallel()
			require.Greater(t, stored(t, o, 500), 100.0)
		})
	}
}
