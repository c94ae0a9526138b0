package auth_test

import (
	"bytes"
	"context"
	"encoding/asn1"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/password"
)

// needle is one form in which a text could contain a secret.
type needle struct{ name, text string }

func needles(secrets map[string][]byte) []needle {
	var list []needle
	for name, s := range secrets {
		forms := []string{
			string(s), strings.Trim(fmt.Sprintf("%q", s), `"`), hex.EncodeToString(s), strings.ToUpper(hex.EncodeToString(s)), fmt.Sprintf("% x", s),
			strings.Trim(fmt.Sprint(s), "[]"), strings.Trim(fmt.Sprintf("%#v", s), "[]byte{}"), strings.Trim(fmt.Sprintf("%x", s), "[]"),
			strings.Trim(fmt.Sprintf("%b", s), "[]"),
			strings.Trim(fmt.Sprintf("%o", s), "[]"), strings.Trim(fmt.Sprintf("%U", s), "[]"), base64.RawStdEncoding.EncodeToString(s),
			base64.RawURLEncoding.EncodeToString(s),
		}
		slices.Sort(forms)
		for _, form := range slices.Compact(forms) {
			list = append(list, needle{name, form})
		}
	}
	return list
}

// verbs includes verbs with which package fmt follows pointers.
var verbs = []string{"%v", "%+v", "%#v", "%d", "%x", "%X", "%10.3v", "%08d", "% x", "%s", "%q", "%o", "%b", "%e", "%t", "%c", "%U", "%-8s", "%z"}

// prints formats v in every way that a program might.
func prints(v any, verbs ...string) map[string]string {
	out := map[string]string{}
	for _, verb := range verbs {
		out["fmt "+verb] = fmt.Sprintf(verb, v)
		out["error of "+verb] = fmt.Errorf("it failed: "+verb, v).Error()
	}
	out["Sprint"] = fmt.Sprint(v, &v) + fmt.Sprintln(v)
	for name, h := range map[string]func(b *bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(h(&b)).With("with", v).WithGroup("g").Info(
			"x", slog.Any("value", v), slog.Group("h", "value", v, "list", []any{v}), "struct", struct{ Value any }{v},
		)
		out["slog "+name] = b.String()
	}
	text, err := json.Marshal(v)
	out["json"] = fmt.Sprint(string(text), err)
	var b bytes.Buffer // what was written before an error counts too
	e := xml.NewEncoder(&b)
	err = e.Encode(v)
	out["xml"] = fmt.Sprint(e.Close(), b.String(), err)
	b.Reset()
	err = gob.NewEncoder(&b).Encode(v)
	out["gob"] = fmt.Sprint(b.String(), err)
	text, err = asn1.Marshal(v)
	out["asn1"] = fmt.Sprint(string(text), err)
	b.Reset()
	err = template.Must(template.New("").Parse(`{{.}} {{printf "%v %+v %#v %q %x" . . . . .}}`)).Execute(&b, v)
	out["template"] = fmt.Sprint(b.String(), err)
	return out
}

// requireNoSecret fails if a text contains a secret in any form.
func requireNoSecret(t *testing.T, what string, texts map[string]string, secrets []needle) {
	t.Helper()
	for way, text := range texts {
		for _, n := range secrets {
			if strings.Contains(text, n.text) {
				require.Fail(t, what+" shows the "+n.name+" by "+way, "as %.60q", n.text)
			}
		}
	}
}

// typed returns v, and containers of v with its static type, so that pointers
// and structs are printed as those of that type.
func typed[T any](v T) []any {
	return []any{
		v, &v, []T{v}, map[string]T{"x": v}, [1]T{v},
		struct{ Value T }{v},
		&struct{ Value *T }{&v},
		struct{ Values []T }{[]T{v}},
		struct{ Values map[string]*T }{map[string]*T{"x": &v}},
	}
}

func TestPrinting_ShowsNoSecret(t *testing.T) {
	t.Parallel()
	accessSecret, refreshSecret, shared := []byte("redaction: the access secret, 1\x00\xfe"), []byte(
		"redaction: the refresh secret, 1\x01\xff",
	), []byte("redaction: the shared secret, 1\x02\xfd")
	typedPassword := "redaction: the password of ada"
	hash, err := fastHasher.Hash(context.Background(), typedPassword)
	require.NoError(t, err)
	fx := newFixture(t, func(c *auth.Config) {
		c.Secrets, c.AccessKeys, c.RefreshKeys, c.Cookies = nil, keysOf(accessSecret), keysOf(refreshSecret), &auth.Cookies{}
	})
	fx.users.change("u1", func(u *auth.User) { u.PasswordHash, u.Extra = hash, map[string]any{"tenant": "t1"} })
	tokens, err := fx.Login(context.Background(), "ada", typedPassword, auth.SessionOptions{Name: "phone", Data: []byte("x")})
	require.NoError(t, err)
	fx.clock.Advance(time.Minute)
	next, err := fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	claims, err := fx.Verify(context.Background(), next.Access)
	require.NoError(t, err)
	sessions, err := fx.Sessions(context.Background(), "u1")
	require.NoError(t, err)
	user, err := fx.users.FindByID(context.Background(), "u1")
	require.NoError(t, err)

	secrets := needles(map[string][]byte{
		"access secret": accessSecret, "refresh secret": refreshSecret, "shared secret": shared, "password": []byte(typedPassword),
		"hash": []byte(hash), "salt and tag": []byte(hash[len(hash)-60:]),
		"access token": []byte(tokens.Access), "refresh token": []byte(tokens.Refresh), "next access token": []byte(next.Access),
		"next refresh token":     []byte(next.Refresh),
		"access signature":       []byte(tokens.Access[len(tokens.Access)-43:]),
		"refresh signature":      []byte(tokens.Refresh[len(tokens.Refresh)-43:]),
		"next refresh signature": []byte(next.Refresh[len(next.Refresh)-43:]),
		"next access signature":  []byte(next.Access[len(next.Access)-43:]),
		"retry key":              []byte(testKey('k')),
	})
	config := auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{shared}, AccessKeys: keysOf(accessSecret),
		RefreshKeys: keysOf(refreshSecret), Users: fx.users, Cookies: &auth.Cookies{},
	}
	verifierConfig := auth.VerifierConfig{Issuer: issuer, Audience: []string{audience}, Keys: keysOf(accessSecret)}
	verifier, err := auth.NewVerifier(verifierConfig)
	require.NoError(t, err)
	var store any = auth.NewMemoryStore()
	values := map[string][]any{
		"Key": typed(config.AccessKeys[0]), "Keys": typed(config.AccessKeys), "zero Key": typed(auth.Key{}), "Tokens": typed(next),
		"User": typed(user), "Config": typed(config), "VerifierConfig": typed(verifierConfig),
		"Session": typed(sessions[0]), "Claims": typed(*claims), "*Claims": typed(claims),
		"SessionOptions": typed(auth.SessionOptions{Name: "phone", Replaces: []string{tokens.Refresh}}),
		"RefreshOptions": typed(auth.RefreshOptions{RetryKey: testKey('k')}),
		"*Authenticator": typed(fx.Authenticator), "*Verifier": typed(verifier),
		"Cookies": typed(auth.Cookies{}), "Extractor": typed(auth.FromBearer()), "MemoryStore": typed(store),
		"Health": typed(fx.Health()), "Device": typed(auth.Device{}), "Revocation": typed(auth.Revocation{Subject: "u1"}),
	}
	for _, e := range fx.events.all {
		values["Event "+string(e.Type)] = typed(e)
	}
	for what, list := range values {
		for _, v := range list {
			requireNoSecret(t, what, prints(v, verbs...), secrets)
		}
	}

	// The texts say what the values are.
	require.Equal(t, "auth.Key{HS256 "+config.AccessKeys[0].ID()+"}", fmt.Sprint(config.AccessKeys[0]))
	require.Equal(t, "auth.Key{}", fmt.Sprint(auth.Key{}))
	require.Contains(t, fmt.Sprint(next), next.SessionID)
	require.Contains(t, fmt.Sprintf("%+v", user), "PasswordHash:[redacted]")
	require.Contains(t, fmt.Sprintf("%+v", user), "Username:ada")
	require.Contains(t, fmt.Sprintf("%+v", auth.User{ID: "u3"}), "PasswordHash: ", "an empty hash must be visible as such")
	require.Equal(t, `auth.Config{issuer "https://example.com" audience ["https://api.example.com"]}`, fmt.Sprint(config))
	require.Equal(t, slog.StringValue(fmt.Sprint(config)), config.LogValue())
	asText, err := json.Marshal(config)
	require.NoError(t, err)
	require.JSONEq(t, quote(fmt.Sprint(config)), string(asText))
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "user", user, "tokens", next)
	require.Contains(t, log.String(), "user.id=u1 user.disabled=false tokens.session="+next.SessionID)
	require.NotContains(t, log.String(), "ada", "a log must name a user by the ID")
	asJSON, err := json.Marshal(next)
	require.NoError(t, err)
	require.Contains(t, string(asJSON), next.SessionID)
}

// Package gob ignores the tags with which other encoders omit secrets. Without
// the secrets, the decoded values would be useless.
func TestGob_RefusesValuesThatContainSecrets(t *testing.T) {
	t.Parallel()
	text := func(name, secrets string) string {
		return "auth: " + name + " cannot be encoded by encoding/gob, because it contains " + secrets + "; encode a type of your own with the fields that you need"
	}
	requireRefused := func(want string, list []any) {
		t.Helper()
		for _, v := range list {
			require.EqualError(t, gob.NewEncoder(new(bytes.Buffer)).Encode(v), want)
		}
	}
	requireRefused(text("Tokens", "tokens"), typed(auth.Tokens{Subject: "u1"}))
	requireRefused(text("User", "a password hash"), typed(auth.User{ID: "u1"}))
	requireRefused(text("SessionOptions", "tokens"), typed(auth.SessionOptions{Name: "phone"}))
	requireRefused(text("RefreshOptions", "a retry key"), typed(auth.RefreshOptions{Device: laptop}))
	requireRefused(text("Config", "secrets"), typed(auth.Config{Issuer: issuer}))
	requireRefused(text("FactorError", "a token"), typed(auth.FactorError{Methods: []string{"otp"}}))

	// XML omits what JSON omits.
	asXML, err := xml.Marshal(auth.Tokens{Access: "a", Refresh: "r", Subject: "u1", SessionID: "s1"})
	require.NoError(t, err)
	require.NotRegexp(t, "<(Access|Refresh)>", string(asXML))
	require.Contains(t, string(asXML), "<Subject>u1</Subject><SessionID>s1</SessionID>")
}

// Package fmt does not call methods on unexported fields: it prints their
// contents and, with a verb that does not apply to a pointer, what the pointer
// points to. A Key must not print its secret even there.
func TestKey_PrintsNothingFromUnexportedFields(t *testing.T) {
	t.Parallel()
	key := auth.HS256(accessSecret)
	c := auth.Config{Issuer: issuer, Audience: []string{audience}, Users: newUsers()}
	knownKeys(&c)
	b, err := auth.New(c) // Run is not running, because fmt reads fields without a lock
	require.NoError(t, err)
	for _, v := range []any{
		key, struct{ k auth.Key }{key}, &struct{ k *auth.Key }{&key}, struct{ ks auth.Keys }{auth.Keys{key}},
		struct{ a *auth.Authenticator }{b}, struct{ v *auth.Verifier }{b.Verifier},
	} {
		requireNoSecret(t, "Key", prints(v, verbs...), needles(map[string][]byte{"secret": accessSecret}))
	}
}

func TestErrorsAndEvents_ContainNoSecret(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fx := newFixture(t, knownKeys, func(c *auth.Config) {
		c.Cookies = &auth.Cookies{}
		c.MaxSessions = 2
	})
	tokens := fx.login(t)
	wrong := "a password that somebody typed wrong"
	badLogin := "a password typed as a login"
	var errs []error
	fails := func(err error) {
		t.Helper()
		require.Error(t, err)
		errs = append(errs, err)
	}
	_, err := fx.Login(ctx, "ada", wrong, auth.SessionOptions{Replaces: []string{tokens.Refresh}})
	fails(err)
	_, err = fx.Login(ctx, badLogin, wrong, auth.SessionOptions{})
	fails(err)
	_, err = fx.Login(ctx, "ada", strings.Repeat(wrong, 100), auth.SessionOptions{})
	fails(err)
	fx.users.change("u1", func(u *auth.User) { u.Disabled = true })
	_, err = fx.Login(ctx, "ada", pass, auth.SessionOptions{})
	fails(err)
	_, err = fx.StartSession(ctx, "u1", auth.SessionOptions{})
	fails(err)
	fx.users.change("u1", func(u *auth.User) { u.Disabled, u.PasswordHash = false, "$argon2id$broken hash of a test" })
	_, err = fx.Login(ctx, "ada", wrong, auth.SessionOptions{})
	fails(err)
	fx.users.change("u1", func(u *auth.User) { u.PasswordHash, u.Extra = passHash, map[string]any{"sub": pass} })
	_, err = fx.Login(ctx, "ada", pass, auth.SessionOptions{})
	fails(err)
	fx.users.change("u1", func(u *auth.User) { u.Extra = nil })
	for _, method := range []string{"Create", "Rotate", "List", "Revoke", "Get"} {
		fx.store.failBefore(method, errStore)
		_, err = fx.Login(ctx, "ada", pass, auth.SessionOptions{Replaces: []string{tokens.Refresh}})
		_, err2 := fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
		err3 := fx.Logout(ctx, "x", tokens.Access)
		if err := errors.Join(err, err2, err3); err != nil {
			errs = append(errs, err)
		}
		fx.store.failBefore(method, nil)
	}
	_, err = fx.Verify(ctx, tokens.Access)
	fails(err)
	_, err = fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
	fails(err)
	fx.clock.Advance(time.Hour)
	spent := fx.login(t)
	fx.clock.Advance(time.Minute)
	current, err := fx.Refresh(ctx, spent.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	fx.clock.Advance(time.Minute)
	_, err = fx.Refresh(ctx, spent.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrTokenReused)
	fails(err)
	fx.clock.Advance(time.Hour)
	_, err = fx.Verify(ctx, current.Access)
	fails(err)

	hidden := map[string][]byte{
		"password": []byte(pass), "wrong password": []byte(wrong), "login": []byte(badLogin), "hash": []byte(passHash),
		"broken hash": []byte("broken hash of a test"), "access secret": accessSecret, "refresh secret": refreshSecret,
	}
	for name, tk := range map[string]auth.Tokens{"first": tokens, "spent": spent, "current": current} {
		hidden[name+" access"], hidden[name+" refresh"] = []byte(tk.Access), []byte(tk.Refresh)
		hidden[name+" access signature"], hidden[name+" refresh signature"] = []byte(tk.Access[len(tk.Access)-43:]), []byte(tk.Refresh[len(tk.Refresh)-43:])
	}
	secrets := needles(hidden)
	for _, err := range errs {
		requireNoSecret(t, "error "+err.Error(), prints(err, verbs...), secrets)
	}
	seen := map[auth.EventType]bool{}
	var log bytes.Buffer
	logger := auth.LogEvents(slog.New(slog.NewJSONHandler(&log, nil)))
	for _, e := range fx.events.all {
		seen[e.Type] = true
		requireNoSecret(t, "event "+string(e.Type), prints(e, verbs...), secrets)
		logger(ctx, e)
	}
	requireNoSecret(t, "LogEvents", map[string]string{"log": log.String()}, secrets)
	for _, typ := range []auth.EventType{
		auth.EventLogin, auth.EventLoginRefused, auth.EventRefresh, auth.EventReuse, auth.EventRevoked, auth.EventFault, auth.EventLogout,
	} {
		require.True(t, seen[typ], typ)
		require.Contains(t, log.String(), `"auth: `+string(typ)+`"`)
	}
}

// secretPanic is a value with which a hook panics.
type secretPanic struct{ text string }

func (p secretPanic) Error() string  { return p.text }
func (p secretPanic) String() string { return p.text }

type panickingUsers struct {
	*users
	value        any
	login, by, u bool
}

func (p *panickingUsers) FindByLogin(ctx context.Context, login string) (auth.User, error) {
	if p.login {
		panic(p.value)
	}
	return p.users.FindByLogin(ctx, login)
}

func (p *panickingUsers) FindByID(ctx context.Context, id string) (auth.User, error) {
	if p.by {
		panic(p.value)
	}
	return p.users.FindByID(ctx, id)
}

func (p *panickingUsers) UpdatePasswordHash(context.Context, string, string, string) error {
	if p.u {
		panic(p.value)
	}
	return nil
}

func TestHookPanics_AreFaultsWithoutSecrets(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	const hidden = "the secret that a hook panics with"
	secrets := needles(map[string][]byte{"panic": []byte(hidden), "password": []byte(pass)})
	for name, value := range map[string]any{
		"string": hidden, "error": errors.New(hidden), "Stringer": secretPanic{hidden}, "bytes": []byte(hidden),
		"struct": struct{ Password string }{hidden},
	} {
		u := &panickingUsers{users: newUsers(), value: value}
		fx := newFixture(t, func(c *auth.Config) { c.Users = u })
		tokens := fx.login(t)
		var errs []error
		u.login = true
		_, err := fx.Login(ctx, "ada", pass, auth.SessionOptions{})
		errs = append(errs, err)
		u.login, u.by = false, true
		_, err = fx.Login(ctx, "ada", pass, auth.SessionOptions{})
		errs = append(errs, err)
		_, err = fx.StartSession(ctx, "u1", auth.SessionOptions{})
		errs = append(errs, err)
		_, err = fx.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{})
		errs = append(errs, err)
		for _, err := range errs {
			require.ErrorIs(t, err, auth.ErrUnavailable, name)
			require.ErrorContains(t, err, fmt.Sprintf("panicked with a %T", value), name)
			requireNoSecret(t, "error", prints(err, verbs...), secrets)
		}
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"login":"ada","password":"`+pass+`"}`))
		r.Header.Set("Content-Type", "application/json")
		fx.LoginHandler().ServeHTTP(w, r)
		require.Equal(t, http.StatusServiceUnavailable, w.Code, name)
		requireNoSecret(t, "answer", map[string]string{"body": w.Body.String(), "header": fmt.Sprint(w.Header())}, secrets)
		require.NotContains(t, w.Body.String(), "goroutine", "only the event may contain a stack")
		u.by = false

		// The hash is weak, so it is upgraded. The login does not depend on the
		// upgrade.
		u.u = true
		weak, err := (&password.Hasher{Memory: 8, Time: 1}).Hash(ctx, pass)
		require.NoError(t, err)
		u.change("u1", func(user *auth.User) { user.PasswordHash = weak })
		_, err = fx.Login(ctx, "ada", pass, auth.SessionOptions{})
		require.NoError(t, err, name)

		faults := fx.events.take(auth.EventFault)
		require.GreaterOrEqual(t, len(faults), 6, name)
		require.True(t, slices.ContainsFunc(faults, func(e auth.Event) bool { return strings.Contains(e.Err.Error(), "upgrading a password hash") }), name)
		for _, e := range faults {
			requireNoSecret(t, "event", prints(e, verbs...), secrets)
		}
	}
	// The text of a run-time error is reported, because it contains no values.
	u := &panickingUsers{users: newUsers(), login: true}
	fx := newFixture(t, func(c *auth.Config) { c.Users = u })
	func() {
		defer func() { u.value = recover() }()
		var none map[string]int
		none["x"] = 1
	}()
	_, err := fx.Login(ctx, "ada", pass, auth.SessionOptions{})
	require.ErrorIs(t, err, auth.ErrUnavailable)
	require.ErrorContains(t, err, "assignment to entry in nil map")
}

// mapUsers is a user lookup that is not a pointer.
type mapUsers map[string]auth.User

func (u mapUsers) FindByLogin(_ context.Context, login string) (auth.User, error) {
	return u[login], nil
}
func (u mapUsers) FindByID(_ context.Context, id string) (auth.User, error) { return u[id], nil }

func TestAuthenticator_DoesNotPrintItsUsers(t *testing.T) {
	t.Parallel()
	a, err := auth.New(auth.Config{
		Issuer: issuer, Audience: []string{audience}, Secrets: [][]byte{secret}, Users: mapUsers{"u1": {ID: "u1", PasswordHash: passHash}},
	})
	require.NoError(t, err)
	for _, v := range typed(a) {
		requireNoSecret(t, "*Authenticator", prints(v, verbs...), needles(map[string][]byte{"hash": []byte(passHash), "secret": secret}))
	}
	require.Equal(t, `auth.Verifier{issuer "https://example.com" audience ["https://api.example.com"]}`, fmt.Sprint(a))
}
