package password_test

import (
	"fmt"

	"github.com/ratchet-go/auth/password"
)

// A hash contains the parameters and a random salt, and is stored as it is.
func ExampleHash() {
	hash, err := password.Hash(chosen)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(hash[:31])
	fmt.Println(password.Verify(hash, chosen))
	fmt.Println(password.Verify(hash, "Tr0ub4dor&3"))
	// Output:
	// $argon2id$v=19$m=19456,t=2,p=1$
	// <nil>
	// password: mismatch
}

// chosen is the password that a user chose.
const chosen = "correct horse battery staple"
