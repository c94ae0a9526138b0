package protocol

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/password"
)

// userPassword is the password of the user in every history.
const userPassword = "correct horse battery staple"

// directory is a user lookup with one user, ada.
type directory struct {
	mu   sync.Mutex
	user auth.User
}

func (d *directory) FindByLogin(_ context.Context, login string) (auth.User, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if login != d.user.Username {
		return auth.User{}, auth.ErrUserNotFound
	}
	return d.user, nil
}

func (d *directory) FindByID(_ context.Context, id string) (auth.User, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if id != d.user.ID {
		return auth.User{}, auth.ErrUserNotFound
	}
	return d.user, nil
}

func (d *directory) UpdatePasswordHash(_ context.Context, id, old, next string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if id == d.user.ID && old == d.user.PasswordHash {
		d.user.PasswordHash = next
	}
	return nil
}

func (d *directory) disable(disabled bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.user.Disabled = disabled
}

// unreliable is a store that fails while down is set.
type unreliable struct {
	auth.Store
	down atomic.Bool
}

var errDown = errors.New("the store does not respond")

func (s *unreliable) Create(ctx context.Context, v auth.Session) error {
	if s.down.Load() {
		return errDown
	}
	return s.Store.Create(ctx, v)
}

func (s *unreliable) Get(ctx context.Context, subject, id string) (auth.Session, error) {
	if s.down.Load() {
		return auth.Session{}, errDown
	}
	return s.Store.Get(ctx, subject, id)
}

func (s *unreliable) Rotate(ctx context.Context, subject, id string, r auth.Rotation) (auth.Session, bool, error) {
	if s.down.Load() {
		return auth.Session{}, false, errDown
	}
	return s.Store.Rotate(ctx, subject, id, r)
}

func (s *unreliable) List(ctx context.Context, subject string) ([]auth.Session, error) {
	if s.down.Load() {
		return nil, errDown
	}
	return s.Store.List(ctx, subject)
}

func (s *unreliable) Revoke(ctx context.Context, r auth.Revocation) error {
	if s.down.Load() {
		return errDown
	}
	return s.Store.Revoke(ctx, r)
}

func (s *unreliable) Spend(ctx context.Context, subject, id string, until time.Time) error {
	if s.down.Load() {
		return errDown
	}
	return s.Store.Spend(ctx, subject, id, until)
}

// hash is the hash of userPassword.
var hash = sync.OnceValues(func() (string, error) {
	return (&password.Hasher{Memory: 8, Time: 1}).Hash(context.Background(), userPassword)
})

// users counts the users of all histories. Histories may share a store, so each has a
// user of its own.
var users atomic.Int64

// server is what a history is played against.
type server struct {
	a     *authtest.Authenticator
	users *directory
	store *unreliable // nil if the history needs no store that fails
	h     http.Handler
	start time.Time
}

func newServer(t testing.TB, h history, store auth.Store) (*server, error) {
	hashed, err := hash()
	if err != nil {
		return nil, err
	}
	s := &server{users: &directory{user: auth.User{ID: "user-" + strconv.FormatInt(users.Add(1), 10), Username: "ada", PasswordHash: hashed}}}
	if slices.ContainsFunc(h.Steps, func(s step) bool { return s.Server == "the store fails" }) {
		s.store = &unreliable{Store: store}
		store = s.store
	}
	seconds := func(n int) time.Duration { return time.Duration(n) * time.Second }
	c := auth.Config{
		Issuer: "https://auth.example", Audience: []string{"https://api.example"},
		Users: s.users, Store: store, Hasher: &password.Hasher{Memory: 8, Time: 1},
		AccessTTL: seconds(h.Config.AccessTTL), IdleTTL: seconds(h.Config.IdleTTL), SessionTTL: seconds(h.Config.SessionTTL),
		RetryWindow: seconds(h.Config.RetryWindow), Leeway: seconds(h.Config.Leeway),
		MaxSessions: h.Config.MaxSessions, RefuseOverLimit: h.Config.RefuseOverLimit,
		OnEvent: func(context.Context, auth.Event) {},
	}
	if h.Config.Cookies {
		c.Cookies = &auth.Cookies{AllowBody: true}
	}
	if len(h.Config.SecondFactor) > 0 {
		c.SecondFactor = authtest.Factors(h.Config.SecondFactor)
	}
	s.a = authtest.New(t, c)
	s.start = s.a.Clock.Now()
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", s.a.Handler()))
	mux.Handle("/protected", s.a.Require()(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })))
	s.h = mux
	return s, nil
}

// act does what a step says that the server does.
func (s *server) act(action string) error {
	ctx, id := context.Background(), s.users.user.ID
	switch action {
	case "the store fails", "the store works":
		s.store.down.Store(action == "the store fails")
	case "the user is disabled":
		s.users.disable(true)
	case "the user is enabled":
		s.users.disable(false)
	case "all sessions are revoked":
		return s.a.RevokeAll(ctx, id)
	case "access tokens are expired":
		return s.a.ExpireAccess(ctx, id)
	default:
		return fmt.Errorf("there is no action %q", action)
	}
	return nil
}

// player has the variables of one play.
type player struct {
	server *server
	values map[string]string
}

// play plays a history. The error says at which step it fails.
func play(t testing.TB, h history, store auth.Store) error {
	s, err := newServer(t, h, store)
	if err != nil {
		return err
	}
	p := &player{s, map[string]string{"user": s.users.user.ID}}
	for name, value := range h.Let {
		if err := p.bind(name, value); err != nil {
			return err
		}
	}
	for i, step := range h.Steps {
		if step.After > 0 {
			s.a.Clock.Advance(time.Duration(step.After) * time.Second)
		}
		if step.Server != "" {
			err = s.act(step.Server)
		} else {
			err = p.exchange(step.Request, step.Response)
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

// bind gives a variable its value. No two variables have the same one.
func (p *player) bind(name, value string) error {
	for other, v := range p.values {
		if v == value {
			return fmt.Errorf("$%s has the value of $%s", name, other)
		}
	}
	if value == "" {
		return fmt.Errorf("$%s is empty", name)
	}
	p.values[name] = value
	return nil
}

var variable = regexp.MustCompile(`\$[a-z][a-z0-9_]*`)

// fill replaces the variables of a text by their values.
func (p *player) fill(text string) (filled string, err error) {
	filled = variable.ReplaceAllStringFunc(text, func(name string) string {
		value, ok := p.values[name[1:]]
		if !ok {
			err = fmt.Errorf("%s has no value yet", name)
		}
		return value
	})
	return filled, err
}

func (p *player) exchange(q *request, want *reply) error {
	r, err := p.request(q)
	if err != nil {
		return err
	}
	w := httptest.NewRecorder()
	p.server.h.ServeHTTP(w, r)
	return p.compare(want, w.Result(), w.Body.Bytes())
}

func (p *player) request(q *request) (*http.Request, error) {
	var errs []error
	fill := func(text string) string {
		filled, err := p.fill(text)
		errs = append(errs, err)
		return filled
	}
	body := &bytes.Buffer{}
	if q.JSON != nil {
		fields := maps.Clone(q.JSON)
		for name, value := range fields {
			if text, ok := value.(string); ok {
				fields[name] = fill(text)
			}
		}
		errs = append(errs, json.NewEncoder(body).Encode(fields))
	}
	r := httptest.NewRequest(q.Method, "https://auth.example"+fill(q.Path), body)
	if q.JSON != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range q.Headers {
		r.Header.Set(name, fill(value))
	}
	for _, name := range slices.Sorted(maps.Keys(q.Cookies)) {
		r.AddCookie(&http.Cookie{Name: name, Value: fill(q.Cookies[name])})
	}
	return r, errors.Join(errs...)
}

// compare returns an error unless got is the response that a history wants.
func (p *player) compare(want *reply, got *http.Response, body []byte) error {
	if got.StatusCode != want.Status {
		return fmt.Errorf("status %d, want %d: %s", got.StatusCode, want.Status, body)
	}
	if err := p.compareBody(want, got, body); err != nil {
		return err
	}
	for name, value := range want.Headers {
		switch values := got.Header.Values(name); {
		case value == nil && len(values) > 0:
			return fmt.Errorf("the header %s is %q, want none", name, values)
		case value != nil && !slices.Equal(values, []string{*value}):
			return fmt.Errorf("the header %s is %q, want %q", name, values, *value)
		}
	}
	if err := p.compareCookies(want.Cookies, got.Cookies()); err != nil {
		return err
	}
	for token, claims := range want.Claims {
		if err := p.compareClaims(token, claims); err != nil {
			return err
		}
	}
	return nil
}

func (p *player) compareBody(want *reply, got *http.Response, body []byte) error {
	if want.JSON == nil {
		if len(body) > 0 {
			return fmt.Errorf("the body is %s, want none", body)
		}
		return nil
	}
	if kind := got.Header.Get("Content-Type"); kind != "application/json; charset=utf-8" {
		return fmt.Errorf("the content type is %q", kind)
	}
	var found map[string]any
	if err := json.Unmarshal(body, &found); err != nil {
		return err
	}
	if text, ok := found["error_description"].(string); found["error"] != nil && (!ok || text == "") {
		return errors.New("the error has no description")
	}
	delete(found, "error_description")
	return p.compareValue("", want.JSON, found)
}

// compareValue compares a JSON value with the one that a history wants. It binds
// variables that have no value yet.
func (p *player) compareValue(at string, want, got any) error {
	switch want := want.(type) {
	case map[string]any:
		found, ok := got.(map[string]any)
		if !ok || len(found) != len(want) {
			return fmt.Errorf("%s is %v, want the members %v", at, got, slices.Sorted(maps.Keys(want)))
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			value, ok := found[name]
			if !ok {
				return fmt.Errorf("%s.%s is missing in %v", at, name, got)
			}
			if err := p.compareValue(at+"."+name, want[name], value); err != nil {
				return err
			}
		}
		return nil
	case []any:
		found, ok := got.([]any)
		if !ok || len(found) != len(want) {
			return fmt.Errorf("%s is %v, want %d elements", at, got, len(want))
		}
		for i := range want {
			if err := p.compareValue(fmt.Sprintf("%s[%d]", at, i), want[i], found[i]); err != nil {
				return err
			}
		}
		return nil
	case string:
		return p.compareText(at, want, got)
	}
	if !reflect.DeepEqual(want, got) {
		return fmt.Errorf("%s is %v, want %v", at, got, want)
	}
	return nil
}

func (p *player) compareText(at, want string, got any) error {
	if after, ok := strings.CutPrefix(want, "@"); ok {
		n, err := strconv.Atoi(after)
		if err != nil {
			return err
		}
		moment := p.server.start.Add(time.Duration(n) * time.Second)
		if text, ok := got.(string); ok {
			found, err := time.Parse(time.RFC3339, text)
			if err == nil && found.Equal(moment) {
				return nil
			}
		} else if number, ok := got.(float64); ok && int64(number) == moment.Unix() {
			return nil
		}
		return fmt.Errorf("%s is %v, want %s", at, got, moment.Format(time.RFC3339))
	}
	found, ok := got.(string)
	if !ok {
		return fmt.Errorf("%s is %v, want a string", at, got)
	}
	if name := variable.FindString(want); name == want && name != "" {
		if value, ok := p.values[name[1:]]; !ok {
			return p.bind(name[1:], found)
		} else if value != found {
			return fmt.Errorf("%s is not %s", at, name)
		}
		return nil
	}
	if found != want {
		return fmt.Errorf("%s is %q, want %q", at, found, want)
	}
	return nil
}

// compareCookies compares the cookies that a response sets. A nil cookie is cleared.
func (p *player) compareCookies(want map[string]*cookie, got []*http.Cookie) error {
	if len(got) != len(want) {
		return fmt.Errorf("the response sets %d cookies, want %d", len(got), len(want))
	}
	for _, c := range got {
		w, ok := want[c.Name]
		switch {
		case !ok:
			return fmt.Errorf("the response sets the cookie %s", c.Name)
		case c.Path != "/" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Domain != "":
			return fmt.Errorf("the attributes of the cookie %s are not Path=/; HttpOnly; Secure; SameSite=Lax", c.Name)
		case w == nil && (c.Value != "" || c.MaxAge >= 0):
			return fmt.Errorf("the cookie %s is not cleared", c.Name)
		case w == nil:
			continue
		case c.MaxAge != w.MaxAge:
			return fmt.Errorf("the cookie %s has the Max-Age %d, want %d", c.Name, c.MaxAge, w.MaxAge)
		}
		if err := p.compareText("the cookie "+c.Name, w.Value, c.Value); err != nil {
			return err
		}
	}
	return nil
}

// compareClaims compares claims of an access token. Those that want does not have are
// not compared.
func (p *player) compareClaims(token string, want map[string]any) error {
	text, err := p.fill(token)
	if err != nil {
		return err
	}
	parts := strings.Split(text, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)])
	if err != nil {
		return err
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		return err
	}
	for name, value := range want {
		if err := p.compareValue(token+"."+name, value, claims[name]); err != nil {
			return err
		}
	}
	return nil
}
