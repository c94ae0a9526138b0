package auth_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
	"github.com/stretchr/testify/require"
)

// TestTiming_RefusedLogins measures how long a real server takes to refuse each kind
// of login, and compares each kind with a wrong password. It prints tables, and fails
// only if a response is not the expected one. It runs only if AUTH_TIMING is the number
// of trials of each kind, such as 2000. Run it without other tests, and with a long
// -timeout:
//
//	AUTH_TIMING=2000 go test . -run TestTiming_RefusedLogins -v -timeout 2h
func TestTiming_RefusedLogins(t *testing.T) { //nolint:paralleltest // it measures time
	trials, err := strconv.Atoi(os.Getenv("AUTH_TIMING"))
	if err != nil {
		t.Skip("AUTH_TIMING is not a number of trials")
	}
	equalHashes := []string{
		"unknown user", "disabled, wrong password", "disabled, right password", "no password", "unreadable hash",
		"user without an ID", "user with an invalid role", "NUL in the login",
	}
	otherHashes := []string{"unknown user", "bcrypt", "bcrypt, disabled, right password", "less argon2id", "more argon2id"}
	for _, tt := range []struct {
		name       string
		hasher     *password.Hasher
		bcryptCost int
		kinds      []string
		throttled  bool
	}{
		{"throttled, so that nothing is hashed", fastHasher, 4, []string{"unknown user", "disabled, right password", "bcrypt", "user without an ID"}, true},
		{"argon2id of 8 KiB and 1 pass", &password.Hasher{Memory: 8, Time: 1}, 4, equalHashes, false},
		{"argon2id of 256 KiB and 1 pass, with hashes of other kinds", &password.Hasher{Memory: 256, Time: 1}, 5, otherHashes, false},
		{"argon2id of 19 MiB and 2 passes", &password.Hasher{Memory: 19 * 1024, Time: 2}, 4, equalHashes, false},
	} {
		if only := os.Getenv("AUTH_TIMING_ONLY"); only != "" && !strings.Contains(tt.name, only) {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			us := newStrangers(t, tt.hasher, tt.bcryptCost)
			fx := newFixture(t, func(c *auth.Config) {
				c.Users, c.Hasher = us, tt.hasher
				if !tt.throttled {
					c.Limiter = &countingLimiter{}
				}
				c.OnEvent = nil // the default, which logs faults
			})
			server := httptest.NewServer(fx.LoginHandler())
			defer server.Close()
			logins := refusedLogins[:1:1]
			for _, l := range refusedLogins[1:] {
				if slices.Contains(tt.kinds, l.kind) {
					logins = append(logins, l)
				}
			}
			status := http.StatusUnauthorized
			if tt.throttled {
				status = http.StatusTooManyRequests
				for _, l := range logins {
					for range 15 {
						_, _ = fx.Login(t.Context(), l.login, wrongPass, auth.SessionOptions{})
					}
				}
			}
			t.Logf("\n%s, %d trials of each kind\n%s", tt.name, trials, timingTable(logins, measure(t, server.Listener.Addr().String(), logins, status, trials)))
		})
	}
}

// measure returns the durations of the logins, in microseconds. Each round has all
// kinds, in a random order. The rounds of the first tenth do not count.
func measure(t *testing.T, addr string, logins []refusedLogin, status, trials int) [][]float64 {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	reader := bufio.NewReader(conn)
	var requests [][]byte
	for _, l := range logins {
		body, err := json.Marshal(map[string]string{"login": l.login, "password": l.pass})
		require.NoError(t, err)
		requests = append(requests, fmt.Appendf(nil, "POST /login HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	}
	all := make([][]float64, len(logins))
	for round := range trials + trials/10 {
		for _, i := range rand.Perm(len(logins)) {
			began := time.Now()
			_, err := conn.Write(requests[i])
			require.NoError(t, err)
			res, err := http.ReadResponse(reader, nil)
			require.NoError(t, err)
			_, _ = io.Copy(io.Discard, res.Body)
			took := time.Since(began)
			require.Equal(t, status, res.StatusCode, logins[i].kind)
			if round >= trials/10 {
				all[i] = append(all[i], float64(took.Nanoseconds())/1000)
			}
		}
	}
	return all
}

// timingTable compares each kind with the first one: the quartiles, the difference of
// the medians, and the Mann-Whitney test. The last column is how often a trial of the
// kind takes longer than one of the first kind: 0.5 means that a single trial tells
// nothing, and 0 or 1 that it tells all.
func timingTable(logins []refusedLogin, all [][]float64) string {
	var b strings.Builder
	b.WriteString("| kind | median µs | quartiles µs | difference µs | % | z | p | AUC |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	base := slices.Sorted(slices.Values(all[0]))
	middle := quantile(base, 0.5)
	for i, l := range logins {
		s := slices.Sorted(slices.Values(all[i]))
		median := quantile(s, 0.5)
		fmt.Fprintf(&b, "| %s | %.0f | %.0f to %.0f |", l.kind, median, quantile(s, 0.25), quantile(s, 0.75))
		if i == 0 {
			b.WriteString(" | | | | |\n")
			continue
		}
		z, auc := mannWhitney(s, base)
		fmt.Fprintf(&b, " %+.1f | %+.2f | %+.2f | %.2g | %.3f |\n", median-middle, 100*(median-middle)/middle, z, math.Erfc(math.Abs(z)/math.Sqrt2), auc)
	}
	return b.String()
}

func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// mannWhitney returns the normal approximation of the test statistic of two samples,
// which are sorted, and the probability that a value of a is greater than one of b.
func mannWhitney(a, b []float64) (z, auc float64) {
	var u float64
	for _, x := range a {
		less, _ := slices.BinarySearch(b, x)
		notGreater := less
		for notGreater < len(b) && b[notGreater] == x {
			notGreater++
		}
		u += float64(less) + float64(notGreater-less)/2
	}
	n, m := float64(len(a)), float64(len(b))
	return (u - n*m/2) / math.Sqrt(n*m*(n+m+1)/12), u / (n * m)
}
