package auth_test

import (
	"context"
	"fmt"

	"github.com/ratchet-go/auth"
)

// Whoever proved a user's identity by other means, here a passkey, opens the
// session for him.
func ExampleAuthenticator_StartSession() {
	a := exampleAuthenticator()
	tokens, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{AMR: []string{"hwk", "user"}, Name: "Ada's laptop"})
	if err != nil {
		fmt.Println(err)
		return
	}
	claims, err := a.Verify(context.Background(), tokens.Access)
	fmt.Println(claims.Username, claims.AMR, err)
	// Output: ada [hwk user] <nil>
}
