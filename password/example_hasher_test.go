package password_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/ratchet-go/auth/password"
)

// A login that handles an unknown name like a wrong password, in the same time,
// and replaces an old hash after a successful login.
func ExampleHasher() {
	ctx := context.Background()
	a := accounts{hashes: map[string]string{ // htpasswd created this one
		"ada": "$2y$04$EfY7Nx9YFW7WFLzudKhgoeAkAAaHt5WCk20A1B0W38OCKH4vnoXfK",
	}}
	fmt.Println(errors.Is(a.login(ctx, "bob", "correct horse"), password.ErrMismatch))
	fmt.Println(errors.Is(a.login(ctx, "ada", "wrong horse"), password.ErrMismatch))
	fmt.Println(a.login(ctx, "ada", "correct horse"), a.hashes["ada"][:9])
	fmt.Println(a.login(ctx, "ada", "correct horse"), a.hasher.NeedsRehash(a.hashes["ada"]))
	// Output:
	// true
	// true
	// <nil> $argon2id
	// <nil> false
}

// accounts has the password hash of each user, by name.
type accounts struct {
	hasher password.Hasher // one for all requests, since it limits concurrent hashing
	hashes map[string]string
}

func (a *accounts) login(ctx context.Context, name, typed string) error {
	hash, ok := a.hashes[name]
	if !ok {
		return a.hasher.VerifyUnknown(ctx, typed)
	}
	if err := a.hasher.Verify(ctx, hash, typed); err != nil {
		return err
	}
	if a.hasher.NeedsRehash(hash) {
		better, err := a.hasher.Hash(ctx, typed)
		if err != nil {
			return err
		}
		a.hashes[name] = better
	}
	return nil
}
