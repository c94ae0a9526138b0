package auth_test

import (
	"context"
	"fmt"

	"github.com/ratchet-go/auth"
)

// What a page "my devices" does.
func ExampleAuthenticator_Sessions() {
	a := exampleAuthenticator()
	ctx := context.Background()
	var here auth.Tokens
	for _, name := range []string{"phone", "laptop"} {
		here, _ = a.StartSession(ctx, "u1", auth.SessionOptions{Name: name})
	}
	list, _ := a.Sessions(ctx, "u1")
	fmt.Println(len(list), "devices")

	if err := a.RevokeAll(ctx, "u1", here.SessionID); err != nil {
		fmt.Println(err)
		return
	}
	list, _ = a.Sessions(ctx, "u1")
	fmt.Println("left:", list[0].Name())
	// Output:
	// 2 devices
	// left: laptop
}
