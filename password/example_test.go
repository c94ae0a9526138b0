package password_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/ratchet-go/auth/password"
)

func ExampleHash() {
	hash, err := password.Hash("correct horse battery staple")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(hash[:31])
	fmt.Println(password.Verify(hash, "correct horse battery staple"))
	fmt.Println(password.Verify(hash, "Tr0ub4dor&3"))
	// Output:
	// $argon2id$v=19$m=19456,t=2,p=1$
	// <nil>
	// password: mismatch
}

// A login that handles an unknown name like a wrong password, in the same time,
// and replaces an old hash after a successful login.
func ExampleHasher() {
	ctx := context.Background()
	passwords := new(password.Hasher)
	users := map[string]string{ // name to hash; htpasswd created this one
		"ada": "$2y$04$EfY7Nx9YFW7WFLzudKhgoeAkAAaHt5WCk20A1B0W38OCKH4vnoXfK",
	}
	login := func(name, typed string) error {
		hash, ok := users[name]
		if !ok {
			return passwords.VerifyUnknown(ctx, typed)
		}
		if err := passwords.Verify(ctx, hash, typed); err != nil {
			return err
		}
		if passwords.NeedsRehash(hash) {
			better, err := passwords.Hash(ctx, typed)
			if err != nil {
				return err
			}
			users[name] = better
		}
		return nil
	}

	fmt.Println(errors.Is(login("bob", "correct horse"), password.ErrMismatch))
	fmt.Println(errors.Is(login("ada", "wrong horse"), password.ErrMismatch))
	fmt.Println(login("ada", "correct horse"), users["ada"][:9])
	fmt.Println(login("ada", "correct horse"), passwords.NeedsRehash(users["ada"]))
	// Output:
	// true
	// true
	// <nil> $argon2id
	// <nil> false
}
