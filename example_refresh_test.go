package auth_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ratchet-go/auth"
)

// A token may be presented again within the retry window, and gets the same
// answer. After it, two parties hold it.
func ExampleAuthenticator_Refresh() {
	clock := newClock()
	a, err := auth.New(auth.Config{
		Issuer: "https://example.com", Audience: []string{"https://api.example.com"},
		Secrets: [][]byte{secret}, Users: newUsers(), Now: clock.Now,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	first := exampleTokens(a)
	second, _ := a.Refresh(ctx, first.Refresh, auth.RefreshOptions{})
	again, _ := a.Refresh(ctx, first.Refresh, auth.RefreshOptions{})
	fmt.Println("the same answer:", second.Refresh == again.Refresh)

	clock.advance(time.Minute)
	_, err = a.Refresh(ctx, first.Refresh, auth.RefreshOptions{})
	fmt.Println("reused:", errors.Is(err, auth.ErrTokenReused))
	_, err = a.Verify(ctx, second.Access)
	fmt.Println("over:", errors.Is(err, auth.ErrSessionRevoked))
	// Output:
	// the same answer: true
	// reused: true
	// over: true
}
