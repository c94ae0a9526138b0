package oauth_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/oauth"
)

func basic(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }

// The form is that of a refresh with a token that is not valid, so a client that is
// authenticated gets the error invalid_grant.
func TestClients_AuthenticateInOneWay(t *testing.T) {
	t.Parallel()
	const wrong, must = "the client is unknown, or its secret is wrong", "the client must authenticate with its secret"
	for _, c := range []struct {
		name, form string
		headers    []string
		status     int
		text       string // of an error
	}{
		{"post", "client_id=backend&client_secret=s3cret-s3cret-s3cret", nil, 0, ""},
		{"post, encoded", "client_id=a%3Ab+c%2Bd&client_secret=p%2520+%3A%26%3D%2B", nil, 0, ""},
		{"basic", "", []string{basic("backend:s3cret-s3cret-s3cret")}, 0, ""},
		{"basic in other letters", "", []string{"bAsIc  " + basic("backend:s3cret-s3cret-s3cret")[6:]}, 0, ""},
		{"basic with the ID in the body too", "client_id=backend", []string{basic("backend:s3cret-s3cret-s3cret")}, 0, ""},
		{"basic, encoded as RFC 6749 section 2.3.1 says", "", []string{basic("a%3Ab+c%2Bd:p%2520+%3A%26%3D%2B")}, 0, ""},
		{"basic, encoded in lower case", "", []string{basic("a%3ab%20c%2bd:p%2520%20%3a%26%3d%2b")}, 0, ""},
		{"basic, not encoded", "", []string{basic("a:b c+d:p%20 :&=+")}, 401, wrong},
		{"no credentials", "", nil, 401, must},
		{"only an ID", "client_id=backend", nil, 401, must},
		{"an empty secret", "client_id=backend&client_secret=", nil, 401, must},
		{"basic with an empty secret", "", []string{basic("backend:")}, 401, must},
		{"basic with nothing", "", []string{basic(":")}, 401, must},
		{"basic with nothing, and post", "client_id=backend&client_secret=s3cret-s3cret-s3cret", []string{basic(":")}, 0, ""},
		{"another scheme", "", []string{"Bearer x"}, 401, must},
		{"another scheme, and post", "client_id=backend&client_secret=s3cret-s3cret-s3cret", []string{"Bearer x"}, 0, ""},
		{"a wrong secret", "client_id=backend&client_secret=x", nil, 401, wrong},
		{"a prefix of the secret", "client_id=backend&client_secret=s3cret", nil, 401, wrong},
		{"an unknown client", "client_id=x&client_secret=s3cret-s3cret-s3cret", nil, 401, wrong},
		{"a secret without an ID", "client_secret=s3cret-s3cret-s3cret", nil, 401, wrong},
		{"basic without an ID", "", []string{basic(":s3cret-s3cret-s3cret")}, 401, wrong},
		{"a control character", "client_id=backend&client_secret=s3cret-s3cret-s3cret%00", nil, 401, wrong},
		{"a control character in the ID", "", []string{basic("backend%00:s3cret-s3cret-s3cret")}, 401, wrong},
		{"not ASCII", "", []string{basic("backend:s%C3%A9cret")}, 401, wrong},
		{"not UTF-8", "", []string{basic("backend:\xff")}, 401, wrong},
		{"too long", "client_id=backend&client_secret=" + strings.Repeat("x", 1025), nil, 401, wrong},
		{"too long an ID", "", []string{basic(strings.Repeat("x", 1025) + ":x")}, 401, wrong},
		{"no colon", "", []string{basic("backend")}, 401, "the header Authorization is malformed"},
		{"not base64", "", []string{"Basic ?"}, 401, "the header Authorization is malformed"},
		{"base64url", "", []string{"Basic YmFja2VuZDpzM2NyZXQtczNjcmV0LXMzY3JldA"}, 401, "the header Authorization is malformed"},
		{"other bits", "", []string{"Basic YmFja2VuZDpzM2NyZXQtczNjcmV0LXMzY3JldB=="}, 401, "the header Authorization is malformed"},
		{"a bad escape", "", []string{basic("backend:%zz")}, 401, "the header Authorization is malformed"},
		{"a bad escape in the ID", "", []string{basic("%:x")}, 401, "the header Authorization is malformed"},
		{"no value", "", []string{"Basic"}, 401, "the header Authorization is malformed"},
		{
			"both", "client_id=backend&client_secret=s3cret-s3cret-s3cret", []string{basic("backend:s3cret-s3cret-s3cret")}, 400,
			"the client authenticates in the header and in the body; it must use one of them",
		},
		{
			"basic without a secret, and post", "client_id=backend&client_secret=s3cret-s3cret-s3cret", []string{basic("backend:")}, 400,
			"the client authenticates in the header and in the body; it must use one of them",
		},
		{"two IDs", "client_id=other", []string{basic("backend:s3cret-s3cret-s3cret")}, 400, "client_id in the body differs from that in the header Authorization"},
		{"two headers", "", []string{basic("backend:s3cret-s3cret-s3cret"), basic("backend:s3cret-s3cret-s3cret")}, 400, "the header Authorization occurs twice"},
		{"two headers of different schemes", "", []string{basic("backend:s3cret-s3cret-s3cret"), "Bearer x"}, 400, "the header Authorization occurs twice"},
		{"a secret twice", "client_id=backend&client_secret=a&client_secret=s3cret-s3cret-s3cret", nil, 400, "client_secret occurs twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, oauth.Config{Clients: newClients()})
			var header []string
			for _, h := range c.headers {
				header = append(header, "Authorization", h)
			}
			for _, path := range []string{"/token", "/revoke", "/introspect"} {
				r := fx.post(t, path, c.form+"&"+refreshForm("x")+"&token=x", header...)
				switch {
				case c.status == 0 && path == "/token":
					r.requireRefused(t, 400, "invalid_grant")
					continue
				case c.status == 0:
					require.Equal(t, 200, r.status, r.text)
					continue
				case c.status == 400:
					require.Equal(t, c.text, r.requireRefused(t, 400, "invalid_request"))
				default:
					require.Equal(t, c.text, r.requireRefused(t, 401, "invalid_client"))
				}
				if c.status == 401 {
					require.Equal(t, []string{`Basic realm="oauth"`}, r.header["Www-Authenticate"])
				} else {
					require.Empty(t, r.header["Www-Authenticate"])
				}
			}
		})
	}
}

func TestClients_PublicClientsHaveNoSecret(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]oauth.Config{
		"only":                       {},
		"next to those with secrets": {Clients: newClients(), PublicClients: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, config)
			for _, c := range [][2]string{
				{"", ""}, {"client_id=app", ""}, {"client_id=app&client_secret=", ""}, {"", basic(":")}, {"", basic("app:")},
				{"client_id=app", basic("app:")}, {"", "Bearer x"}, {"client_id=%00", ""},
			} {
				var header []string
				if c[1] != "" {
					header = []string{"Authorization", c[1]}
				}
				fx.post(t, "/token", c[0]+"&"+refreshForm("x"), header...).requireRefused(t, 400, "invalid_grant")
				require.Equal(t, 200, fx.post(t, "/revoke", c[0]+"&token=x", header...).status)
			}
			// Whoever sends a secret must be told that it is wrong, or not used.
			for _, c := range [][2]string{{"client_id=app&client_secret=x", ""}, {"", basic("app:x")}} {
				var header []string
				if c[1] != "" {
					header = []string{"Authorization", c[1]}
				}
				text := fx.post(t, "/token", c[0]+"&"+refreshForm("x"), header...).requireRefused(t, 401, "invalid_client")
				if config.Clients == nil {
					require.Equal(t, "the client has sent a secret, but this server has only clients without one", text)
				} else {
					require.Equal(t, "the client is unknown, or its secret is wrong", text)
				}
			}
		})
	}
}

// from returns h for requests of a source.
func from(h http.Handler, source string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(source), 1).String()
		h.ServeHTTP(w, r)
	})
}

func secretForm(id, secret string) string {
	return "client_id=" + id + "&client_secret=" + secret + "&token=x"
}

func TestClients_WrongSecretsAreThrottled(t *testing.T) {
	t.Parallel()
	known := newClients()
	fx := newFixture(t, oauth.Config{Clients: known})
	for _, id := range []string{"backend", "unknown"} { // the responses do not say which of them exists
		known.set(func() { known.calls = 0 })
		for range 5 {
			fx.post(t, "/introspect", secretForm(id, "x")).requireRefused(t, 401, "invalid_client")
		}
		require.Equal(t, 5, known.calls, "a call for each, whether the client exists or not")
		r := fx.post(t, "/introspect", secretForm(id, "x"))
		require.Equal(t, "too many failed attempts; try again in 1 second", r.requireRefused(t, 429, "too_many_attempts"))
		require.Equal(t, "1", r.header.Get("Retry-After"))
		require.Len(t, fx.taken(auth.EventLoginRefused), map[string]int{"backend": 1, "unknown": 0}[id], "one event a minute")
		fx.post(t, "/token", secretForm(id, "s3cret-s3cret-s3cret")).requireRefused(t, 429, "too_many_attempts")
		require.Equal(t, 5, known.calls, "nothing is checked")
		fx.post(t, "/revoke", "token=x", "Authorization", basic(id+":x")).requireRefused(t, 429, "too_many_attempts")
	}

	// Another source of the client is not affected, nor is another client there.
	require.Equal(t, 200, send(t, from(fx, "192.0.2.7"), "POST", "/introspect", secretForm("backend", "s3cret-s3cret-s3cret")).status)
	require.Equal(t, 200, fx.post(t, "/introspect", secretForm("a%3Ab%20c%2Bd", "p%2520%20:%26=%2B")).status)

	fx.Clock.Advance(time.Second)
	fx.post(t, "/introspect", secretForm("backend", "x")).requireRefused(t, 401, "invalid_client")
	require.Equal(t, "2", fx.post(t, "/introspect", secretForm("backend", "x")).header.Get("Retry-After"), "the wait doubles")
}

// All addresses of an IPv6 network are one source.
func TestClients_AnIPv6NetworkIsOneSource(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{Clients: newClients()})
	for i := range 5 {
		send(t, from(fx, fmt.Sprintf("2001:db8::%d", i+1)), "POST", "/introspect", secretForm("backend", "x")).requireRefused(t, 401, "invalid_client")
	}
	send(t, from(fx, "2001:db8::ffff:1"), "POST", "/introspect", secretForm("backend", "x")).requireRefused(t, 429, "too_many_attempts")
	send(t, from(fx, "2001:db8:0:1::1"), "POST", "/introspect", secretForm("backend", "x")).requireRefused(t, 401, "invalid_client")
}

// Behind a translator of IPv4 addresses, all clients have one IPv6 network.
func TestClients_AnIPv4AddressBehindNAT64IsOneSource(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{Clients: newClients()})
	for _, source := range []string{"64:ff9b::192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1", "64:ff9b::192.0.2.1", "192.0.2.1"} {
		send(t, from(fx, source), "POST", "/introspect", secretForm("backend", "x")).requireRefused(t, 401, "invalid_client")
	}
	send(t, from(fx, "64:ff9b::192.0.2.1"), "POST", "/introspect", secretForm("backend", "x")).requireRefused(t, 429, "too_many_attempts")
	require.Equal(t, 200, send(t, from(fx, "64:ff9b::192.0.2.2"), "POST", "/introspect", secretForm("backend", "s3cret-s3cret-s3cret")).status)
}

// A client that has authenticated is not kept from working by wrong secrets for its
// ID, even of its own source.
func TestClients_ARightSecretIsNotThrottled(t *testing.T) {
	t.Parallel()
	known := newClients()
	fx := newFixture(t, oauth.Config{Clients: known})
	right := secretForm("backend", "s3cret-s3cret-s3cret")
	require.Equal(t, 200, fx.post(t, "/introspect", right).status)
	for range 10 {
		fx.post(t, "/introspect", secretForm("backend", "x"))
	}
	fx.post(t, "/introspect", secretForm("backend", "x")).requireRefused(t, 429, "too_many_attempts")
	for range 20 {
		require.Equal(t, 200, fx.post(t, "/introspect", right).status)
	}

	// It is still checked each time. When the client gets another secret, the old one
	// is wrong like any other.
	known.set(func() { known.secrets["backend"] = "another" })
	fx.Clock.Advance(3 * time.Hour)
	for range 5 {
		fx.post(t, "/introspect", right).requireRefused(t, 401, "invalid_client")
	}
	fx.post(t, "/introspect", right).requireRefused(t, 429, "too_many_attempts")
	fx.Clock.Advance(time.Hour)
	require.Equal(t, 200, fx.post(t, "/introspect", secretForm("backend", "another")).status)
}

// A backend sends many requests at once, also when the server has just started.
func TestClients_ManyFirstRequestsAtOnceSucceed(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, oauth.Config{Clients: newClients()})
	statuses := parallel(100, func() int {
		return send(t, fx, "POST", "/introspect", secretForm("backend", "s3cret-s3cret-s3cret")).status
	})
	require.Equal(t, map[int]int{200: 100}, statuses)
}

// They do not wait for each other once the secret is known to be right.
func TestClients_ManyFirstRequestsAtOnceAreCheckedInParallel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		known := newClients()
		known.fail = func(context.Context) error { time.Sleep(time.Second); return nil }
		fx := newFixture(t, oauth.Config{Clients: known})
		begin := time.Now()
		statuses := parallel(100, func() int {
			return send(t, fx, "POST", "/introspect", secretForm("backend", "s3cret-s3cret-s3cret")).status
		})
		require.Equal(t, map[int]int{200: 100}, statuses)
		require.Equal(t, 2*time.Second, time.Since(begin))
	})
}

// While the application does not respond, requests must not wait for all of those
// before them.
func TestClients_DoNotWaitLongForEachOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		known := newClients()
		known.fail = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		fx := newFixture(t, oauth.Config{Clients: known})
		begin := time.Now()
		statuses := parallel(20, func() int {
			return send(t, fx, "POST", "/introspect", secretForm("backend", "s3cret-s3cret-s3cret")).status
		})
		require.Equal(t, map[int]int{503: 20}, statuses)
		require.LessOrEqual(t, time.Since(begin), 11*time.Second, "HookTimeout and the wait")
		known.set(func() { known.fail = nil })
		require.Equal(t, 200, send(t, fx, "POST", "/introspect", secretForm("backend", "s3cret-s3cret-s3cret")).status)
	})
}

// The application is asked only about what an ID and a secret may be.
func TestClients_AreAskedAboutPrintableCredentials(t *testing.T) {
	t.Parallel()
	known := newClients()
	fx := newFixture(t, oauth.Config{Clients: known})
	long := strings.Repeat("x", 1024)
	for _, c := range []struct {
		id, secret string
		asked      int
	}{
		{long, " ~", 1},
		{" ~", long, 1},
		{long + "x", "x", 0},
		{"x", long + "x", 0},
		{"", "x", 0},
		{"x", "%7f", 0},
		{"x", "%1f", 0},
		{"%7f", "x", 0},
		{"x", "%c3%a9", 0},
	} {
		known.set(func() { known.calls = 0 })
		form := "token=x&client_id=" + strings.ReplaceAll(c.id, " ", "+") + "&client_secret=" + strings.ReplaceAll(c.secret, " ", "+")
		fx.post(t, "/introspect", form).requireRefused(t, 401, "invalid_client")
		require.Equal(t, c.asked, known.calls, "%.10s, %.10s", c.id, c.secret)
	}
}

// A burst of guesses does not exceed the limit.
func TestClients_ABurstOfGuessesIsThrottled(t *testing.T) {
	t.Parallel()
	known := newClients()
	fx := newFixture(t, oauth.Config{Clients: known})
	statuses := parallel(100, func() int { return send(t, fx, "POST", "/introspect", secretForm("backend", "x")).status })
	require.Equal(t, map[int]int{401: 5, 429: 95}, statuses)
	require.Equal(t, 5, known.calls)
}

// parallel calls f n times at once, and counts the results.
func parallel(n int, f func() int) map[int]int {
	var wg sync.WaitGroup
	var mu sync.Mutex
	counts := map[int]int{}
	start := make(chan struct{})
	for range n {
		wg.Go(func() {
			<-start
			result := f()
			mu.Lock()
			defer mu.Unlock()
			counts[result]++
		})
	}
	close(start)
	wg.Wait()
	return counts
}

func TestClients_AFailureIsA503AndNotCounted(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(context.Context) error{
		"error":          func(context.Context) error { return errors.New("private") },
		"not found":      func(context.Context) error { return auth.ErrUserNotFound },
		"panic":          func(context.Context) error { panic("private") },
		"unavailable":    func(context.Context) error { return auth.ErrUnavailable },
		"hangs":          nil,
		"until the end":  func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"wrong and down": func(context.Context) error { return errors.Join(auth.ErrInvalidCredentials, auth.ErrUnavailable) },
	} {
		for _, authenticatedBefore := range []bool{false, true} {
			t.Run(fmt.Sprint(name, authenticatedBefore), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					known := newClients()
					release := make(chan struct{})
					defer close(release)
					fx := newFixture(t, oauth.Config{Clients: known})
					right := secretForm("backend", "s3cret-s3cret-s3cret")
					if authenticatedBefore {
						require.Equal(t, 200, fx.post(t, "/introspect", right).status)
					}
					known.set(func() {
						if known.fail = fail; name == "hangs" {
							known.fail = func(context.Context) error { <-release; return nil }
						}
					})
					for range 7 {
						begin := time.Now()
						require.NotContains(t, fx.post(t, "/introspect", right).requireRefused(t, 503, "temporarily_unavailable"), "private")
						require.LessOrEqual(t, time.Since(begin), 5*time.Second+100*time.Millisecond)
						require.Len(t, fx.taken(auth.EventFault), 1, "one event")
					}
					known.set(func() { known.fail = nil })
					require.Equal(t, 200, fx.post(t, "/introspect", right).status, "nothing was counted")
				})
			})
		}
	}
}

// A client that disconnects while it waits for another request does not wait longer.
func TestClients_AWaitingRequestEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		known := newClients()
		fx := newFixture(t, oauth.Config{Clients: known})
		known.fail = func(context.Context) error { time.Sleep(4 * time.Second); return nil }
		statuses := make(chan int, 2)
		post := func(ctx context.Context) {
			r := httptest.NewRequestWithContext(ctx, "POST", "/introspect", strings.NewReader(secretForm("backend", "s3cret-s3cret-s3cret")))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			w := httptest.NewRecorder()
			fx.ServeHTTP(w, r)
			statuses <- w.Code
		}
		begin := time.Now()
		go post(t.Context())
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go post(ctx)
		require.Equal(t, 503, <-statuses)
		require.Equal(t, time.Second, time.Since(begin))
		require.Equal(t, 200, <-statuses)
		known.set(func() { known.fail = nil })
		require.Equal(t, 200, fx.post(t, "/introspect", secretForm("backend", "s3cret-s3cret-s3cret")).status)
	})
}
