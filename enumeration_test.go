package auth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

// refusedLogin is a login that must be refused in the same way as all others.
type refusedLogin struct{ kind, login, pass string }

const wrongPass = "wrong horse battery staple" // as long as pass

// refusedLogins are the kinds of refused logins of strangers. The first is a wrong
// password.
var refusedLogins = []refusedLogin{
	{"wrong password", "ada", wrongPass},
	{"unknown user", "eve", wrongPass},
	{"disabled, wrong password", "bob", wrongPass},
	{"disabled, right password", "bob", pass},
	{"no password", "pia", wrongPass},
	{"no password, disabled", "ida", wrongPass},
	{"unreadable hash", "una", wrongPass},
	{"bcrypt", "bea", wrongPass},
	{"bcrypt, disabled, right password", "ben", pass},
	{"less argon2id", "leo", wrongPass},
	{"more argon2id", "max", wrongPass},
	{"user without an ID", "nil", wrongPass},
	{"user with an invalid role", "rob", wrongPass},
	{"user with an invalid role, disabled, right password", "ros", pass},
	{"NUL in the login", "a\x00a", wrongPass},
	{"long login", strings.Repeat("x", 10_000), wrongPass},
}

// strangers is a user lookup with a user for each kind in refusedLogins. It counts
// its calls.
type strangers struct {
	byLogin map[string]auth.User
	calls   atomic.Int64 // of FindByLogin
	others  atomic.Int64 // of FindByID
}

func (s *strangers) FindByLogin(_ context.Context, login string) (auth.User, error) {
	s.calls.Add(1)
	u, ok := s.byLogin[login]
	if !ok {
		return auth.User{}, auth.ErrUserNotFound
	}
	return u, nil
}

func (s *strangers) FindByID(_ context.Context, id string) (auth.User, error) {
	s.others.Add(1)
	for _, u := range s.byLogin {
		if u.ID == id {
			return u, nil
		}
	}
	return auth.User{}, auth.ErrUserNotFound
}

// newStrangers returns users whose hashes are those of h, unless the kind is about
// the hash.
func newStrangers(t testing.TB, h *password.Hasher, bcryptCost int) *strangers {
	t.Helper()
	hashOf := func(h *password.Hasher) string {
		hash, err := h.Hash(t.Context(), pass)
		require.NoError(t, err)
		return hash
	}
	hash := hashOf(h)
	slow, err := bcrypt.GenerateFromPassword([]byte(pass), bcryptCost)
	require.NoError(t, err)
	s := &strangers{byLogin: map[string]auth.User{}}
	for login, u := range map[string]auth.User{
		"ada": {PasswordHash: hash},
		"bob": {PasswordHash: hash, Disabled: true},
		"pia": {},
		"ida": {Disabled: true},
		"una": {PasswordHash: "$argon2id$nonsense"},
		"bea": {PasswordHash: string(slow)},
		"ben": {PasswordHash: string(slow), Disabled: true},
		"leo": {PasswordHash: hashOf(&password.Hasher{Memory: 8, Time: 1})},
		"max": {PasswordHash: hashOf(&password.Hasher{Memory: max(h.Memory, 8) * 2, Time: h.Time + 1})},
		"nil": {PasswordHash: hash},
		"rob": {PasswordHash: hash, Roles: []string{""}},
		"ros": {PasswordHash: hash, Roles: []string{""}, Disabled: true},
	} {
		u.Username = login
		if login != "nil" {
			u.ID = "id of " + login
		}
		s.byLogin[login] = u
	}
	return s
}

// countingLimiter is a Limiter that never throttles. It counts its calls, and calls
// onTake.
type countingLimiter struct {
	takes, settles atomic.Int64
	onTake         func()
}

func (l *countingLimiter) Take(context.Context, []auth.Bucket) (time.Duration, int, error) {
	l.takes.Add(1)
	if l.onTake != nil {
		l.onTake()
	}
	return 0, 0, nil
}

func (l *countingLimiter) Settle(context.Context, []auth.Bucket, []auth.Bucket) error {
	l.settles.Add(1)
	return nil
}

// countingContext counts the calls of Err: the queue of a Hasher asks once for each
// hash.
type countingContext struct {
	context.Context
	calls *atomic.Int64
}

func (c countingContext) Err() error {
	c.calls.Add(1)
	return c.Context.Err()
}

// loginEndpoints are the HTTP endpoints that take a login name.
var loginEndpoints = []struct {
	name    string
	config  func(*auth.Config)
	handler func(a *auth.Authenticator) http.Handler
	body    func(t testing.TB, l refusedLogin) requestOption
}{
	{"LoginHandler", func(*auth.Config) {}, (*auth.Authenticator).LoginHandler, loginJSON},
	{"LoginHandler with cookies", withCookies(), (*auth.Authenticator).LoginHandler, loginJSON},
	{"LoginHandler with a second factor", withFactor, (*auth.Authenticator).LoginHandler, loginJSON},
	{"LoginForm", withCookies(), func(a *auth.Authenticator) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := a.LoginForm(w, r); err != nil {
				a.WriteError(w, r, err)
			}
		})
	}, loginJSON},
	{"CheckPassword", func(*auth.Config) {}, func(a *auth.Authenticator) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f, err := auth.ReadFields(r, "login", "password")
			if err == nil {
				_, err = a.CheckPassword(r.Context(), f["login"], f["password"], a.Device(r))
			}
			if err != nil {
				a.WriteError(w, r, err)
			}
		})
	}, loginJSON},
}

func withFactor(c *auth.Config) { c.SecondFactor = everybodysFactor{} }

// everybodysFactor requires a code of every user.
type everybodysFactor struct{}

func (everybodysFactor) Methods(context.Context, auth.User, auth.Device) ([]string, error) {
	return []string{"otp"}, nil
}

func (everybodysFactor) Verify(context.Context, auth.User, string, string) error {
	return auth.ErrInvalidCredentials
}

func loginJSON(t testing.TB, l refusedLogin) requestOption {
	t.Helper()
	body, err := json.Marshal(map[string]string{"login": l.login, "password": l.pass})
	require.NoError(t, err)
	return reqJSON(string(body))
}

// storeCalls returns the number of calls to the store, except those of Run.
func storeCalls(fx *fixture) (n int64) {
	for _, method := range []string{"Create", "Get", "List", "Rotate", "Revoke", "Spend"} {
		n += int64(fx.store.count(method))
	}
	return n
}

// work is what a refused login has done.
type work struct{ lookups, others, takes, settles, contextErrs, refused, store int64 }

func TestEnumeration_RefusedLoginsAreEqualAndDoTheSameWork(t *testing.T) {
	t.Parallel()
	us := newStrangers(t, fastHasher, bcrypt.MinCost)
	for _, e := range loginEndpoints {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			limiter := &countingLimiter{}
			counted := &strangers{byLogin: us.byLogin}
			fx := newFixture(t, func(c *auth.Config) { c.Users, c.Limiter = counted, limiter }, e.config)
			h := e.handler(fx.Authenticator)
			var want response
			var did work
			for i, l := range refusedLogins {
				var errs atomic.Int64
				for _, n := range []*atomic.Int64{&limiter.takes, &limiter.settles, &counted.calls, &counted.others} {
					n.Store(0)
				}
				fx.events.take("")
				before := storeCalls(fx)
				r := httptest.NewRequest(http.MethodPost, "/login", nil)
				e.body(t, l)(r)
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r.WithContext(countingContext{r.Context(), &errs}))
				got := readResponse(t, w.Result())
				refused := int64(len(fx.events.take(auth.EventLoginRefused)))
				now := work{counted.calls.Load(), counted.others.Load(), limiter.takes.Load(), limiter.settles.Load(), errs.Load(), refused, storeCalls(fx) - before}
				if l.kind == "NUL in the login" {
					require.Zero(t, now.lookups, "a database may not accept such a name; no user has it")
					now.lookups = 1
				}
				if i == 0 {
					got.requireRefused(t, http.StatusUnauthorized, "invalid_credentials", "login")
					require.Equal(t, work{lookups: 1, takes: 1, contextErrs: now.contextErrs, refused: 1}, now)
					want, did = got, now
				}
				require.Equal(t, want, got, l.kind)
				require.Equal(t, did, now, l.kind)
			}
		})
	}
}

// Each kind waits for its turn in the queue of the Hasher: if that is given up, no
// kind is refused.
func TestEnumeration_EveryRefusedLoginHashesThePassword(t *testing.T) {
	t.Parallel()
	us := newStrangers(t, fastHasher, bcrypt.MinCost)
	limiter := &countingLimiter{}
	fx := newFixture(t, func(c *auth.Config) { c.Users, c.Limiter = us, limiter })
	for _, l := range refusedLogins {
		ctx, cancel := context.WithCancel(t.Context())
		limiter.onTake = cancel
		_, err := fx.Login(ctx, l.login, l.pass, auth.SessionOptions{})
		require.ErrorIs(t, err, auth.ErrUnavailable, l.kind)
	}
	limiter.onTake = nil
	long := strings.Repeat("x", 1025)
	for _, l := range refusedLogins { // no hash of any kind
		limiter.onTake = nil
		_, err := fx.Login(t.Context(), l.login, long, auth.SessionOptions{})
		require.Equal(t, auth.ErrInvalidCredentials, err, l.kind)
	}
}

func TestEnumeration_ErrorsOfTheMethodsAreEqual(t *testing.T) {
	t.Parallel()
	us := newStrangers(t, fastHasher, bcrypt.MinCost)
	fx := newFixture(t, func(c *auth.Config) { c.Users, c.Limiter = us, &countingLimiter{} })
	for _, l := range append([]refusedLogin{{"login that is not UTF-8", "a\xffa", pass}, {"empty login", "", pass}}, refusedLogins...) {
		_, err := fx.Login(t.Context(), l.login, l.pass, auth.SessionOptions{})
		require.Equal(t, auth.ErrInvalidCredentials, err, l.kind)
		u, err := fx.CheckPassword(t.Context(), l.login, l.pass, auth.Device{})
		require.Equal(t, auth.ErrInvalidCredentials, err, l.kind)
		require.Zero(t, u)
	}
}

// throttling returns the responses to n logins with the given spellings in turn, a
// second after each other.
func throttling(t *testing.T, us *strangers, e func(*auth.Authenticator) http.Handler, logins []string, pass string, n int) (all []response) {
	t.Helper()
	fx := newFixture(t, func(c *auth.Config) { c.Users = &strangers{byLogin: us.byLogin} })
	defer fx.stop()
	h := e(fx.Authenticator)
	for i := range n {
		all = append(all, send(t, h, http.MethodPost, "/login", loginJSON(t, refusedLogin{login: logins[i%len(logins)], pass: pass})))
		fx.clock.Advance(time.Second)
	}
	return all
}

func TestEnumeration_ThrottlingIsTheSameForAllKinds(t *testing.T) {
	t.Parallel()
	const attempts = 12
	us := newStrangers(t, fastHasher, bcrypt.MinCost)
	for _, e := range loginEndpoints {
		if e.name == "LoginHandler with cookies" || e.name == "LoginHandler with a second factor" || e.name == "LoginForm" {
			continue // they differ from LoginHandler only before the password is checked, and after it was right
		}
		want := throttling(t, us, e.handler, []string{"ada"}, wrongPass, attempts)
		var throttled []int
		for i, r := range want {
			if r.status == http.StatusTooManyRequests {
				throttled = append(throttled, i)
				require.NotEmpty(t, r.header.Get("Retry-After"))
			}
		}
		require.Equal(t, []int{6, 8, 9, 10}, throttled[:4])
		for _, l := range refusedLogins[1:] {
			require.Equal(t, want, throttling(t, us, e.handler, []string{l.login}, l.pass, attempts), l.kind)
		}
	}
}

// The users of us have names in lower case, and no other spelling is accepted. The
// users of folded accept all spellings.
func TestEnumeration_SpellingsAreThrottledAlike(t *testing.T) {
	t.Parallel()
	const attempts = 9
	us := newStrangers(t, fastHasher, bcrypt.MinCost)
	us.byLogin["sim"] = auth.User{ID: "sim", PasswordHash: passHash}
	folded := &strangers{byLogin: map[string]auth.User{}}
	spellings := []string{"SIM", "sim", " Sim\t", "\u017fim"} // the last begins with a long s
	for _, s := range spellings {
		folded.byLogin[s] = us.byLogin["sim"]
	}
	want := throttling(t, us, (*auth.Authenticator).LoginHandler, []string{"nobody"}, wrongPass, attempts)
	require.Equal(t, http.StatusTooManyRequests, want[6].status)
	none := &strangers{}
	for name, lookup := range map[string]*strangers{"unknown": none, "letter case matters": us, "letter case does not matter": folded} {
		require.Equal(t, want, throttling(t, lookup, (*auth.Authenticator).LoginHandler, spellings, wrongPass, attempts), name)
	}
}

func TestEnumeration_ARightPasswordIsThrottledLikeAWrongOne(t *testing.T) {
	t.Parallel()
	us := newStrangers(t, fastHasher, bcrypt.MinCost)
	for _, login := range []string{"ada", "bob", "bea", "rob", "eve"} {
		fx := newFixture(t, func(c *auth.Config) { c.Users = us })
		h := fx.LoginHandler()
		var last response
		for i := 0; last.status != http.StatusTooManyRequests; i++ {
			require.Less(t, i, 6)
			last = send(t, h, http.MethodPost, "/login", loginJSON(t, refusedLogin{login: login, pass: wrongPass}))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nothing is hashed
		_, err := fx.Login(ctx, login, pass, auth.SessionOptions{Device: auth.Device{IP: laptop.IP}})
		require.ErrorIs(t, err, auth.ErrThrottled)
		require.Equal(t, last, send(t, h, http.MethodPost, "/login", loginJSON(t, refusedLogin{login: login, pass: pass})))
	}
}

// Whatever is wrong with a request is found before the user is looked up.
func TestEnumeration_MalformedLoginsAreRefusedBeforeTheLookup(t *testing.T) {
	t.Parallel()
	limiter := &countingLimiter{}
	us := newStrangers(t, fastHasher, bcrypt.MinCost)
	fx := newFixture(t, func(c *auth.Config) { c.Users, c.Limiter = us, limiter }, withCookies())
	for name, request := range map[string]struct {
		method string
		option func(login string) []requestOption
	}{
		"HEAD": {http.MethodHead, func(l string) []requestOption {
			return []requestOption{reqJSON(`{"login":"` + l + `","password":"x"}`)}
		}},
		"OPTIONS": {http.MethodOptions, func(l string) []requestOption {
			return []requestOption{reqJSON(`{"login":"` + l + `","password":"x"}`)}
		}},
		"content type": {http.MethodPost, func(l string) []requestOption {
			return []requestOption{reqBody("text/plain", `{"login":"`+l+`","password":"x"}`)}
		}},
		"origin": {http.MethodPost, func(l string) []requestOption {
			return []requestOption{reqJSON(`{"login":"` + l + `","password":"x"}`), crossSite}
		}},
		"delivery": {http.MethodPost, func(l string) []requestOption {
			return []requestOption{reqJSON(`{"login":"` + l + `","password":"x","delivery":"body"}`)}
		}},
		"no password":    {http.MethodPost, func(l string) []requestOption { return []requestOption{reqJSON(`{"login":"` + l + `"}`)} }},
		"empty password": {http.MethodPost, func(l string) []requestOption { return []requestOption{reqJSON(`{"login":"` + l + `","password":""}`)} }},
	} {
		var answers []response
		for _, login := range []string{"ada", "eve", "bob"} {
			answers = append(answers, send(t, fx.LoginHandler(), request.method, "/login", request.option(login)...))
		}
		require.GreaterOrEqual(t, answers[0].status, 400, name)
		require.Equal(t, answers[0], answers[1], name)
		require.Equal(t, answers[0], answers[2], name)
	}
	require.Zero(t, us.calls.Load())
	require.Zero(t, limiter.takes.Load())
}

// OnLogin, the limit of sessions, a second factor and a user that cannot be used are
// noticed only by whoever knows the password.
func TestEnumeration_OtherRefusalsNeedTheRightPassword(t *testing.T) {
	t.Parallel()
	us := newStrangers(t, fastHasher, bcrypt.MinCost)
	for name, tt := range map[string]struct {
		login  string
		config func(*auth.Config)
		status int // with the right password
	}{
		"OnLogin": {"ada", func(c *auth.Config) {
			c.OnLogin = func(context.Context, auth.User, *auth.SessionOptions) error { return auth.ErrForbidden }
		}, 403},
		"too many sessions":      {"ada", func(c *auth.Config) { c.MaxSessions, c.RefuseOverLimit = 1, true }, 409},
		"second factor":          {"ada", withFactor, 401},
		"invalid role":           {"rob", func(*auth.Config) {}, 500},
		"no ID":                  {"nil", func(*auth.Config) {}, 500},
		"claims do not respond":  {"ada", func(c *auth.Config) { c.Claims = claimsThatFail }, 503},
		"methods do not respond": {"ada", func(c *auth.Config) { c.SecondFactor = failingFactor{} }, 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, func(c *auth.Config) { c.Users = &strangers{byLogin: us.byLogin} }, tt.config)
			if name == "too many sessions" {
				_, err := fx.StartSession(t.Context(), "id of ada", auth.SessionOptions{})
				require.NoError(t, err)
			}
			try := func(login, pass string) response {
				return send(t, fx.LoginHandler(), http.MethodPost, "/login", loginJSON(t, refusedLogin{login: login, pass: pass}))
			}
			require.Equal(t, try("eve", wrongPass), try(tt.login, wrongPass))
			right := try(tt.login, pass)
			require.Equal(t, tt.status, right.status)
			require.NotEqual(t, try("eve", wrongPass), right)
		})
	}
}

func claimsThatFail(context.Context, auth.User, auth.Session) (map[string]any, error) {
	return nil, fmt.Errorf("fault of a test")
}

type failingFactor struct{ everybodysFactor }

func (failingFactor) Methods(context.Context, auth.User, auth.Device) ([]string, error) {
	return nil, fmt.Errorf("fault of a test")
}

// A server may add headers of its own, and HTTP/2 shows their order and number.
func TestEnumeration_ResponsesOfServersAreEqual(t *testing.T) {
	t.Parallel()
	us := newStrangers(t, fastHasher, bcrypt.MinCost)
	fx := newFixture(t, func(c *auth.Config) { c.Users, c.Limiter = us, &countingLimiter{} }, withCookies())
	for _, http2 := range []bool{false, true} {
		server := httptest.NewUnstartedServer(fx.LoginHandler())
		server.EnableHTTP2 = http2
		server.StartTLS()
		t.Cleanup(server.Close)
		var want response
		for i, l := range refusedLogins {
			body, err := json.Marshal(map[string]string{"login": l.login, "password": l.pass})
			require.NoError(t, err)
			res, err := server.Client().Post(server.URL, "application/json", strings.NewReader(string(body)))
			require.NoError(t, err)
			require.Equal(t, http2, res.ProtoMajor == 2)
			got := readResponse(t, res)
			require.NotEmpty(t, got.header.Get("Content-Length"))
			got.header.Del("Date")
			if i == 0 {
				want = got
			}
			require.Equal(t, want, got, l.kind)
		}
	}
}
