package authclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

func refreshes(s *server) []seen { return s.take("/auth/refresh") }

func TestTransport_RefreshesWhenTheTokenHasExpired(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		for range 10 {
			before := stored(t, tr)
			requireAda(t, tr)
			require.Empty(t, refreshes(s))
			time.Sleep(15 * time.Minute)
			requireAda(t, tr)
			require.Len(t, refreshes(s), 1)
			now := stored(t, tr)
			require.NotEqual(t, before.Refresh, now.Refresh)
			require.NotEqual(t, before.Access, now.Access)
			require.Empty(t, now.RetryKey)
		}
		sessions, err := s.Sessions(t.Context(), "u1")
		require.NoError(t, err)
		require.Len(t, sessions, 1)
		require.EqualValues(t, 11, sessions[0].Generation)
	})
}

func TestTransport_RefreshesAheadOfExpiry(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		time.Sleep(15*time.Minute*8/10 - time.Second)
		requireAda(t, tr)
		require.Empty(t, refreshes(s))
		time.Sleep(15 * time.Minute / 10)
		requireAda(t, tr)
		require.Len(t, refreshes(s), 1)
	})
}

func TestTransport_RefreshAheadIsAtARandomTime(t *testing.T) {
	t.Parallel()
	tr, err := New(Config{BaseURL: base})
	require.NoError(t, err)
	now, times := time.Now(), map[time.Duration]bool{}
	for range 1000 {
		ahead := tr.stateOf(answer{ExpiresIn: 1000}, now)
		require.Equal(t, 1000*time.Second, ahead.ExpiresAt.Sub(now))
		d := ahead.RefreshAt.Sub(now)
		require.True(t, d > 800*time.Second && d <= 900*time.Second, d)
		times[d.Round(10*time.Second)] = true
	}
	require.Len(t, times, 11)
}

// The server ends the access token early, and says so by a 401.
func TestTransport_RefreshesWhenTheServerAsksForIt(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		for _, body := range []string{"", "a body that can be sent again"} {
			tr, _ := s.client(t)
			time.Sleep(2 * time.Second)
			require.NoError(t, s.ExpireAccess(t.Context(), "u1"))
			req := newRequest(t, http.MethodPost, page, strings.NewReader(body))
			status, text, err := do(t, tr, req)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, status)
			require.Equal(t, "ada "+body, text)
			require.Len(t, refreshes(s), 1)
			require.Len(t, s.take("/api/me"), 2)
		}
	})
}

func TestTransport_RepeatsARequestOnlyOnce(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		s.handler.(*http.ServeMux).HandleFunc("/always", func(w http.ResponseWriter, r *http.Request) {
			auth.DefaultOnError(w, r, auth.ErrTokenExpired)
		})
		time.Sleep(time.Second)
		status, text, err := get(t, tr, "https://example.com/always")
		require.NoError(t, err)
		require.Equal(t, http.StatusUnauthorized, status)
		require.Contains(t, text, `"action":"refresh"`)
		require.Len(t, s.take("/always"), 2)
		require.Len(t, refreshes(s), 1)
	})
}

// A body that can be read only once cannot be sent again. The tokens are refreshed
// all the same, so the next request succeeds.
func TestTransport_ReturnsTheResponseIfTheBodyCannotBeSentAgain(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		time.Sleep(2 * time.Second)
		require.NoError(t, s.ExpireAccess(t.Context(), "u1"))
		req := newRequest(t, http.MethodPost, page, struct{ *strings.Reader }{strings.NewReader("once")})
		require.Nil(t, req.GetBody)
		status, text, err := do(t, tr, req)
		require.NoError(t, err)
		require.Equal(t, http.StatusUnauthorized, status)
		require.Contains(t, text, `"action":"refresh"`)
		require.Len(t, s.take("/api/me"), 1)
		requireAda(t, tr)
		require.Len(t, refreshes(s), 1)
	})
}

// Only an action "refresh" in JSON is followed: the session of these responses goes
// on, or they are of something else.
func TestTransport_ReturnsOtherResponsesAsTheyAre(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		long := `{"x":"` + strings.Repeat("x", 2*maxBody) + `","action":"refresh"}`
		for _, tt := range []struct {
			status    int
			typ, body string
		}{
			{401, "application/json", `{"error":"insufficient_user_authentication","action":"login"}`},
			{401, "text/plain", `{"action":"refresh"}`},
			{401, "application/json", `not JSON`},
			{401, "application/json", long},
			{403, "application/json", `{"action":"refresh"}`},
			{503, "application/json", `{"action":"refresh"}`},
			{302, "application/json", `{}`},
		} {
			answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", tt.typ)
				w.WriteHeader(tt.status)
				fmt.Fprint(w, tt.body)
			})
			path := fmt.Sprintf("/answer/%d/%d", tt.status, len(tt.body))
			s.handler.(*http.ServeMux).Handle(path, answer)
			status, text, err := get(t, tr, "https://example.com"+path)
			require.NoError(t, err)
			require.Equal(t, tt.status, status)
			require.Equal(t, tt.body, text)
		}
		require.Empty(t, refreshes(s))
	})
}

func TestTransport_ConcurrentRequestsShareOneRefresh(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		for round, makeOld := range []func(){
			func() { time.Sleep(time.Hour) }, // expired
			func() { time.Sleep(5 * time.Minute); require.NoError(t, s.ExpireAccess(t.Context(), "u1")) }, // ended
		} {
			makeOld()
			var all sync.WaitGroup
			for range 100 {
				all.Go(func() {
					if status, _, err := get(t, tr, page); status != http.StatusOK || err != nil {
						t.Errorf("round %d: status %d, %v", round, status, err)
					}
				})
			}
			all.Wait()
			require.Len(t, refreshes(s), 1)
		}
	})
}

func TestTransport_CanceledRequestDoesNotEndTheSharedRefresh(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		time.Sleep(time.Hour)
		release := make(chan struct{})
		s.onRefresh(func(_ http.ResponseWriter, _ *http.Request, serve func()) { <-release; serve() })
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 2)
		go func() {
			_, _, err := do(t, tr, newRequest(t, http.MethodGet, page, nil).WithContext(ctx))
			errs <- err
		}()
		synctest.Wait() // the refresh of the first request waits for the server
		go func() {
			_, _, err := get(t, tr, page)
			errs <- err
		}()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-errs, context.Canceled)
		close(release)
		require.NoError(t, <-errs)
		require.Len(t, refreshes(s), 1)
		require.Len(t, s.take("/api/me"), 1)
	})
}

func stuck(_ http.ResponseWriter, r *http.Request, _ func()) {
	<-r.Context().Done()
	panic("lost")
}

func TestTransport_StuckRefreshDoesNotHoldRequests(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		s.onRefresh(stuck)
		time.Sleep(14 * time.Minute) // the token is still valid
		short, cancelShort := context.WithTimeout(t.Context(), time.Second)
		defer cancelShort()
		started := time.Now()
		_, _, err := do(t, tr, newRequest(t, http.MethodGet, page, nil).WithContext(short))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(started))
		time.Sleep(45 * time.Second) // the refresh was given up, and its failure is some time ago
		require.Len(t, refreshes(s), 1)
		s.take("/api/me")
		for _, wait := range []time.Duration{patience, 0, 0} {
			begin := time.Now()
			requireAda(t, tr)
			require.Equal(t, wait, time.Since(begin))
		}
		require.Len(t, refreshes(s), 1)
		time.Sleep(2 * time.Minute) // it has expired, and the refresh was given up
		require.Empty(t, refreshes(s))

		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, _, err = do(t, tr, newRequest(t, http.MethodGet, page, nil).WithContext(ctx))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(begin))
		_, _, err = get(t, tr, page)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, defaultWindow, time.Since(begin), "a refresh is given up after a window")
		require.Len(t, refreshes(s), 1)
		s.onRefresh(nil)
		requireAda(t, tr)
	})
}

// After a failure, requests with a valid token do not ask for a refresh each time.
func TestTransport_RestsAfterARefreshThatFailed(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		s.onRefresh(func(w http.ResponseWriter, _ *http.Request, _ func()) { w.WriteHeader(http.StatusInternalServerError) })
		time.Sleep(14 * time.Minute)
		for range 9 {
			requireAda(t, tr)
			time.Sleep(time.Second)
		}
		require.Len(t, refreshes(s), 1)
		time.Sleep(4 * time.Second)
		requireAda(t, tr)
		require.Len(t, refreshes(s), 1)
	})
}

// keyOf returns the value of the header Refresh-Key.
func keyOf(r seen) string { return r.header.Get("Refresh-Key") }

func TestRetryKey_IsSavedBeforeTheTokenIsSent(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		var saved []state
		s.onRefresh(func(_ http.ResponseWriter, _ *http.Request, serve func()) {
			saved = append(saved, stored(t, tr))
			serve()
		})
		keys := map[string]bool{}
		for range 3 {
			time.Sleep(time.Hour)
			requireAda(t, tr)
			sent := refreshes(s)
			require.Len(t, sent, 1)
			last := saved[len(saved)-1]
			require.Len(t, last.RetryKey, 43)
			require.Equal(t, digestOf(last.RetryKey), keyOf(sent[0]))
			require.Equal(t, last.Refresh, sent[0].header.Get("Refresh-Token"))
			require.Empty(t, sent[0].body)
			keys[last.RetryKey] = true
			require.Empty(t, stored(t, tr).RetryKey)
		}
		require.Len(t, keys, 3, "a key belongs to one token")
	})
}

// The response is lost, and the refresh is repeated much later, by another process.
func TestRetryKey_LostResponseIsAskedForAgainHoweverLate(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, store := s.client(t)
		time.Sleep(time.Hour)
		s.onRefresh(lose)
		_, _, err := get(t, tr, page)
		require.ErrorIs(t, err, errLost)
		first := refreshes(s)
		require.True(t, strings.HasPrefix(keyOf(first[0]), "sha256="))
		key := stored(t, tr).RetryKey
		for _, again := range first[1:] {
			require.Equal(t, key, keyOf(again))
		}
		require.Greater(t, len(first), 1)

		time.Sleep(3 * 24 * time.Hour)
		s.onRefresh(nil)
		other, err := New(Config{BaseURL: base, Base: s, Store: store})
		require.NoError(t, err)
		requireAda(t, other)
		late := refreshes(s)
		require.Len(t, late, 1)
		require.Equal(t, key, keyOf(late[0]), "the key itself")
		require.Equal(t, first[0].header.Get("Refresh-Token"), late[0].header.Get("Refresh-Token"))
		require.Empty(t, stored(t, tr).RetryKey)
		requireAda(t, tr)
	})
}

// While the session does not rotate, the token and its key stay.
func TestRetryKey_StaysWithAResponseOfTheSameGeneration(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		time.Sleep(time.Hour)
		requireAda(t, tr)
		before := stored(t, tr)
		time.Sleep(2 * time.Second)
		require.NoError(t, s.ExpireAccess(t.Context(), "u1"))
		requireAda(t, tr)
		cooling := stored(t, tr)
		require.Equal(t, before.Refresh, cooling.Refresh)
		require.NotEqual(t, before.Access, cooling.Access)
		require.NotEmpty(t, cooling.RetryKey)
		time.Sleep(time.Hour)
		requireAda(t, tr)
		sent := refreshes(s)
		require.Equal(t, cooling.RetryKey, keyOf(sent[len(sent)-1]), "a further request of this token")
		require.Empty(t, stored(t, tr).RetryKey)
	})
}

func TestTransport_KeepsTokenAndKeyAfterAnyOtherResponse(t *testing.T) {
	answer := func(status int, body string) func(http.ResponseWriter, *http.Request, func()) {
		return func(w http.ResponseWriter, _ *http.Request, _ func()) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	for name, respond := range map[string]func(http.ResponseWriter, *http.Request, func()){
		"503":            unavailable,
		"400":            answer(400, `{"error":"invalid_request"}`),
		"403":            answer(403, `{"error":"cross_origin"}`),
		"404":            answer(404, ""),
		"429":            answer(429, `{"error":"too_many_attempts"}`),
		"500":            answer(500, `{"error":"server_error"}`),
		"502 of a proxy": answer(502, "<html>"),
		"307": func(w http.ResponseWriter, r *http.Request, _ func()) {
			http.Redirect(w, r, "https://evil.example", http.StatusTemporaryRedirect)
		},
		"204":             answer(204, ""),
		"200 cut off":     answer(200, `{"access_token":"a","refresh_token":"r","rotat`),
		"200 of a portal": answer(200, "<html>sign in to the network</html>"),
		"200 without":     answer(200, `{"expires_in":900,"rotated":true}`),
		"lost":            lose,
		"stuck":           stuck,
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(t *testing.T, s *server) {
				tr, _ := s.client(t)
				before := stored(t, tr)
				time.Sleep(time.Hour)
				s.onRefresh(respond)
				_, _, err := get(t, tr, page)
				require.Error(t, err)
				require.NotErrorIs(t, err, ErrSignedOut)
				require.Equal(t, 1, strings.Count(err.Error(), "authclient:"), err)
				now := stored(t, tr)
				require.NotEmpty(t, now.RetryKey)
				before.RetryKey = now.RetryKey
				require.Equal(t, before, now)
				for _, r := range s.requests {
					require.True(t, strings.HasPrefix(r.url, "https://example.com/"), r.url)
				}
				s.onRefresh(nil)
				time.Sleep(time.Hour)
				requireAda(t, tr)
			})
		})
	}
}

func TestTransport_401DropsTheTokens(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		require.NoError(t, s.RevokeAll(t.Context(), "u1"))
		status, body, err := get(t, tr, page)
		require.NoError(t, err)
		require.Equal(t, http.StatusUnauthorized, status)
		require.Contains(t, body, `"action":"login"`)
		time.Sleep(14 * time.Minute) // the access token has not expired
		_, _, err = get(t, tr, page)
		require.ErrorIs(t, err, ErrSignedOut)
		refusal, ok := errors.AsType[*Error](err)
		require.True(t, ok)
		require.Equal(t, "revoked", refusal.Reason)
		require.Equal(t, "login", refusal.Action)
		require.Zero(t, stored(t, tr))
		s.requests = nil
		_, _, err = get(t, tr, page)
		require.ErrorIs(t, err, ErrSignedOut)
		require.Empty(t, s.requests)
	})
}

// A gateway in front of the server may ask for credentials of its own.
func TestTransport_401OfAProxyKeepsTheTokens(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		time.Sleep(time.Hour)
		for _, body := range []string{"<html>", "{}", `{"error":"unauthorized"}`, `{"action":1}`} {
			s.onRefresh(func(w http.ResponseWriter, _ *http.Request, _ func()) {
				w.Header().Set("WWW-Authenticate", "Basic realm=proxy")
				http.Error(w, body, http.StatusUnauthorized)
			})
			_, _, err := get(t, tr, page)
			require.NotErrorIs(t, err, ErrSignedOut, body)
			require.Equal(t, http.StatusUnauthorized, refusalOf(t, err).Status)
		}
		s.onRefresh(nil)
		requireAda(t, tr)
	})
}

// The hook of the Store fails: the old token and its key are kept, and nothing uses
// the new tokens.
func TestTransport_KeepsTheOldTokensIfTheNewOnesAreNotSaved(t *testing.T) {
	disk := errors.New("the disk of a test is full")
	for saved := range 2 { // the key is not saved, or the tokens are not saved
		for _, valid := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d saved, token valid %t", saved, valid), func(t *testing.T) {
				play(t, func(t *testing.T, s *server) {
					tr, store := s.client(t)
					before := stored(t, tr)
					store.failAfter(saved, disk)
					time.Sleep(14 * time.Minute)
					if valid {
						requireAda(t, tr)
						require.Equal(t, "Bearer "+before.Access, s.take("/api/me")[0].header.Get("Authorization"))
					} else {
						time.Sleep(time.Hour)
						_, _, err := get(t, tr, page)
						require.ErrorIs(t, err, disk)
						require.NotErrorIs(t, err, ErrSignedOut)
						require.Empty(t, s.take("/api/me"))
					}
					sent := refreshes(s)
					require.Len(t, sent, saved, "nothing is sent before the key is saved")
					now := stored(t, tr)
					require.Equal(t, before.Refresh, now.Refresh)
					require.Equal(t, before.Access, now.Access)
					require.Equal(t, saved == 1, now.RetryKey != "")

					time.Sleep(5 * time.Hour)
					store.failAfter(0, nil)
					requireAda(t, tr)
					if saved == 1 {
						require.Equal(t, now.RetryKey, keyOf(refreshes(s)[0]), "it is a late retry")
					}
					time.Sleep(5 * time.Hour)
					requireAda(t, tr)
				})
			})
		}
	}
}

// A response is applied only while its token is the stored one.
func TestTransport_IgnoresAResponseToATokenThatWasReplaced(t *testing.T) {
	for name, respond := range map[string]func(http.ResponseWriter, *http.Request, func()){
		"200": func(_ http.ResponseWriter, _ *http.Request, serve func()) { serve() },
		"401": func(w http.ResponseWriter, r *http.Request, _ func()) {
			auth.DefaultOnError(w, r, auth.ErrSessionRevoked)
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(t *testing.T, s *server) {
				tr, _ := s.client(t)
				time.Sleep(time.Hour)
				var tokens auth.Tokens
				s.onRefresh(func(w http.ResponseWriter, r *http.Request, serve func()) {
					tokens = s.signIn(t, tr) // by another process
					respond(w, r, serve)
				})
				requireAda(t, tr)
				require.Equal(t, tokens.Refresh, stored(t, tr).Refresh)
				require.Equal(t, "Bearer "+tokens.Access, s.take("/api/me")[0].header.Get("Authorization"))
				require.Len(t, refreshes(s), 1)
			})
		})
	}
}

func TestTransport_UsesTheTokensOfAnotherProcess(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, store := s.client(t)
		other, err := New(Config{BaseURL: base, Base: s, Store: store})
		require.NoError(t, err)
		for range 3 {
			time.Sleep(time.Hour)
			requireAda(t, other)
			requireAda(t, tr)
			require.Len(t, refreshes(s), 1)
		}
		// Both present the same token: they send the same key.
		time.Sleep(time.Hour)
		var both sync.WaitGroup
		both.Add(2)
		s.onRefresh(func(_ http.ResponseWriter, _ *http.Request, serve func()) {
			both.Done()
			both.Wait()
			serve()
		})
		var requests sync.WaitGroup
		for _, tr := range []*Transport{tr, other} {
			requests.Go(func() {
				if status, _, err := get(t, tr, page); status != http.StatusOK || err != nil {
					t.Errorf("status %d, %v", status, err)
				}
			})
		}
		requests.Wait()
		sent := refreshes(s)
		require.Len(t, sent, 2)
		keys := []string{keyOf(sent[0]), keyOf(sent[1])}
		slices.Sort(keys) // the key is shorter than its digest with the prefix
		slices.SortFunc(keys, func(a, b string) int { return len(a) - len(b) })
		require.Equal(t, digestOf(keys[0]), keys[1])
		s.onRefresh(nil)
		time.Sleep(time.Hour)
		requireAda(t, tr)
	})
}

func TestTransport_FollowsRetryAfterWithinLimits(t *testing.T) {
	tests := 0
	for value, limits := range map[string][2]time.Duration{
		"":     {time.Second, 2 * time.Second},
		"0":    {time.Second, 2 * time.Second},
		"3":    {3 * time.Second, 4 * time.Second},
		"3600": {10 * time.Second, 13 * time.Second},
		"soon": {time.Second, 2 * time.Second},
		"-1":   {time.Second, 2 * time.Second},
	} {
		status := http.StatusBadGateway + tests%3 // 502, 503 or 504
		tests++
		t.Run(value, func(t *testing.T) {
			play(t, func(t *testing.T, s *server) {
				tr, _ := s.client(t)
				time.Sleep(time.Hour)
				var refused atomic.Bool
				s.onRefresh(func(w http.ResponseWriter, r *http.Request, serve func()) {
					if refused.Swap(true) {
						serve()
						return
					}
					if value != "" {
						w.Header().Set("Retry-After", value)
					}
					w.WriteHeader(status)
				})
				begin := time.Now()
				requireAda(t, tr)
				took := time.Since(begin)
				require.True(t, took >= limits[0] && took <= limits[1], took)
				require.Len(t, refreshes(s), 2)
			})
		})
	}
}

// During an outage, the refreshes become rare, and end within a window.
func TestTransport_RepeatsARefreshForAWindow(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		time.Sleep(time.Hour)
		s.onRefresh(unavailable)
		begin := time.Now()
		_, _, err := get(t, tr, page)
		refusal, ok := errors.AsType[*Error](err)
		require.True(t, ok, err)
		require.Equal(t, http.StatusServiceUnavailable, refusal.Status)
		require.Less(t, time.Since(begin), defaultWindow)
		n := len(refreshes(s))
		require.True(t, n >= 4 && n <= 6, n)

		// A request that does not wait as long says why it waited.
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, _, err = do(t, tr, newRequest(t, http.MethodGet, page, nil).WithContext(ctx))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, err, "authclient: the server responded with status 503: temporarily_unavailable: try again; "+
			"context deadline exceeded while waiting for the next attempt")
		time.Sleep(time.Minute)
	})
}

// A refresh is repeated only after the previous attempt has ended.
func TestTransport_NeverOvertakesItsOwnRefresh(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		var inProgress atomic.Int32
		tr.base = roundTripper(func(r *http.Request) (*http.Response, error) {
			if inProgress.Add(1) != 1 {
				t.Error("two refreshes at once")
			}
			defer inProgress.Add(-1)
			return s.RoundTrip(r)
		})
		s.onRefresh(stuck)
		time.Sleep(time.Hour)
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, _, err := do(t, tr, newRequest(t, http.MethodGet, page, nil).WithContext(ctx))
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		require.InDelta(t, 100.0/30, len(refreshes(s)), 1)
		time.Sleep(time.Minute)
	})
}

// A response that arrives at the end of the window is saved, although that takes longer.
// The access token's lifetime counts from before the request, so the time that the
// response was on its way does not make it longer.
func TestTransport_SavesALateResponse(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, store := s.client(t)
		tr.store = slowStore{store, 2 * time.Second}
		time.Sleep(time.Hour)
		asked := time.Now().Add(2 * time.Second) // after the key was saved
		s.onRefresh(func(_ http.ResponseWriter, _ *http.Request, serve func()) {
			serve()
			time.Sleep(27 * time.Second)
		})
		requireAda(t, tr)
		require.Equal(t, 15*time.Minute, stored(t, tr).ExpiresAt.Sub(asked))
		require.Equal(t, asked.Add(29*time.Second), time.Now())
	})
}

// slowStore is a Store whose Update takes a while.
type slowStore struct {
	Store
	takes time.Duration
}

func (s slowStore) Update(ctx context.Context, f func([]byte) ([]byte, error)) error {
	select {
	case <-time.After(s.takes):
		return s.Store.Update(ctx, f)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A refresh that finds the tokens of another process sends nothing, and writes nothing.
func TestTransport_DoesNotRefreshWhatAnotherProcessHasRefreshed(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, store := s.client(t)
		before := stored(t, tr)
		s.signIn(t, tr)
		var text []byte
		require.NoError(t, store.Update(t.Context(), func(old []byte) ([]byte, error) {
			text = append([]byte(" \n"), old...)
			return text, nil
		}))
		f, _ := tr.start(before.Access)
		<-f.done
		require.NoError(t, f.err)
		require.Empty(t, refreshes(s))
		now, err := store.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, text, now)
	})
}

// A server may return the same access token again, for example within a second. The
// client does not ask for ever.
func TestTransport_AcceptsTheSameAccessTokenAgain(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		now := stored(t, tr)
		time.Sleep(2 * time.Second)
		require.NoError(t, s.ExpireAccess(t.Context(), "u1"))
		s.onRefresh(func(w http.ResponseWriter, _ *http.Request, _ func()) {
			fmt.Fprintf(w, `{"access_token":%q,"expires_in":900,"refresh_token":%q}`, now.Access, now.Refresh)
		})
		status, _, err := get(t, tr, page)
		require.NoError(t, err)
		require.Equal(t, http.StatusUnauthorized, status)
		require.Len(t, s.take("/api/me"), 2)
		require.Len(t, refreshes(s), 2)
	})
}

// A server that does not say how long a token lives decides by its responses.
func TestTransport_WithoutALifetimeTheServerDecides(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, _ := s.client(t)
		require.NoError(t, tr.update(t.Context(), func(s *state) { s.ExpiresAt, s.RefreshAt = time.Time{}, time.Time{} }))
		requireAda(t, tr)
		require.Empty(t, refreshes(s))
		time.Sleep(time.Hour)
		requireAda(t, tr)
		require.Len(t, refreshes(s), 1)
		require.Zero(t, tr.stateOf(answer{}, time.Now()).ExpiresAt)
		require.Zero(t, tr.stateOf(answer{ExpiresIn: -5}, time.Now()).RefreshAt)
		require.True(t, tr.stateOf(answer{ExpiresIn: 1 << 62}, time.Now()).ExpiresAt.Before(time.Now().Add(maxLife+time.Second)))
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// brokenStore is a Store whose Update does what f does.
type brokenStore struct {
	Store
	f func()
}

func (s brokenStore) Update(context.Context, func([]byte) ([]byte, error)) error {
	s.f()
	return nil
}

func TestTransport_PanicOfAStoreIsAnError(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, store := s.client(t)
		time.Sleep(time.Hour)
		tr.store = brokenStore{store, func() { panic(stored(t, tr).Refresh) }}
		_, _, err := get(t, tr, page)
		require.EqualError(t, err, "authclient: a Store or RoundTripper panicked with a string")
		tr.store = brokenStore{store, runtime.Goexit}
		_, _, err = get(t, tr, page)
		require.ErrorIs(t, err, errEnded)
		tr.store = store
		requireAda(t, tr)
	})
}

func TestTransport_TextOfTheStoreThatCannotBeUsed(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		for text, want := range map[string]string{
			"{":                     "authclient: the text in the Store is not that of a Transport; remove it, or sign in again",
			"{}":                    "authclient: the text in the Store is not that of a Transport; remove it, or sign in again",
			`{"refresh_token":[1]}`: "authclient: the text in the Store is not that of a Transport; remove it, or sign in again",
			`{"origin":"https://other.example:443","access_token":"a","refresh_token":"r"}`: "authclient: the Store has the tokens of another server (https://other.example:443); use another Store, or sign in again",
		} {
			tr, store := s.client(t)
			require.NoError(t, store.Update(t.Context(), func([]byte) ([]byte, error) { return []byte(text), nil }))
			s.requests = nil
			_, _, err := get(t, tr, page)
			require.EqualError(t, err, want)
			require.EqualError(t, tr.Logout(t.Context()), want)
			require.ErrorContains(t, tr.update(t.Context(), func(*state) {}), want)
			require.Empty(t, s.requests)
			s.signIn(t, tr)
			requireAda(t, tr)
		}
	})
}

func TestState_UnknownMembersAreIgnored(t *testing.T) {
	play(t, func(t *testing.T, s *server) {
		tr, store := s.client(t)
		require.NoError(t, store.Update(t.Context(), func(old []byte) ([]byte, error) {
			var members map[string]any
			err := json.Unmarshal(old, &members)
			members["of a newer version"] = 1
			text, err2 := json.Marshal(members)
			return text, errors.Join(err, err2)
		}))
		time.Sleep(time.Hour)
		requireAda(t, tr)
	})
}

func TestTransport_RealContention(t *testing.T) {
	t.Parallel()
	s := newServer(t, auth.Config{})
	tr, _ := s.client(t)
	now := func() time.Time { return s.Clock.Now() }
	tr.now = now
	s.signIn(t, tr)
	for range 5 {
		s.Clock.Advance(time.Hour)
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if i%5 == 0 {
					go cancel()
				}
				status, _, err := do(t, tr, newRequest(t, http.MethodGet, page, nil).WithContext(ctx))
				if i%5 != 0 && (err != nil || status != http.StatusOK) {
					t.Errorf("status %d, %v", status, err)
				}
			})
		}
		all.Wait()
	}
	require.Len(t, refreshes(s), 5)
}
