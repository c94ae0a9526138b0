package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

// send sends a request and returns the status and the members of the response.
// The status is 0 if there is no response.
func send(t *testing.T, method, to, token string, form url.Values) (int, map[string]any) {
	t.Helper()
	r, err := http.NewRequest(method, to, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var body map[string]any
	if len(text) > 0 {
		require.NoError(t, json.Unmarshal(text, &body), "%s", text)
	}
	return resp.StatusCode, body
}

func TestNodes_BehaveLikeOneServer(t *testing.T) {
	t.Parallel()
	for name, where := range map[string]func(t *testing.T) string{
		"SQLite":     func(t *testing.T) string { return filepath.Join(t.TempDir(), "sessions.db") },
		"Redis":      func(t *testing.T) string { return "redis://" + testserver.Redis(t).Addr + "/0" },
		"PostgreSQL": func(t *testing.T) string { return "postgres://postgres@" + testserver.Postgres(t).Addr + "/postgres" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := where(t)
			secret := []string{"AUTH_SECRET=k7Qm2ZrW9xTb4LsD1hVnE6yPc8UaJg3F"}
			start := func(addr string) *exampletest.Program {
				return exampletest.Start(t, secret, "-addr", addr, "-store", store)
			}
			first, second := start("127.0.0.1:0"), start("127.0.0.1:0")
			signIn := func(node *exampletest.Program) (access, refresh string) {
				t.Helper()
				status, body := send(t, "POST", node.URL+"/auth/login", "", url.Values{"login": {"ada"}, "password": {"correct horse battery staple"}})
				require.Equal(t, 200, status, "%v", body)
				return body["access_token"].(string), body["refresh_token"].(string)
			}
			status, body := send(t, "GET", first.URL+"/health", "", nil)
			require.Equal(t, 200, status)
			require.Equal(t, true, body["ready"])
			require.Contains(t, body, "feed_age_seconds")

			// A session of one node is a session of the other.
			access, refresh := signIn(first)
			status, body = send(t, "GET", second.URL+"/me", access, nil)
			require.Equal(t, 200, status)
			require.Equal(t, "ada", body["name"])
			status, _ = send(t, "POST", second.URL+"/auth/refresh", "", url.Values{"refresh_token": {refresh}})
			require.Equal(t, 200, status)

			// A logout at one node takes effect at the other.
			status, _ = send(t, "POST", first.URL+"/auth/logout", access, nil)
			require.Equal(t, 204, status)
			require.Eventually(t, func() bool {
				status, body := send(t, "GET", second.URL+"/me", access, nil)
				return status == 401 && body["action"] == "login" && body["reason"] == "logout"
			}, 20*time.Second, 5*time.Millisecond)

			// A rolling restart: the nodes restart one after the other.
			access, refresh = signIn(first)
			out, _ := signIn(first)
			status, _ = send(t, "POST", first.URL+"/auth/logout", out, nil)
			require.Equal(t, 204, status)
			for _, node := range []**exampletest.Program{&first, &second} {
				require.NoError(t, (*node).Stop(), (*node).Output())
				*node = start(strings.TrimPrefix((*node).URL, "http://"))
				status, _ = send(t, "GET", (*node).URL+"/me", access, nil)
				require.Equal(t, 200, status)
				status, _ = send(t, "GET", (*node).URL+"/me", out, nil)
				require.Equal(t, 401, status, "a node must know the revocations of before its start when it listens")
			}
			status, _ = send(t, "POST", second.URL+"/auth/refresh", "", url.Values{"refresh_token": {refresh}})
			require.Equal(t, 200, status)
		})
	}
}

// TestNodes_FinishRequestsBeforeTheyStop ends a node while a request is in
// progress.
func TestNodes_FinishRequestsBeforeTheyStop(t *testing.T) {
	t.Parallel()
	node := exampletest.Start(t, []string{"AUTH_SECRET=k7Qm2ZrW9xTb4LsD1hVnE6yPc8UaJg3F"},
		"-addr", "127.0.0.1:0", "-store", filepath.Join(t.TempDir(), "sessions.db"))
	body, write := io.Pipe()
	result := make(chan int, 1)
	go func() {
		resp, err := http.Post(node.URL+"/auth/login", "application/x-www-form-urlencoded", body)
		if err != nil {
			result <- 0
			return
		}
		defer resp.Body.Close()
		result <- resp.StatusCode
	}()
	_, err := io.WriteString(write, "login=ada&")
	require.NoError(t, err)
	stopped := make(chan error, 1)
	require.Eventually(t, func() bool { // the server has read the beginning when a second connection gets a response
		status, _ := send(t, "GET", node.URL+"/health", "", nil)
		return status == 200
	}, 20*time.Second, 5*time.Millisecond)
	go func() { stopped <- node.Stop() }()
	require.Eventually(t, func() bool {
		http.DefaultClient.CloseIdleConnections()
		status, _ := send(t, "GET", node.URL+"/health", "", nil)
		return status == 0 // it accepts no new connection
	}, 20*time.Second, 5*time.Millisecond)
	_, err = io.WriteString(write, "password=correct+horse+battery+staple")
	require.NoError(t, err)
	require.NoError(t, write.Close())
	require.Equal(t, 200, <-result)
	require.NoError(t, <-stopped, node.Output())
}

func TestNodes_RequireASecret(t *testing.T) {
	t.Parallel()
	cmd := testserver.Self(t, "-store", filepath.Join(t.TempDir(), "sessions.db"))
	cmd.Env = append(cmd.Env, "AUTH_SECRET=")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "set AUTH_SECRET")
}
