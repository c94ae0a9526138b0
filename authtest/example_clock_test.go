package authtest_test

import (
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// testBrowser is a test. In your application, its name is TestBrowser.
func testBrowser(t *testing.T) {
	a := authtest.New(t, auth.Config{Cookies: &auth.Cookies{}})
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /me", a.Require()(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	server := httptest.NewTLSServer(mux) // https, because the cookies are Secure
	defer server.Close()

	// The client keeps cookies, and is signed in.
	base, _ := url.Parse(server.URL)
	client := server.Client()
	client.Jar, _ = cookiejar.New(nil)
	client.Jar.SetCookies(base, authtest.As(t, a, httptest.NewRequest("GET", "/", nil), auth.User{ID: "u1"}).Cookies())

	send := func(method, path string, want int) *http.Response {
		t.Helper()
		r, _ := http.NewRequest(method, server.URL+path, nil)
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s %s: status %d, want %d", method, path, resp.StatusCode, want)
		}
		return resp
	}
	send("GET", "/me", 200)
	a.Clock.Advance(16 * time.Minute) // longer than Config.AccessTTL
	send("GET", "/me", 401)
	authtest.SignedIn(t, a, send("POST", "/auth/refresh", 200))
	send("GET", "/me", 200)
	authtest.SignedOut(t, a, send("POST", "/auth/logout", 204))
	authtest.HasSessions(t, a, "u1") // none
}

// A client that keeps cookies, as a browser does, and a server. The clock moves
// when the test advances it.
func ExampleClock_Advance() {
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "TestBrowser", F: testBrowser}}, nil, nil) // as go test does
}
