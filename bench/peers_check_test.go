package bench

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/ratchet-go/auth"
	"github.com/stretchr/testify/require"
)

// show is a protected handler that writes the subject.
func show(w http.ResponseWriter, subject string) { _, _ = io.WriteString(w, "subject="+subject) }

// The benchmarks are fair only if every peer is set up correctly: it accepts a
// valid token, passes its subject on, and refuses invalid tokens.
func TestPeers_AcceptValidTokensAndRefuseOthers(t *testing.T) {
	t.Parallel()
	for _, a := range algorithms() {
		other := &algorithm{name: a.name, method: jwt.SigningMethodHS256, sign: []byte(strings.Repeat("k", 32))}
		bad := map[string]string{
			"another issuer":    a.mint(0, func(c jwt.MapClaims) { c["iss"] = "https://else.example" }),
			"another audience":  a.mint(0, func(c jwt.MapClaims) { c["aud"] = "else" }),
			"no expiry":         a.mint(0, func(c jwt.MapClaims) { delete(c, "exp") }),
			"another key":       other.mint(0, nil),
			"another payload":   swapPayload(a.mint(0, nil), a.mint(1, nil)),
			"without signature": strings.TrimRight(a.mint(0, nil), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
		}
		good, old := a.mint(0, nil), a.mint(0, expired)

		x := a.ratchet(-1, nil)
		badRatchet := map[string]string{
			"another issuer":   start(a.ratchet(-1, func(c *auth.Config) { c.Issuer = "https://else.example" }), 0),
			"another audience": start(a.ratchet(-1, func(c *auth.Config) { c.Audience = []string{"else"} }), 0),
			"another payload":  swapPayload(start(x, 0), start(x, 1)),
			"for the peers":    good,
		}
		goodRatchet, oldRatchet := start(x, 0), a.expiredRatchet()

		for _, p := range peers {
			t.Run(a.name+"/"+p.name, func(t *testing.T) {
				t.Parallel()
				h := p.wrap(a, show)
				good, old, bad := good, old, bad
				if p.ratchet {
					good, old, bad = goodRatchet, oldRatchet, badRatchet
				}
				for range 3 { // the token is cached from the second time on
					require.Equal(t, "subject="+subject(0), response(t, h, get(good), http.StatusOK))
					for _, kind := range badRequests {
						refused(t, h, kind, badToken(kind, good, old))
					}
					for kind, token := range bad {
						refused(t, h, kind, token)
					}
				}
			})
		}
	}
}

func refused(t *testing.T, h http.Handler, kind, token string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, get(token))
	require.GreaterOrEqual(t, w.Code, 400, kind)
	require.Less(t, w.Code, 500, kind)
	require.NotContains(t, w.Body.String(), "subject=", kind)
}

func response(t *testing.T, h http.Handler, r *http.Request, status int) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, status, w.Code, w.Body.String())
	return w.Body.String()
}

// swapPayload returns token with the payload of another one.
func swapPayload(token, payloadOf string) string {
	a, b := strings.Split(token, "."), strings.Split(payloadOf, ".")
	return a[0] + "." + b[1] + "." + a[2]
}

func TestCheckSignature_RefusesAnotherSignature(t *testing.T) {
	t.Parallel()
	for _, a := range algorithms() {
		token := start(a.ratchet(-1, nil), 0)
		require.NoError(t, a.checkSignature(t, token)(), a.name)
		require.Error(t, a.checkSignature(t, tamper(token))(), a.name)
	}
}

func TestSCS_RequiresItsSession(t *testing.T) {
	t.Parallel()
	h, cookie := wrapSCS(show)
	r := get("")
	r.AddCookie(cookie)
	require.Equal(t, "subject="+subject(0), response(t, h, r, http.StatusOK))
	response(t, h, get(""), http.StatusUnauthorized)
	r = get("")
	r.AddCookie(&http.Cookie{Name: cookie.Name, Value: "else"})
	response(t, h, r, http.StatusUnauthorized)
}

func TestTokens_OfRatchetAreNotSmaller(t *testing.T) {
	t.Parallel()
	for _, a := range algorithms() {
		theirs, ours := len(a.mint(0, nil)), len(start(a.ratchet(-1, nil), 0))
		t.Logf("%s: %d bytes for the peers, %d bytes for Ratchet", a.name, theirs, ours)
		require.GreaterOrEqual(t, ours, theirs, "%s: Ratchet must not have less to read than the peers", a.name)
	}
}

func TestLoopback_RespondsOverTCP(t *testing.T) {
	t.Parallel()
	a := algorithms()[0]
	for _, c := range loopbacks(a) {
		send := loopback(t, c.handler, c.token)
		for range 3 {
			send()
		}
	}
}
