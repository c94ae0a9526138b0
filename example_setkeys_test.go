package auth_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/ratchet-go/auth"
)

// A key is replaced while the server runs. Every process gets the next key in
// advance, with the time from which it signs. Nobody is signed out: the tokens
// of the current key are accepted until they expire.
func ExampleAuthenticator_SetKeys() {
	now := time.Now()
	current := newSigningKey().WithID("2026-01")
	a, err := auth.New(auth.Config{
		Issuer:      "https://example.com",
		Audience:    []string{"https://api.example.com"},
		AccessKeys:  auth.Keys{current},
		RefreshKeys: auth.Keys{auth.HS256([]byte(rand.Text() + rand.Text()))}, // a program reads it from its configuration
		Users:       keyUsers{},
		Now:         func() time.Time { return now },
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	sign := func() auth.Tokens {
		tokens, err := a.StartSession(ctx, "u1", auth.SessionOptions{})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("signed with", keyID(tokens.Access))
		return tokens
	}
	old := sign()

	next := newSigningKey().WithID("2026-02").SignFrom(now.Add(10 * time.Minute))
	if err := a.SetKeys(auth.Keys{next, current}, nil); err != nil { // nil: the refresh keys stay
		log.Fatal(err)
	}
	sign()
	now = now.Add(11 * time.Minute)
	sign()
	_, err = a.Verify(ctx, old.Access)
	fmt.Println("old token:", err)
	// Output:
	// signed with 2026-01
	// signed with 2026-01
	// signed with 2026-02
	// old token: <nil>
}

// newSigningKey returns a new key. A program reads its keys with ParsePEM, since
// they must be the same in every process and after a restart.
func newSigningKey() auth.Key {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		log.Fatal(err)
	}
	return auth.EdDSA(private)
}

// keyID returns the ID of the key that signed a token.
func keyID(token string) string {
	first, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		log.Fatal(err)
	}
	var header struct {
		KID string `json:"kid"`
	}
	if err := json.Unmarshal(text, &header); err != nil {
		log.Fatal(err)
	}
	return header.KID
}

// keyUsers is a user lookup in which every ID is a user.
type keyUsers struct{}

func (keyUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (keyUsers) FindByID(_ context.Context, id string) (auth.User, error) {
	return auth.User{ID: id}, nil
}
