package auth_test

import (
	"fmt"
	"time"

	"github.com/ratchet-go/auth"
)

// New reports every mistake in the configuration, with the name of its field.
func ExampleNew_mistakes() {
	_, err := auth.New(mistaken)
	fmt.Println(err)
	// Output:
	// auth: Config.Secrets[0]: the secret is 9 bytes; it must be at least 32; create one with `openssl rand -base64 48`
	// auth: Config.Users is nil; set it to your application's user lookup
	// auth: Config.IdleTTL (1440h0m0s) exceeds Config.SessionTTL 720h0m0s (the default)
}

// mistaken is a configuration with three mistakes.
var mistaken = auth.Config{
	Issuer:   "https://example.com",
	Audience: []string{"https://api.example.com"},
	Secrets:  [][]byte{[]byte("too short")},
	IdleTTL:  60 * 24 * time.Hour,
}
