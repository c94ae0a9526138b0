package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/ratchet-go/auth"
)

// A stream that ends when its session does.
func ExampleVerifier_SessionContext() {
	a := exampleAuthenticator()
	stream := a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		ctx, cancel := a.SessionContext(r.Context(), claims)
		defer cancel()
		// Signed out elsewhere, while the stream is open.
		if err := a.RevokeAll(context.Background(), claims.Subject); err != nil {
			return
		}
		<-ctx.Done()
		fmt.Fprintf(w, "event: end\ndata: %v", context.Cause(ctx))
	}))
	r := httptest.NewRequest(http.MethodGet, "/events", nil)
	r.Header.Set("Authorization", "Bearer "+exampleTokens(a).Access)
	w := httptest.NewRecorder()
	stream.ServeHTTP(w, r)
	fmt.Println(w.Body)
	// Output:
	// event: end
	// data: auth: session revoked
}
