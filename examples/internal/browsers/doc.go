// Package browsers has no code of its own. Its tests show in Chromium what pages of
// other origins, hosts of the same site, and scripts of the page itself can do to a
// user who is signed in by cookies, and what they cannot.
package browsers
