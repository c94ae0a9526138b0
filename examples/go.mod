module github.com/ratchet-go/auth/examples

go 1.26.0

require github.com/ratchet-go/auth v0.0.0

replace github.com/ratchet-go/auth => ../
