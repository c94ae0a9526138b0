package auth_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

func TestScript_IsServedStrictly(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	get := func(method string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/auth/auth.js", http.NoBody)
		for i := 0; i < len(header); i += 2 {
			r.Header.Add(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w
	}
	w := get("GET")
	require.Equal(t, 200, w.Code)
	tag := w.Header().Get("ETag")
	require.Regexp(t, `^"[\w-]{16}"$`, tag)
	want := http.Header{
		"Content-Type": {"text/javascript; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"}, "Cache-Control": {"no-cache"},
		"Cross-Origin-Resource-Policy": {"cross-origin"}, "Etag": {tag},
	}
	require.Equal(t, want, w.Header())
	require.True(t, strings.Contains(w.Body.String(), "export function createClient("))
	w = get("HEAD")
	require.Equal(t, 200, w.Code)
	require.Equal(t, want, w.Header())

	for _, tags := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		w = get("GET", "If-None-Match", tags)
		require.Equal(t, 304, w.Code, tags)
		require.Empty(t, w.Body.String())
		require.Equal(t, tag, w.Header().Get("ETag"))
	}
	require.Equal(t, 200, get("GET", "If-None-Match", `"x"`).Code)
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		w = get(method)
		require.Equal(t, 405, w.Code, method)
		require.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
		require.Equal(t, "application/json; charset=utf-8", w.Header().Get("Content-Type"))
	}
}

func TestScript_KnowsTheRetryWindow(t *testing.T) {
	t.Parallel()
	tags := map[string]string{}
	for window, want := range map[time.Duration]string{
		0: "30000", 12 * time.Second: "12000", 1500 * time.Millisecond: "1500",
		-1: "30000", // no window: after this time, a request is still given up
	} {
		a := authtest.New(t, auth.Config{RetryWindow: window})
		w := httptest.NewRecorder()
		a.ScriptHandler().ServeHTTP(w, httptest.NewRequest("GET", "/auth.js", http.NoBody))
		require.True(t, strings.Contains(w.Body.String(), "\nconst WINDOW = "+want+";"), "%v", window)
		require.Equal(t, 1, strings.Count(w.Body.String(), "WINDOW = "))
		tags[want] = w.Header().Get("ETag")
	}
	require.Len(t, tags, 3)
	require.NotEqual(t, tags["12000"], tags["1500"], "the ETag must change with the content")
}

func TestScript_IsSmall(t *testing.T) {
	t.Parallel()
	a := authtest.New(t, auth.Config{})
	w := httptest.NewRecorder()
	a.ScriptHandler().ServeHTTP(w, httptest.NewRequest("GET", "/auth.js", http.NoBody))
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	require.NoError(t, err)
	_, err = z.Write(w.Body.Bytes())
	require.NoError(t, err)
	require.NoError(t, z.Close())
	t.Logf("auth.js: %d bytes, %d compressed", w.Body.Len(), b.Len())
	require.LessOrEqual(t, b.Len(), 4096)
	source, err := os.ReadFile("js/auth.js")
	require.NoError(t, err)
	require.True(t, w.Body.String() == string(source), "the file must be served as it is")
}
