package main

import (
	"testing"

	"github.com/ratchet-go/auth/examples/frameworks/internal/frameworktest"
)

func TestGorilla_BehavesAsNetHTTP(t *testing.T) {
	t.Parallel()
	frameworktest.Play(t, config(), frameworktest.Handler(routes))
}
