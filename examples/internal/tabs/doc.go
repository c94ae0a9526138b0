// Package tabs has no code of its own. Its tests run auth.js in several tabs of a
// Chromium, whose clock is real, and a server, whose clock the tests advance.
//
// The ordinary tests play a few rounds. These commands play the rounds to which the
// documentation refers, and log the figures:
//
//	AUTH_TABS=1 go test -timeout 30m -run TestTabs -v ./examples/internal/tabs
package tabs
