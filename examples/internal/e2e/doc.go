// Package e2e has no code of its own. Its tests use the page of the quickstart in
// Chromium as its users do, while responses are lost, the network fails, time passes,
// and the server restarts.
package e2e
