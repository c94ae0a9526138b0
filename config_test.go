package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// goodConfig returns a valid configuration.
func goodConfig() auth.Config {
	return auth.Config{Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: newUsers(), Hasher: fastHasher, Now: newClock().Now}
}

// newErrors applies change to goodConfig and returns the lines of New's error.
func newErrors(t testing.TB, change func(*auth.Config)) []string {
	t.Helper()
	c := goodConfig()
	change(&c)
	a, err := auth.New(c)
	if err == nil {
		require.NotNil(t, a)
		return nil
	}
	require.Nil(t, a)
	return strings.Split(err.Error(), "\n")
}

func keysOf(secrets ...[]byte) auth.Keys {
	var ks auth.Keys
	for _, s := range secrets {
		ks = append(ks, auth.HS256(s))
	}
	return ks
}

func TestNew_NamesTheFieldOfEveryMistake(t *testing.T) {
	t.Parallel()
	cookies := func(change func(*auth.Cookies)) func(*auth.Config) {
		return func(c *auth.Config) {
			c.Cookies = &auth.Cookies{}
			change(c.Cookies)
		}
	}
	extractors := func(es ...auth.Extractor) func(*auth.Config) {
		return func(c *auth.Config) { c.Extractors = es }
	}
	keys := func(access, refresh auth.Keys) func(*auth.Config) {
		return func(c *auth.Config) { c.Secrets, c.AccessKeys, c.RefreshKeys = nil, access, refresh }
	}
	secrets := func(list ...[]byte) func(*auth.Config) {
		return func(c *auth.Config) { c.Secrets = list }
	}
	for _, c := range []struct {
		name   string
		change func(*auth.Config)
		want   string // after "auth: Config."
	}{
		{"no issuer", func(c *auth.Config) { c.Issuer = "" }, "Issuer is empty; set it to the URL of the service that issues the tokens"},
		{"a blank issuer", func(c *auth.Config) { c.Issuer = "  " }, `Issuer "  " is blank`},
		{"a blank issuer, other spaces", func(c *auth.Config) { c.Issuer = "\u00a0\u2003\u3000" }, `Issuer "\u00a0\u2003\u3000" is blank`},
		{"a blank audience", func(c *auth.Config) { c.Audience = []string{audience, " "} }, `Audience[1] " " is blank`},
		{"a leading space", func(c *auth.Config) { c.Issuer = " https://a.example" }, `Issuer " https://a.example" begins or ends with a space; remove it`},
		{
			"a trailing space", func(c *auth.Config) { c.Audience = []string{"https://a.example\u00a0"} },
			`Audience[0] "https://a.example\u00a0" begins or ends with a space; remove it`,
		},
		{"a trailing newline", func(c *auth.Config) { c.Issuer = "https://a.example\n" }, `Issuer must be UTF-8 without control characters, but is "https://a.example\n"`},
		{
			"a byte order mark", func(c *auth.Config) { c.Issuer = "\ufeffhttps://a.example" },
			`Issuer "\ufeffhttps://a.example" contains an invisible character; remove it`,
		},
		{"a no-break space", func(c *auth.Config) { c.Issuer = "my\u00a0service" }, `Issuer "my\u00a0service" contains an invisible character; remove it`},
		{"a soft hyphen", func(c *auth.Config) { c.Audience = []string{"a\u00adb"} }, `Audience[0] "a\u00adb" contains an invisible character; remove it`},
		{"a filler", func(c *auth.Config) { c.Issuer = "\u3164" }, `Issuer "\u3164" contains an invisible character; remove it`},
		{"a variation selector", func(c *auth.Config) { c.Issuer = "a\ufe0f" }, `Issuer "a\ufe0f" contains an invisible character; remove it`},
		{"an audience twice", func(c *auth.Config) { c.Audience = []string{"a", "b", "a"} }, "Audience[2] duplicates Config.Audience[0]"},
		{"no audience", func(c *auth.Config) { c.Audience = nil }, "Audience is empty; name the service that the tokens are for"},
		{"an empty audience", func(c *auth.Config) { c.Audience = []string{audience, ""} }, "Audience[1] is empty; remove it, or name a service that the tokens are for"},
		{"a control character", func(c *auth.Config) { c.Issuer = "a\nb" }, "Issuer must be UTF-8 without control characters"},
		{"not UTF-8", func(c *auth.Config) { c.Audience = []string{"\xff"} }, "Audience[0] must be UTF-8 without control characters"},
		{
			"too long an issuer", func(c *auth.Config) { c.Issuer = strings.Repeat("x", 5000) },
			"Issuer and Config.Audience are too long for refresh tokens: the token is ",
		},
		{
			"too long an audience", func(c *auth.Config) { c.Audience = distinctAudiences(200) },
			"Issuer and Config.Audience are too long for refresh tokens: the token is ",
		},
		{
			"too long for a cookie", func(c *auth.Config) { c.Issuer, c.Cookies = strings.Repeat("x", 1500), &auth.Cookies{} },
			"Issuer and Config.Audience are too long for refresh tokens: cookie __Host-Http-refresh would be ",
		},
		{"no users", func(c *auth.Config) { c.Users = nil }, "Users is nil; set it to your application's user lookup"},
		{"a nil pointer as users", func(c *auth.Config) { c.Users = (*users)(nil) }, "Users is a nil *auth_test.users; create the value before you pass it"},
		{"a nil map as users", func(c *auth.Config) { c.Users = mapUsers(nil) }, "Users is a nil auth_test.mapUsers; create the value before you pass it"},
		{"a nil slice as users", func(c *auth.Config) { c.Users = sliceUsers(nil) }, "Users is a nil auth_test.sliceUsers; "},
		{"a nil function as users", func(c *auth.Config) { c.Users = funcUsers(nil) }, "Users is a nil auth_test.funcUsers; "},
		{"a nil channel as users", func(c *auth.Config) { c.Users = chanUsers(nil) }, "Users is a nil auth_test.chanUsers; "},
		{"a nil pointer as store", func(c *auth.Config) { c.Store = (*testStore)(nil) }, "Store is a nil *auth_test.testStore; create the value before you pass it"},
		{"a nil MemoryStore", func(c *auth.Config) { c.Store = (*auth.MemoryStore)(nil) }, "Store is a nil *auth.MemoryStore; create the value before you pass it"},
		{"a zero MemoryStore", func(c *auth.Config) { c.Store = &auth.MemoryStore{} }, "Store is a zero MemoryStore; create it with NewMemoryStore"},

		{"a short secret", secrets(distinctBytes(31)), "Secrets[0]: the secret is 31 bytes; it must be at least 32; create one with `openssl rand -base64 48`"},
		{"an empty secret", secrets(secret, nil), "Secrets[1]: the secret is 0 bytes; it must be at least 32"},
		{"a constant secret", secrets(make([]byte, 32)), "Secrets[0]: all bytes of the secret are equal"},
		{"an example secret", secrets([]byte("a-string-secret-at-least-256-bits-long")), "Secrets[0]: the secret is a published example"},
		{
			"a PEM secret", secrets(secret, []byte(" -----BEGIN PUBLIC KEY-----\nMCow")),
			"Secrets[1]: the secret is a PEM block, a JWK or a DER key, not a random secret",
		},
		{"a secret twice", secrets(secret, slices.Clone(secret)), "Secrets[1] duplicates Config.Secrets[0]"},
		{
			"secrets and access keys", func(c *auth.Config) { c.AccessKeys = keysOf(accessSecret) },
			"Secrets is set, so Config.AccessKeys and Config.RefreshKeys must be empty",
		},
		{
			"secrets and refresh keys", func(c *auth.Config) { c.RefreshKeys = keysOf(refreshSecret) },
			"Secrets is set, so Config.AccessKeys and Config.RefreshKeys must be empty",
		},
		{
			"no secret at all", keys(nil, auth.Keys{}), "Secrets has no secret; create one with `openssl rand -base64 48` and set Config.Secrets, " +
				"or set both Config.AccessKeys and Config.RefreshKeys",
		},
		{
			"no access keys", keys(nil, keysOf(refreshSecret)),
			"AccessKeys is empty; set both Config.AccessKeys and Config.RefreshKeys, or only Config.Secrets",
		},
		{
			"no refresh keys", keys(keysOf(accessSecret), auth.Keys{}),
			"RefreshKeys is empty; set both Config.AccessKeys and Config.RefreshKeys, or only Config.Secrets",
		},
		{"a zero refresh key", keys(keysOf(accessSecret), auth.Keys{{}}), "RefreshKeys[0] is the zero Key"},
		{"a zero access key", keys(auth.Keys{{}}, keysOf(refreshSecret)), "AccessKeys[0] is the zero Key"},
		{
			"a short access key", keys(auth.Keys{auth.HS384(distinctBytes(47))}, keysOf(refreshSecret)),
			"AccessKeys[0] (HS384): the secret is 47 bytes; it must be at least 48",
		},
		{
			"a short refresh key", keys(keysOf(accessSecret), auth.Keys{auth.HS512(distinctBytes(63))}),
			"RefreshKeys[0] (HS512): the secret is 63 bytes; it must be at least 64",
		},
		{"one key twice", keys(keysOf(accessSecret), keysOf(refreshSecret, refreshSecret)), "RefreshKeys[0] and Config.RefreshKeys[1] have the same ID"},
		{
			"one secret for both", keys(keysOf(access2Secret, accessSecret), keysOf(refreshSecret, accessSecret)),
			"AccessKeys[1] and Config.RefreshKeys[1] have the same secret",
		},
		{
			"one secret for both, other hashes", keys(auth.Keys{auth.HS256(distinctBytes(64))}, auth.Keys{auth.HS512(distinctBytes(64))}),
			"AccessKeys[0] and Config.RefreshKeys[0] have the same secret",
		},

		{"a bad hasher", func(c *auth.Config) { c.Hasher = &password.Hasher{Time: 17} }, "Hasher: password: "},
		{"a store timeout below zero", func(c *auth.Config) { c.StoreTimeout = -1 }, "StoreTimeout (-1ns) is not between 1ms and 1m0s"},
		{
			"a short store timeout", func(c *auth.Config) { c.StoreTimeout = time.Millisecond - 1 },
			"StoreTimeout (999.999µs) is less than 1ms; missing time unit?",
		},
		{"a long store timeout", func(c *auth.Config) { c.StoreTimeout = time.Minute + 1 }, "StoreTimeout (1m0.000000001s) is not between 1ms and 1m0s"},
		{"a short access lifetime", func(c *auth.Config) { c.AccessTTL = 999 * time.Millisecond }, "AccessTTL (999ms) is not between 1s and 24h0m0s"},
		{"an access lifetime below zero", func(c *auth.Config) { c.AccessTTL = -1 }, "AccessTTL (-1ns) is not between 1s and 24h0m0s"},
		{
			"a long access lifetime", func(c *auth.Config) { c.AccessTTL = 24*time.Hour + time.Millisecond },
			"AccessTTL (24h0m0.001s) is not between 1s and 24h0m0s",
		},
		{
			"an access lifetime within the leeway", func(c *auth.Config) { c.AccessTTL = 21 * time.Second },
			"AccessTTL (21s) must exceed 21s: twice Config.Leeway 10s (the default) plus 1s",
		},
		{
			"the same, of another leeway", func(c *auth.Config) { c.AccessTTL, c.Leeway = 2*time.Minute+time.Second, time.Minute },
			"AccessTTL (2m1s) must exceed 2m1s: twice Config.Leeway (1m0s) plus 1s",
		},
		{
			"the same, without leeway", func(c *auth.Config) { c.AccessTTL, c.Leeway = time.Second, -1 },
			"AccessTTL (1s) must exceed 1s: twice Config.Leeway (-1ns) plus 1s",
		},
		{"a long retry window", func(c *auth.Config) { c.RetryWindow = time.Minute + time.Millisecond }, "RetryWindow (1m0.001s) exceeds 1m0s"},
		{"a long leeway", func(c *auth.Config) { c.Leeway = time.Minute + time.Millisecond }, "Leeway (1m0.001s) exceeds 1m0s"},
		{"a longer leeway", func(c *auth.Config) { c.Leeway = 61 * time.Second }, "Leeway (1m1s) exceeds 1m0s"},
		{
			"a short idle lifetime", func(c *auth.Config) { c.IdleTTL = 15*time.Minute + 10*time.Second + 299*time.Millisecond },
			"IdleTTL (15m10.299s) is less than 15m10.3s: three times Config.RetryWindow 100ms (the default) plus Config.AccessTTL 15m0s (the default) " +
				"plus Config.Leeway 10s (the default)",
		},
		{"the same, without window and leeway", func(c *auth.Config) {
			c.IdleTTL, c.RetryWindow, c.Leeway = 15*time.Minute-time.Millisecond, -1, -1
		}, "IdleTTL (14m59.999s) is less than 15m0s: three times Config.RetryWindow (-1ns) plus Config.AccessTTL 15m0s (the default) " +
			"plus Config.Leeway (-1ns)"},
		{"an idle lifetime below zero", func(c *auth.Config) { c.IdleTTL = -time.Hour }, "IdleTTL (-1h0m0s) is less than 15m10.3s"},
		{
			"idle beyond absolute", func(c *auth.Config) { c.IdleTTL, c.SessionTTL = 7*24*time.Hour, 7*24*time.Hour-time.Millisecond },
			"IdleTTL (168h0m0s) exceeds Config.SessionTTL (167h59m59.999s)",
		},
		{
			"idle beyond the default", func(c *auth.Config) { c.IdleTTL = 31 * 24 * time.Hour },
			"IdleTTL (744h0m0s) exceeds Config.SessionTTL 720h0m0s (the default)",
		},
		{
			"a short session", func(c *auth.Config) { c.SessionTTL = 15 * time.Minute },
			"SessionTTL (15m0s) is less than 15m10.3s: three times Config.RetryWindow 100ms (the default) plus Config.AccessTTL 15m0s (the default) " +
				"plus Config.Leeway 10s (the default)",
		},
		{"a short session beside a window", func(c *auth.Config) {
			c.SessionTTL, c.AccessTTL, c.RetryWindow = time.Minute, 30*time.Second, 30*time.Second
		}, "SessionTTL (1m0s) is less than 2m10s: three times Config.RetryWindow (30s) plus Config.AccessTTL (30s) plus Config.Leeway 10s (the default)"},
		{"a session below zero", func(c *auth.Config) { c.SessionTTL = -1 }, "SessionTTL (-1ns) is less than 15m10.3s"},
		{"a long session", func(c *auth.Config) { c.SessionTTL = 10*365*24*time.Hour + time.Millisecond }, "SessionTTL (87600h0m0.001s) exceeds 87600h0m0s"},
		{"a short cache", func(c *auth.Config) { c.JWKSMaxAge = 4 * time.Second }, "JWKSMaxAge (4s) is not between 5s and 24h0m0s"},
		{"a negative cache", func(c *auth.Config) { c.JWKSMaxAge = -1 }, "JWKSMaxAge (-1ns) is not between"},
		{"a long cache", func(c *auth.Config) { c.JWKSMaxAge = 25 * time.Hour }, "JWKSMaxAge (25h0m0s) is not between"},
		{"too large a token cache", func(c *auth.Config) { c.TokenCacheSize = 1<<20 + 1 }, "TokenCacheSize (1048577) exceeds 1048576"},
		{"a negative staleness", func(c *auth.Config) { c.MaxStale = -1 }, "MaxStale (-1ns) is not between 1s and 24h0m0s"},
		{"a short staleness", func(c *auth.Config) { c.MaxStale = 999 * time.Millisecond }, "MaxStale (999ms) is not between 1s and 24h0m0s"},
		{"a long staleness", func(c *auth.Config) { c.MaxStale = 24*time.Hour + 1 }, "MaxStale (24h0m0.000000001s) is not between 1s and 24h0m0s"},
		{"a staleness of a year", func(c *auth.Config) { c.MaxStale = 10000 * time.Hour }, "MaxStale (10000h0m0s) is not between 1s and 24h0m0s"},
		{"no such policy", func(c *auth.Config) { c.StalePolicy = 3 }, "StalePolicy (3) must be StaleContinue, StaleAskStore or StaleRefuse"},
		{"no such policy, below", func(c *auth.Config) { c.StalePolicy = -1 }, "StalePolicy (-1) must be StaleContinue, StaleAskStore or StaleRefuse"},
		{"a bad prefix", func(c *auth.Config) {
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), {}}
		}, "TrustedProxies[1] is not a valid prefix"},
		{
			"a mapped prefix", func(c *auth.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")} },
			"TrustedProxies[0] (::ffff:10.0.0.0/104) matches no address; write it as an IPv4 prefix, 10.0.0.0/8",
		},

		{"AutoRefresh without cookies", func(c *auth.Config) { c.AutoRefresh = true }, "AutoRefresh requires Config.Cookies"},
		{
			"SameSite None", cookies(func(c *auth.Cookies) { c.SameSite = http.SameSiteNoneMode }),
			"Cookies.SameSite is None, so browsers send the cookies with requests from every site; list your sites in TrustedOrigins",
		},
		{"SameSite None over http", cookies(func(c *auth.Cookies) {
			c.SameSite, c.InsecureHTTP, c.TrustedOrigins = http.SameSiteNoneMode, true, []string{"https://app.example.com"}
		}), "Cookies.SameSite is None, which requires Secure cookies, but InsecureHTTP is set"},
		{"SameSite default", cookies(func(c *auth.Cookies) { c.SameSite = http.SameSiteDefaultMode }), "Cookies.SameSite (1) must be Lax, Strict or None"},
		{"no such SameSite", cookies(func(c *auth.Cookies) { c.SameSite = 9 }), "Cookies.SameSite (9) must be Lax, Strict or None"},
		{
			"a name with a space", cookies(func(c *auth.Cookies) { c.AccessName = "my access" }),
			`Cookies.AccessName "my access" is not a cookie name of 1 to 128 characters (RFC 6265 section 4.1.1)`,
		},
		{
			"a name with =", cookies(func(c *auth.Cookies) { c.RefreshName = "a=b" }),
			`Cookies.RefreshName "a=b" is not a cookie name of 1 to 128 characters (RFC 6265 section 4.1.1)`,
		},
		{
			"a name without __Host-", cookies(func(c *auth.Cookies) { c.AccessName = "access" }),
			`Cookies.AccessName "access" does not begin with __Host-, so other hosts of the site can set the cookie; InsecureNames allows this`,
		},
		{
			"__Secure- does not suffice", cookies(func(c *auth.Cookies) { c.RefreshName = "__Secure-r" }),
			`Cookies.RefreshName "__Secure-r" does not begin with __Host-`,
		},
		{
			"__Http- does not suffice", cookies(func(c *auth.Cookies) { c.RefreshName = "__Http-r" }),
			`Cookies.RefreshName "__Http-r" does not begin with __Host-`,
		},
		{
			"a prefix in other letters", cookies(func(c *auth.Cookies) { c.AccessName = "__HOST-a" }),
			`Cookies.AccessName "__HOST-a" does not begin with __Host-`,
		},
		{"a prefix within", cookies(func(c *auth.Cookies) { c.RefreshName = "my__Host-r" }), `Cookies.RefreshName "my__Host-r" does not begin with __Host-`},
		{
			"__Http- over http", cookies(func(c *auth.Cookies) { c.RefreshName, c.InsecureHTTP = "__Http-r", true }),
			`Cookies.RefreshName "__Http-r" has a prefix that requires Secure cookies, but InsecureHTTP is set`,
		},
		{
			"prefixes over http, names that are insecure",
			cookies(func(c *auth.Cookies) { c.AccessName, c.InsecureHTTP, c.InsecureNames = "__Host-a", true, true }),
			`Cookies.AccessName "__Host-a" has a prefix that requires Secure`,
		},
		{
			"a long name", cookies(func(c *auth.Cookies) { c.AccessName = strings.Repeat("a", 129) }),
			` is not a cookie name of 1 to 128 characters (RFC 6265 section 4.1.1)`,
		},
		{
			"equal names", cookies(func(c *auth.Cookies) { c.AccessName, c.RefreshName = "__Host-x", "__Host-x" }),
			`Cookies.AccessName and RefreshName are both "__Host-x"`,
		},
		{
			"the other's default name", cookies(func(c *auth.Cookies) { c.AccessName = "__Host-Http-refresh" }),
			`Cookies.AccessName and RefreshName are both "__Host-Http-refresh"`,
		},
		{
			"__Host- over http", cookies(func(c *auth.Cookies) { c.AccessName, c.InsecureHTTP = "__Host-a", true }),
			`Cookies.AccessName "__Host-a" has a prefix that requires Secure cookies, but InsecureHTTP is set`,
		},
		{
			"__SECURE- over http", cookies(func(c *auth.Cookies) { c.RefreshName, c.InsecureHTTP = "__SECURE-r", true }),
			`Cookies.RefreshName "__SECURE-r" has a prefix that requires Secure cookies, but InsecureHTTP is set`,
		},

		{"a zero extractor", extractors(auth.FromBearer(), auth.Extractor{}), "Extractors[1] is the zero Extractor"},
		{"an extractor twice", extractors(auth.FromBearer(), auth.FromBearer()), "Extractors[1] duplicates Config.Extractors[0]"},
		{"a header twice", extractors(auth.FromHeader("X-Access-Token"), auth.FromHeader("x-access-token")), "Extractors[1] duplicates Config.Extractors[0]"},
		{"a cookie without cookies", extractors(auth.FromCookie()), "Extractors[0] reads a cookie, but Cookies is nil"},
		{"a header without a name", extractors(auth.FromHeader("")), `Extractors[0]: "" is not a valid header name, such as X-Access-Token`},
		{"a header with a space", extractors(auth.FromHeader("X Token")), `Extractors[0]: "X Token" is not a valid header name`},
		{"a query without a name", extractors(auth.FromQuery("")), `Extractors[0]: "" is not a valid parameter name, such as access_token`},
	} {
		got := newErrors(t, c.change)
		require.NotEmpty(t, got, c.name)
		require.True(t, slices.ContainsFunc(got, func(line string) bool {
			return strings.HasPrefix(line, "auth: Config."+c.want) || strings.HasPrefix(c.want, " ") && strings.HasSuffix(line, c.want)
		}), "%s: %q", c.name, got)
		for _, line := range got {
			require.True(t, strings.HasPrefix(line, "auth: Config."), "%s: %q", c.name, line)
			require.NotContains(t, line, "Config.Config", c.name)
			require.False(t, strings.HasSuffix(line, "."), c.name)
		}
	}
}

func TestNew_ReportsAllMistakesAtOnce(t *testing.T) {
	t.Parallel()
	_, err := auth.New(auth.Config{
		Secrets: [][]byte{secret[:8]}, AccessTTL: time.Millisecond, IdleTTL: time.Hour, SessionTTL: time.Minute,
		RetryWindow: time.Hour, Leeway: time.Second, StoreTimeout: -1, MaxStale: -1, StalePolicy: 7,
		TrustedProxies: make([]netip.Prefix, 1), Cookies: &auth.Cookies{SameSite: 8, TrustedOrigins: []string{"null"}},
		AutoRefresh: true, Extractors: []auth.Extractor{{}}, Hasher: &password.Hasher{Memory: 1},
	})
	require.Error(t, err)
	for _, field := range []string{
		"Issuer", "Audience", "Secrets[0]", "Users", "AccessTTL", "IdleTTL", "RetryWindow", "StoreTimeout", "MaxStale", "StalePolicy",
		"TrustedProxies[0]", "Cookies.SameSite", "Cookies.TrustedOrigins[0]", "Extractors[0]", "Hasher",
	} {
		require.Contains(t, err.Error(), "auth: Config."+field, field)
	}
	require.NotContains(t, err.Error(), string(secret[:8]))

	_, err = auth.New(auth.Config{})
	require.Equal(t, []string{
		"auth: Config.Secrets has no secret; create one with `openssl rand -base64 48` and set Config.Secrets, " +
			"or set both Config.AccessKeys and Config.RefreshKeys",
		"auth: Config.Users is nil; set it to your application's user lookup",
		"auth: Config.Issuer is empty; set it to the URL of the service that issues the tokens",
		"auth: Config.Audience is empty; name the service that the tokens are for",
	}, strings.Split(err.Error(), "\n"), "these and no others")

	// A nil Store is one mistake. Config has no Feed.
	require.Equal(t, []string{"auth: Config.Store is a nil *auth_test.testStore; create the value before you pass it"},
		newErrors(t, func(c *auth.Config) { c.Store = (*testStore)(nil) }))
}

func distinctAudiences(n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("%s/%d", audience, i))
	}
	return list
}

// These are user lookups of kinds that can be nil.
type (
	sliceUsers []auth.User
	funcUsers  func(login string) (auth.User, error)
	chanUsers  chan auth.User
)

func (sliceUsers) FindByLogin(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (sliceUsers) FindByID(context.Context, string) (auth.User, error) {
	return auth.User{}, auth.ErrUserNotFound
}

func (f funcUsers) FindByLogin(_ context.Context, login string) (auth.User, error) { return f(login) }

func (f funcUsers) FindByID(_ context.Context, id string) (auth.User, error) { return f(id) }

func (c chanUsers) FindByLogin(context.Context, string) (auth.User, error) { return <-c, nil }

func (c chanUsers) FindByID(context.Context, string) (auth.User, error) { return <-c, nil }

// structUsers has no value that is nil.
type structUsers struct{ sliceUsers }

func TestNew_AcceptsValuesAtTheBounds(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*auth.Config){
		"unchanged":              func(*auth.Config) {},
		"users by value":         func(c *auth.Config) { c.Users = structUsers{} },
		"an empty map":           func(c *auth.Config) { c.Users = mapUsers{} },
		"an issuer with a space": func(c *auth.Config) { c.Issuer, c.Audience = "my service", []string{"Caf\u00e9 \U0001F600", "urn:x"} },
		"longest staleness":      func(c *auth.Config) { c.MaxStale = 24 * time.Hour },
		"longest access":         func(c *auth.Config) { c.AccessTTL = 24 * time.Hour },
		"shortest access":        func(c *auth.Config) { c.AccessTTL = 21*time.Second + time.Millisecond },
		"no leeway":              func(c *auth.Config) { c.AccessTTL, c.Leeway = time.Second+time.Millisecond, -1 },
		"longest leeway":         func(c *auth.Config) { c.AccessTTL, c.Leeway = 2*time.Minute+2*time.Second, time.Minute },
		"longest window":         func(c *auth.Config) { c.RetryWindow = time.Minute },
		"no window":              func(c *auth.Config) { c.RetryWindow = -1 },
		"shortest idle":          func(c *auth.Config) { c.IdleTTL = 15*time.Minute + 10*time.Second + 300*time.Millisecond },
		"shortest with window": func(c *auth.Config) {
			c.IdleTTL, c.RetryWindow = 15*time.Minute+40*time.Second, 10*time.Second
		},
		"a session of a day":   func(c *auth.Config) { c.SessionTTL = 24 * time.Hour },
		"a session of minutes": func(c *auth.Config) { c.SessionTTL = 16 * time.Minute },
		"idle of minutes":      func(c *auth.Config) { c.IdleTTL, c.AccessTTL = 20*time.Minute, 5*time.Minute },
		"idle of seconds": func(c *auth.Config) {
			c.IdleTTL, c.AccessTTL, c.Leeway = 4*time.Second, 2*time.Second, time.Millisecond
		},
		"access of seconds": func(c *auth.Config) { c.AccessTTL, c.Leeway = 2*time.Second, time.Millisecond },
		"a session of seconds": func(c *auth.Config) {
			c.SessionTTL, c.AccessTTL, c.Leeway = 3*time.Second, 2*time.Second, -1
		},
		"shortest of all":  func(c *auth.Config) { c.IdleTTL, c.RetryWindow, c.Leeway = 15*time.Minute, -time.Hour, -time.Hour },
		"idle is absolute": func(c *auth.Config) { c.SessionTTL = 7 * 24 * time.Hour },
		"longest session":  func(c *auth.Config) { c.SessionTTL = 10 * 365 * 24 * time.Hour },
		"longest of both":  func(c *auth.Config) { c.IdleTTL, c.SessionTTL = 10*365*24*time.Hour, 10*365*24*time.Hour },
		"shortest timeout": func(c *auth.Config) { c.StoreTimeout = time.Millisecond },
		"longest timeout":  func(c *auth.Config) { c.StoreTimeout = time.Minute },
		"no session limit": func(c *auth.Config) { c.MaxSessions = -1 },
		"policies":         func(c *auth.Config) { c.StalePolicy, c.MaxStale = auth.StaleRefuse, time.Second },
		"a secret of 32":   func(c *auth.Config) { c.Secrets = [][]byte{distinctBytes(32), distinctBytes(33)} },
		"a zero hasher":    func(c *auth.Config) { c.Hasher = nil },
		"separate keys":    knownKeys,
		"empty key lists":  func(c *auth.Config) { c.AccessKeys, c.RefreshKeys = auth.Keys{}, auth.Keys{} },
		"cookies":          func(c *auth.Config) { c.Cookies = &auth.Cookies{} },
		"strict cookies":   func(c *auth.Config) { c.Cookies = &auth.Cookies{SameSite: http.SameSiteStrictMode} },
		"cookies for loopback": func(c *auth.Config) {
			c.Issuer = devIssuer
			c.Cookies = &auth.Cookies{InsecureHTTP: true, TrustedOrigins: []string{"http://localhost:3000", "http://127.0.0.1", "http://[::1]:8080"}}
		},
		"cookies for all sites": func(c *auth.Config) {
			c.Cookies = &auth.Cookies{
				SameSite: http.SameSiteNoneMode,
				TrustedOrigins: []string{
					"https://app.example.com", "https://xn--bcher-kva.example", "https://app.example.com:8443",
					"https://app.example.com:80",
				},
			}
		},
		"own names": func(c *auth.Config) {
			c.Cookies = &auth.Cookies{AccessName: strings.Repeat("a", 128), RefreshName: "__Secure-r", InsecureNames: true}
		},
		"names":          func(c *auth.Config) { c.Cookies = &auth.Cookies{AccessName: "__Host-a", RefreshName: "__Host-Http-r"} },
		"loopback names": withCookiesOf(auth.Cookies{AccessName: "a", RefreshName: "r", InsecureHTTP: true}),
		"AutoRefresh":    func(c *auth.Config) { c.AutoRefresh, c.Cookies = true, &auth.Cookies{} },
		"all extractors": func(c *auth.Config) {
			c.Cookies, c.Extractors = &auth.Cookies{}, []auth.Extractor{
				auth.FromBearer(), auth.FromCookie(), auth.FromHeader("X-Access-Token"), auth.FromQuery("access_token"),
			}
		},
		"proxies": func(c *auth.Config) {
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
		},
	} {
		require.Empty(t, newErrors(t, change), name)
	}
}

func TestNew_CopiesItsConfiguration(t *testing.T) {
	t.Parallel()
	c := newClock()
	store := database{auth.NewMemoryStore()}
	jar := &auth.Cookies{TrustedOrigins: []string{"https://app.example.com"}}
	config := auth.Config{
		Issuer: issuer, Audience: []string{audience}, AccessKeys: keysOf(accessSecret), RefreshKeys: keysOf(refreshSecret),
		Users: newUsers(), Hasher: fastHasher, Now: c.Now, Store: store,
		Cookies: jar, Extractors: []auth.Extractor{auth.FromBearer(), auth.FromCookie()}, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
	}
	a, err := auth.New(config)
	require.NoError(t, err)
	go func() { _ = a.Run(t.Context()) }()
	<-a.Ready()
	derived := goodConfig()
	shared := slices.Clone(secret)
	derived.Secrets = [][]byte{shared}
	d, err := auth.New(derived)
	require.NoError(t, err)
	derivedTokens, err := d.StartSession(context.Background(), "u1", auth.SessionOptions{})
	require.NoError(t, err)

	config.Audience[0] = "https://attacker.example"
	config.AccessKeys[0], config.RefreshKeys[0] = auth.HS256(access2Secret), auth.HS256(refresh2Secret)
	config.Extractors[0], config.Extractors[1] = auth.FromQuery("t"), auth.FromQuery("t")
	config.TrustedProxies[0] = netip.MustParsePrefix("0.0.0.0/0")
	jar.TrustedOrigins[0], jar.AccessName, jar.InsecureHTTP = "https://attacker.example", "changed", true
	clear(shared)
	derived.Secrets[0] = distinctBytes(40)

	tokens, err := a.StartSession(context.Background(), "u1", auth.SessionOptions{})
	require.NoError(t, err)
	_, payload := decodeToken(t, tokens.Access)
	require.Equal(t, []any{audience}, payload["aud"])
	header, _ := decodeToken(t, tokens.Refresh)
	require.Equal(t, auth.HS256(refreshSecret).ID(), header["kid"])
	f := newForger("access", c.Now())
	_, err = a.Verify(context.Background(), f.genuine())
	require.NoError(t, err)
	_, err = a.Verify(context.Background(), handSigned(access2Secret, f.header().with("kid", quote(f.second.ID())).String(), f.claims.String()))
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	_, err = a.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	w := httptest.NewRecorder()
	a.SetCookies(w, tokens)
	require.Contains(t, w.Header().Get("Set-Cookie"), "__Host-access=")
	require.Contains(t, w.Header().Get("Set-Cookie"), "Secure")
	r := httptest.NewRequest(http.MethodPost, "https://example.com/?t=x", nil)
	r.Header.Set("Origin", "https://attacker.example")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	require.ErrorIs(t, a.CheckOrigin(r), auth.ErrCrossOrigin)
	_, _, err = a.AccessToken(r)
	require.ErrorIs(t, err, auth.ErrNoToken)
	r.RemoteAddr = "198.51.100.1:1"
	r.Header.Set("X-Forwarded-For", "203.0.113.9")
	require.Equal(t, "198.51.100.1", a.Device(r).IP.String())

	derivedAgain, err := d.StartSession(context.Background(), "u1", auth.SessionOptions{})
	require.NoError(t, err)
	for _, token := range []string{derivedTokens.Access, derivedAgain.Access} {
		_, err = d.Verify(context.Background(), token)
		require.NoError(t, err)
	}

	// Each request has its own claims.
	one, err := a.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
	one.Audience[0], one.Roles[0] = "changed", "changed"
	two, err := a.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
	require.Equal(t, []string{audience}, two.Audience)
	require.Equal(t, []string{"admin", "user"}, two.Roles)
}

func TestNew_AppliesDefaults(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	tokens := fx.login(t)
	now := fx.clock.Now()
	require.Equal(t, now.Add(15*time.Minute), tokens.AccessExpiresAt)
	require.Equal(t, now.Add(7*24*time.Hour), tokens.RefreshExpiresAt)
	// The session ends 30 days after the login.
	for range 6 {
		fx.clock.Advance(5*24*time.Hour - time.Second)
		var err error
		tokens, err = fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
		require.NoError(t, err)
	}
	require.Equal(t, now.Add(30*24*time.Hour), tokens.RefreshExpiresAt)
	require.Equal(t, tokens.RefreshExpiresAt, tokens.AccessExpiresAt)
	// A user has at most 100 sessions.
	for range 103 {
		_, err := fx.StartSession(context.Background(), "u2", auth.SessionOptions{})
		require.NoError(t, err)
		fx.clock.Advance(time.Millisecond)
	}
	list, err := fx.Sessions(context.Background(), "u2")
	require.NoError(t, err)
	require.Len(t, list, 100)
}

func TestNewVerifier_NamesTheFieldOfEveryMistake(t *testing.T) {
	t.Parallel()
	good := func() auth.VerifierConfig {
		return auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: keysOf(accessSecret)}
	}
	for name, c := range map[string]struct {
		change func(*auth.VerifierConfig)
		want   string
	}{
		"no issuer":         {func(c *auth.VerifierConfig) { c.Issuer = "" }, "Issuer is empty; set it to the URL of the service that issues the tokens"},
		"a blank issuer":    {func(c *auth.VerifierConfig) { c.Issuer = "\u2000" }, `Issuer "\u2000" is blank; set it to a name such as https://example.com`},
		"an audience twice": {func(c *auth.VerifierConfig) { c.Audience = []string{"a", "a"} }, "Audience[1] duplicates VerifierConfig.Audience[0]"},
		"a nil feed": {
			func(c *auth.VerifierConfig) { c.Feed = (*testStore)(nil) },
			"Feed is a nil *auth_test.testStore; create the value before you pass it",
		},
		"a zero MemoryStore": {
			func(c *auth.VerifierConfig) { c.Feed = &auth.MemoryStore{} },
			"Feed is a zero MemoryStore; create it with NewMemoryStore",
		},
		"a nil pointer to keys": {
			func(c *auth.VerifierConfig) { c.Keys = (*auth.Keys)(nil) },
			"Keys is a nil *auth.Keys; create the value before you pass it",
		},
		"a nil key source": {
			func(c *auth.VerifierConfig) { c.Keys = funcKeys(nil) },
			"Keys is a nil auth_test.funcKeys; create the value before you pass it",
		},
		"a nil list":              {func(c *auth.VerifierConfig) { c.Keys = auth.Keys(nil) }, "Keys is empty; add a key that verifies access tokens"},
		"a pointer to a zero key": {func(c *auth.VerifierConfig) { c.Keys = &auth.Keys{{}} }, "Keys[0] is the zero Key; create it with HS256, EdDSA or a similar function"},
		"no audience":             {func(c *auth.VerifierConfig) { c.Audience = []string{} }, "Audience is empty; name the service that the tokens are for"},
		"an empty audience":       {func(c *auth.VerifierConfig) { c.Audience = []string{""} }, "Audience[0] is empty; remove it, or name a service that the tokens are for"},
		"not printable":           {func(c *auth.VerifierConfig) { c.Issuer = "\x00" }, `Issuer must be UTF-8 without control characters, but is "\x00"`},
		"no keys":                 {func(c *auth.VerifierConfig) { c.Keys = nil }, "Keys is nil; set it to the keys that verify access tokens"},
		"an empty list":           {func(c *auth.VerifierConfig) { c.Keys = auth.Keys{} }, "Keys is empty; add a key that verifies access tokens"},
		"a zero key":              {func(c *auth.VerifierConfig) { c.Keys = auth.Keys{{}} }, "Keys[0] is the zero Key; create it with HS256, EdDSA or a similar function"},
		"a bad key": {
			func(c *auth.VerifierConfig) { c.Keys = auth.Keys{auth.HS256(nil)} },
			"Keys[0] (HS256): the secret is 0 bytes; it must be at least 32; create one with `openssl rand -base64 48`",
		},
		"leeway":        {func(c *auth.VerifierConfig) { c.Leeway = 61 * time.Second }, "Leeway (1m1s) exceeds 1m0s"},
		"staleness":     {func(c *auth.VerifierConfig) { c.MaxStale = -time.Second }, "MaxStale (-1s) is not between 1s and 24h0m0s"},
		"store timeout": {func(c *auth.VerifierConfig) { c.StoreTimeout = time.Hour }, "StoreTimeout (1h0m0s) is not between 1ms and 1m0s"},
		"policy":        {func(c *auth.VerifierConfig) { c.StalePolicy = 42 }, "StalePolicy (42) must be StaleContinue, StaleAskStore or StaleRefuse"},
		"proxies":       {func(c *auth.VerifierConfig) { c.TrustedProxies = make([]netip.Prefix, 1) }, "TrustedProxies[0] is not a valid prefix"},
		"cookies": {
			func(c *auth.VerifierConfig) { c.Cookies = &auth.Cookies{AccessName: ";"} },
			`Cookies.AccessName ";" is not a cookie name of 1 to 128 characters (RFC 6265 section 4.1.1)`,
		},
		"origins": {
			func(c *auth.VerifierConfig) { c.Cookies = &auth.Cookies{TrustedOrigins: []string{"null"}} },
			`Cookies.TrustedOrigins[0] "null": any page can have the origin null, for example in a sandboxed frame; ` +
				`send tokens to such clients in bodies (AllowBody)`,
		},
		"extractors": {func(c *auth.VerifierConfig) { c.Extractors = []auth.Extractor{auth.FromCookie()} }, "Extractors[0] reads a cookie, but Cookies is nil; set Cookies, or remove it"},
	} {
		config := good()
		c.change(&config)
		v, err := auth.NewVerifier(config)
		require.EqualError(t, err, "auth: VerifierConfig."+c.want, name)
		require.Nil(t, v, name)
	}
	_, err := auth.NewVerifier(auth.VerifierConfig{Leeway: time.Hour, MaxStale: -1})
	require.ElementsMatch(
		t,
		[]string{
			"auth: VerifierConfig.Issuer is empty; set it to the URL of the service that issues the tokens",
			"auth: VerifierConfig.Audience is empty; name the service that the tokens are for",
			"auth: VerifierConfig.Keys is nil; set it to the keys that verify access tokens", "auth: VerifierConfig.Leeway (1h0m0s) exceeds 1m0s",
			"auth: VerifierConfig.MaxStale (-1ns) is not between 1s and 24h0m0s",
		},
		strings.Split(err.Error(), "\n"),
	)

	config := good()
	config.Now = newClock().Now
	for _, keys := range []auth.KeySource{config.Keys, &auth.Keys{auth.HS256(accessSecret)}} {
		config.Audience[0], config.Keys = audience, keys
		v, err := auth.NewVerifier(config)
		require.NoError(t, err)
		config.Audience[0] = "changed"
		if list, ok := keys.(*auth.Keys); ok {
			*list = keysOf(access2Secret)
		} else {
			keys.(auth.Keys)[0] = auth.HS256(access2Secret)
		}
		_, err = v.Verify(context.Background(), newForger("access", newClock().Now()).genuine())
		require.NoError(t, err, "the configuration must be copied")
	}
}

// funcKeys is a key source that is a function.
type funcKeys func(ctx context.Context, id string) ([]auth.Key, error)

func (f funcKeys) VerifyKeys(ctx context.Context, id string) ([]auth.Key, error) { return f(ctx, id) }

func TestNewVerifier_VerifiesTokensOfAnAuthenticator(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys)
	config := auth.VerifierConfig{
		Issuer: issuer, Audience: []string{"https://other.example.com", audience}, Keys: keysOf(access2Secret, accessSecret),
		Now: fx.clock.Now,
	}
	alone, err := auth.NewVerifier(config)
	require.NoError(t, err)
	require.Equal(t, auth.Health{Ready: true}, alone.Health(), "there is no feed to follow")
	config.Feed = fx.store
	follows, err := auth.NewVerifier(config)
	require.NoError(t, err)
	tokens := fx.login(t)

	c, err := alone.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
	require.Equal(t, tokens.SessionID, c.SessionID)
	_, err = alone.Verify(context.Background(), tokens.Refresh)
	require.ErrorIs(t, err, auth.ErrInvalidToken)

	// A Verifier with a feed is unavailable until it has read the feed.
	_, err = follows.Verify(context.Background(), tokens.Access)
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.False(t, follows.Health().Ready)
	_, err = follows.Verify(context.Background(), tokens.Access+"x")
	require.ErrorIs(t, err, auth.ErrInvalidToken, "invalid tokens are refused without the feed")
	require.NoError(t, fx.ExpireAccess(context.Background(), "u2"), "a revocation published before")
	go func() { _ = follows.Run(t.Context()) }()
	<-follows.Ready()
	require.Equal(t, 1, follows.Health().Revocations)
	_, err = follows.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)

	require.NoError(t, fx.Logout(context.Background(), tokens.Refresh))
	require.Eventually(t, func() bool { return follows.Health().Revocations == 2 }, 5*time.Second, time.Millisecond)
	_, err = follows.Verify(context.Background(), tokens.Access)
	require.ErrorIs(t, err, auth.ErrSessionRevoked)
	_, err = alone.Verify(context.Background(), tokens.Access)
	require.NoError(t, err, "without a feed, tokens of a revoked session are valid until they expire")

	for name, change := range map[string]func(*auth.VerifierConfig){
		"another issuer":   func(c *auth.VerifierConfig) { c.Issuer = audience },
		"another audience": func(c *auth.VerifierConfig) { c.Audience = []string{issuer} },
		"another key":      func(c *auth.VerifierConfig) { c.Keys = keysOf(refreshSecret) },
	} {
		config := config
		config.Feed = nil
		change(&config)
		v, err := auth.NewVerifier(config)
		require.NoError(t, err)
		_, err = v.Verify(context.Background(), tokens.Access)
		require.ErrorIs(t, err, auth.ErrInvalidToken, name)
	}
}

// A positive duration below a millisecond is a number without a unit. Each such
// field is one mistake, and the error shows the value as it was given.
func TestNew_RefusesDurationsWithoutAUnit(t *testing.T) {
	t.Parallel()
	for name, field := range map[string]func(*auth.Config) *time.Duration{
		"AccessTTL":    func(c *auth.Config) *time.Duration { return &c.AccessTTL },
		"IdleTTL":      func(c *auth.Config) *time.Duration { return &c.IdleTTL },
		"SessionTTL":   func(c *auth.Config) *time.Duration { return &c.SessionTTL },
		"RetryWindow":  func(c *auth.Config) *time.Duration { return &c.RetryWindow },
		"Leeway":       func(c *auth.Config) *time.Duration { return &c.Leeway },
		"StoreTimeout": func(c *auth.Config) *time.Duration { return &c.StoreTimeout },
		"MaxStale":     func(c *auth.Config) *time.Duration { return &c.MaxStale },
		"JWKSMaxAge":   func(c *auth.Config) *time.Duration { return &c.JWKSMaxAge },
	} {
		for _, d := range []time.Duration{1, 10, 900, 86400, time.Millisecond - 1} {
			require.Equal(t, []string{fmt.Sprintf("auth: Config.%s (%s) is less than 1ms; missing time unit?", name, d)},
				newErrors(t, func(c *auth.Config) { *field(c) = d }))
		}
	}
	for name, field := range map[string]func(*auth.VerifierConfig) *time.Duration{
		"StoreTimeout": func(c *auth.VerifierConfig) *time.Duration { return &c.StoreTimeout },
		"Leeway":       func(c *auth.VerifierConfig) *time.Duration { return &c.Leeway },
		"MaxStale":     func(c *auth.VerifierConfig) *time.Duration { return &c.MaxStale },
	} {
		c := auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: keysOf(accessSecret)}
		*field(&c) = 10
		_, err := auth.NewVerifier(c)
		require.EqualError(t, err, "auth: VerifierConfig."+name+" (10ns) is less than 1ms; missing time unit?")
	}
	// All mistakes are reported at once.
	require.Len(t, newErrors(t, func(c *auth.Config) {
		c.AccessTTL, c.IdleTTL, c.SessionTTL, c.RetryWindow, c.Leeway, c.StoreTimeout, c.MaxStale, c.JWKSMaxAge = 1, 2, 3, 4, 5, 6, 7, 8
	}), 8)
	// Any negative value turns the feature off.
	require.Empty(t, newErrors(t, func(c *auth.Config) { c.RetryWindow, c.Leeway = -1, -10 }))
}

// The defaults of unset lifetimes fit the lifetimes that are set.
func TestNew_DefaultLifetimesFitThoseThatAreSet(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change       func(*auth.Config)
		idle, window time.Duration
	}{
		"nothing":             {func(*auth.Config) {}, 7 * 24 * time.Hour, 30 * time.Second},
		"a session of a day":  {func(c *auth.Config) { c.SessionTTL = 24 * time.Hour }, 24 * time.Hour, 30 * time.Second},
		"a session of a week": {func(c *auth.Config) { c.SessionTTL = 7 * 24 * time.Hour }, 7 * 24 * time.Hour, 30 * time.Second},
		"a session of a year": {func(c *auth.Config) { c.SessionTTL = 365 * 24 * time.Hour }, 7 * 24 * time.Hour, 30 * time.Second},
		"idle of 20 minutes":  {func(c *auth.Config) { c.IdleTTL, c.AccessTTL = 20*time.Minute, 5*time.Minute }, 20 * time.Minute, 30 * time.Second},
		"idle just enough":    {func(c *auth.Config) { c.IdleTTL = 15*time.Minute + 100*time.Second }, 15*time.Minute + 100*time.Second, 30 * time.Second},
		"idle of less":        {func(c *auth.Config) { c.IdleTTL = 15*time.Minute + 25*time.Second }, 15*time.Minute + 25*time.Second, 5 * time.Second},
		"a session of less":   {func(c *auth.Config) { c.SessionTTL = 15*time.Minute + 13*time.Second }, 15*time.Minute + 13*time.Second, time.Second},
		"seconds": {
			func(c *auth.Config) { c.AccessTTL, c.IdleTTL, c.Leeway = 2*time.Second, 8*time.Second, -1 }, 8 * time.Second, 2 * time.Second,
		},
		"a window that was set": {func(c *auth.Config) { c.SessionTTL, c.RetryWindow = time.Hour, time.Minute }, time.Hour, time.Minute},
		"no window":             {func(c *auth.Config) { c.SessionTTL, c.RetryWindow = time.Hour, -1 }, time.Hour, 0},
	} {
		fx := newFixture(t, c.change)
		first := fx.login(t)
		require.Equal(t, fx.clock.Now().Add(c.idle), first.RefreshExpiresAt, name)
		second, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{})
		require.NoError(t, err, name)
		if c.window > 0 {
			fx.clock.Advance(c.window)
			again, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{})
			require.NoError(t, err, name)
			require.Equal(t, second.Refresh, again.Refresh, name)
		}
		fx.clock.Advance(time.Millisecond)
		_, err = fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{})
		require.ErrorIs(t, err, auth.ErrTokenReused, name)
	}
}
