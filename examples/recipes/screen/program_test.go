package main

import (
	"context"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/password"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

const (
	good   = "correct horse battery staple"
	better = "a new and longer password"
	leak   = "password1234567890"
	padded = "this one is in the padding only"
)

// service stands in for a range service. It knows one leaked password.
type service struct {
	*httptest.Server
	mu     sync.Mutex
	asked  []string                                     // the paths of the requests
	answer func(w http.ResponseWriter, r *http.Request) // replaces the answer
}

func startService(t *testing.T) *service {
	t.Helper()
	s := &service{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.Path)
		answer := s.answer
		s.mu.Unlock()
		if r.Header.Get("Add-Padding") != "true" || r.ContentLength > 0 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if answer != nil {
			answer(w, r)
			return
		}
		prefix := strings.TrimPrefix(r.URL.Path, "/range/")
		list := []string{line0(leak, 42), line0(padded, 0)}
		for i := range 800 {
			list = append(list, line0(prefix+fmt.Sprint(i), i%3))
		}
		_, _ = w.Write([]byte(strings.Join(ofPrefix(prefix, list), "\r\n")))
	}))
	t.Cleanup(s.Close)
	return s
}

// line0 returns the hash of a password, and a count.
func line0(pass string, count int) string {
	return fmt.Sprintf("%X:%d", sha1.Sum([]byte(pass)), count)
}

// ofPrefix returns the lines of an answer. Hashes with another prefix stand for some
// with this one, except those of leak and padded.
func ofPrefix(prefix string, list []string) (lines []string) {
	for i, l := range list {
		if i > 1 || strings.HasPrefix(l, prefix) {
			lines = append(lines, l[5:])
		}
	}
	return lines
}

func (s *service) replace(answer func(w http.ResponseWriter, r *http.Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *service) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// post returns the status, and the error and the access token of the body.
func post(t *testing.T, url, access string, fields map[string]string) (status int, code, token string) {
	t.Helper()
	text, err := json.Marshal(fields)
	require.NoError(t, err)
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(string(text)))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	if access != "" {
		r.Header.Set("Authorization", "Bearer "+access)
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	var body struct {
		Error  string
		Access string `json:"access_token"`
	}
	if resp.StatusCode != http.StatusNoContent {
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&body))
	}
	return resp.StatusCode, body.Error, body.Access
}

func TestProgram_RefusesLeakedPasswords(t *testing.T) {
	t.Parallel()
	s := startService(t)
	p := exampletest.Start(t, nil, "-addr", "127.0.0.1:0", "-range", s.URL+"/range/")
	signUp := func(login, pass string) (int, string, string) {
		return post(t, p.URL+"/signup", "", map[string]string{"login": login, "password": pass})
	}
	status, code, _ := signUp("ada", "short")
	require.Equal(t, []any{422, "password_short"}, []any{status, code})
	require.Empty(t, s.take(), "a short password is not sent anywhere")
	status, code, _ = signUp("ada", leak)
	require.Equal(t, []any{422, "password_leaked"}, []any{status, code})
	require.Equal(t, []string{"/range/" + line0(leak, 0)[:5]}, s.take(), "the service learns 5 of 40 digits")
	status, code, access := signUp("ada", good)
	require.Equal(t, []any{200, ""}, []any{status, code})
	status, _, _ = signUp("eve", padded)
	require.Equal(t, 200, status, "padding does not count")
	status, code, _ = signUp("ADA ", better)
	require.Equal(t, []any{409, "login_taken"}, []any{status, code})
	require.Len(t, s.take(), 3)

	change := func(current, next string) (int, string) {
		status, code, _ := post(t, p.URL+"/auth/password", access, map[string]string{"current_password": current, "new_password": next})
		return status, code
	}
	for _, tt := range []struct {
		current, next string
		status        int
		code          string
	}{
		{"wrong", leak, 403, "invalid_credentials"},
		{good, leak, 422, "password_leaked"},
		{good, "short", 422, "password_short"},
		{good, good, 422, "password_refused"},
		{good, better, 204, ""},
	} {
		status, code := change(tt.current, tt.next)
		require.Equal(t, tt.status, status, tt)
		require.Equal(t, tt.code, code)
	}
	require.Len(t, s.take(), 2, "a wrong password asks nothing")
	for pass, want := range map[string]int{good: 401, better: 200} {
		status, _, _ := post(t, p.URL+"/auth/login", "", map[string]string{"login": "ada", "password": pass})
		require.Equal(t, want, status)
	}
	require.Empty(t, s.take(), "a login asks nothing")

	s.Close() // an outage prevents nothing
	status, code = change(better, leak)
	require.Equal(t, []any{204, ""}, []any{status, code})
	require.Eventually(t, func() bool {
		return strings.Contains(p.Output(), "Hasher.Screen failed, so a new password was accepted without it")
	}, 10*time.Second, 10*time.Millisecond)
	require.NotContains(t, p.Output(), line0(leak, 0)[:5])
}

// Whatever is not the answer of a range service is an error, which accepts the password.
func TestScreen_AcceptsNoOtherAnswer(t *testing.T) {
	t.Parallel()
	s := startService(t)
	check := newScreen(s.URL + "/range/").check
	text := func(body string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
	}
	other := line0("x", 1)[5:]
	long := strings.Repeat(other[:36]+strings.Repeat("0", 27)+"\n", maxAnswer/64) // the limit is at the end of a line
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"status 500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"status 204": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/range/00000" {
				http.Redirect(w, r, "/range/00000", http.StatusFound)
				return
			}
			_, _ = w.Write([]byte(other))
		},
		"page":        text("<html>sign in to this network</html>"),
		"empty":       text(""),
		"lower case":  text(strings.ToLower(other)),
		"whole hash":  text(line0(leak, 1)),
		"no count":    text(other[:35]),
		"long line":   text(strings.Repeat("A", 1000)),
		"long answer": text(long + long),
		"endless answer": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(other + "\n"))
			}
		},
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(other + "\r\n"))
		},
	} {
		s.replace(answer)
		err := check(t.Context(), leak)
		require.Error(t, err, name)
		require.NotErrorIs(t, err, password.ErrRefused, name)
		require.NotContains(t, err.Error(), line0(leak, 0)[:5], name)
	}
	s.replace(text(other))
	require.NoError(t, check(t.Context(), leak))
	s.replace(text(other + "\r\n" + line0(leak, 3)[5:]))
	require.Equal(t, errLeaked, check(t.Context(), leak))
	require.Error(t, newScreen("://").check(t.Context(), good))
}

func TestScreen_IsLimitedInTime(t *testing.T) {
	t.Parallel()
	s := startService(t)
	s.replace(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	h := &password.Hasher{Screen: newScreen(s.URL + "/range/").check, ScreenTimeout: 20 * time.Millisecond}
	err := h.CheckNew(t.Context(), good)
	require.ErrorIs(t, err, password.ErrScreen)
	require.True(t, errors.Is(err, context.DeadlineExceeded))
}
