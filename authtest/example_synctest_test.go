package authtest_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
)

// testStreamEnds is a test. In your application, its name is TestStreamEnds.
func testStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := authtest.New(t, auth.Config{Now: time.Now}) // the clock of the bubble
		var cause error
		stream := func(_ http.ResponseWriter, r *http.Request) {
			claims, _ := auth.FromContext(r.Context())
			ctx, stop := a.SessionContext(r.Context(), claims)
			defer stop()
			<-ctx.Done()
			cause = context.Cause(ctx)
		}
		r := authtest.As(t, a, httptest.NewRequest("GET", "/events", nil), auth.User{ID: "u1"})
		go a.Require()(http.HandlerFunc(stream)).ServeHTTP(httptest.NewRecorder(), r)

		time.Sleep(time.Hour) // takes no time; the stream outlives its access token
		synctest.Wait()
		if cause != nil {
			t.Fatal("the stream ended early:", cause)
		}
		if err := a.RevokeAll(t.Context(), "u1"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !errors.Is(cause, auth.ErrSessionRevoked) {
			t.Errorf("the stream ended with %v, want %v", cause, auth.ErrSessionRevoked)
		}
	})
}

// A test in a synctest bubble, whose clock time.Sleep moves: a stream ends when
// its session is revoked, and not when its access token expires.
func ExampleNew_synctest() {
	all := func(_, _ string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "TestStreamEnds", F: testStreamEnds}}, nil, nil) // as go test does
}
