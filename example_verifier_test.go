package auth_test

import (
	"context"
	"fmt"

	"github.com/ratchet-go/auth"
)

// A service that signs nobody in verifies what another one issued. It needs
// the access key and neither users nor a store.
func ExampleNewVerifier() {
	accessKey := auth.HS256([]byte("an access secret of 32 bytes or more"))
	a, err := auth.New(auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://api.example.com"},
		AccessKeys:  auth.Keys{accessKey},
		RefreshKeys: auth.Keys{auth.HS256([]byte("a refresh secret, which stays with 1"))},
		Users:       newUsers(),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	v, err := auth.NewVerifier(auth.VerifierConfig{
		Issuer: "https://example.com", Audience: []string{"https://api.example.com"},
		Keys: auth.Keys{accessKey},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	tokens := exampleTokens(a)
	claims, err := v.Verify(context.Background(), tokens.Access)
	fmt.Println(claims.Subject, err)
	_, err = v.Verify(context.Background(), tokens.Refresh)
	fmt.Println(err)
	// Output:
	// u1 <nil>
	// auth: invalid token: wrong typ
}
