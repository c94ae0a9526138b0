package secrets

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// defaultLog is the output of the default logger, to which b reports.
var defaultLog sink

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.NewTextHandler(&defaultLog, nil)))
	os.Exit(m.Run())
}

func TestSecrets_AreOnlyWhereTheyBelong(t *testing.T) {
	t.Parallel()
	for name, open := range openers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, dump := open(t)
			sc := newScenario(t, s)
			sc.play()

			// The session is a control: its ID is no secret, and must be found.
			control := &registry{}
			session := auth.Session{
				ID: base64.RawURLEncoding.EncodeToString([]byte("the control 1234")), Subject: "ada", Generation: 1,
				CreatedAt: sc.clock.Now(), RotatedAt: sc.clock.Now(), ExpiresAt: sc.clock.Now().Add(time.Hour),
			}
			require.NoError(t, s.Create(context.Background(), session))
			control.add(t, "the control", []byte(session.ID))
			control.add(t, "the bytes of the control", []byte("the control 1234"))
			sc.stop()

			all := func() []text {
				return sc.captured.all(
					text{inStore, name, dump()}, text{inLog, "LogEvents", sc.logs.String()}, text{inLog, "http.Server.ErrorLog", sc.errors.String()},
					text{inLog, "slog.Default", defaultLog.String()},
				)
			}
			found := sc.secrets.search(all())
			require.Empty(t, found, strings.Join(found, "\n"))

			require.NotEmpty(t, control.search(all()))
			for _, typ := range []auth.EventType{
				auth.EventLogin, auth.EventLoginRefused, auth.EventRefresh, auth.EventRetry, auth.EventLateRetry, auth.EventReuse,
				auth.EventRevoked, auth.EventLogout, auth.EventFault, auth.EventRefused,
			} {
				require.True(t, sc.events[typ], "the scenario has no event of type %s", typ)
			}
			require.NotEmpty(t, sc.logs.String())
			require.NotEmpty(t, defaultLog.String())

			// A secret in the store is found.
			planted := "a planted secret " + name
			sc.secrets.add(t, "the planted secret", []byte(planted))
			session.ID, session.Opaque = base64.RawURLEncoding.EncodeToString([]byte("the control 5678")), []byte("x"+planted)
			require.NoError(t, s.Create(context.Background(), session))
			require.Equal(t, []string{"the planted secret is in a store: " + name}, sc.secrets.search(all()))
		})
	}
}

func TestSearch_FindsEachFormOfASecret(t *testing.T) {
	t.Parallel()
	value := []byte("\x00\xff a secret <\"> é, longer than some")
	token := "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIHBsYW50ZWQgb25lIn0." + base64.RawURLEncoding.EncodeToString(value[:32])
	hash := "$argon2id$v=19$m=64,t=1,p=1$" + base64.RawStdEncoding.EncodeToString(value[:16]) + "$" + base64.RawStdEncoding.EncodeToString(value)
	var r registry
	r.add(t, "the secret", value)
	r.addToken(t, "the token", token)
	r.addHash(t, "the hash", hash)
	for what, s := range map[string]string{
		"raw": string(value), "%q": fmt.Sprintf("%q", value), "%+q": fmt.Sprintf("%+q", value), "%x": fmt.Sprintf("%x", value), "%X": fmt.Sprintf("%X", value),
		"% x": fmt.Sprintf("% x", value), "%v": fmt.Sprint(value), "%#v": fmt.Sprintf("%#v", value),
		"base64": base64.StdEncoding.EncodeToString(value), "base64url": base64.URLEncoding.EncodeToString(value),
		"base64 at 1": base64.StdEncoding.EncodeToString(append([]byte("x"), value...)), "base64 at 2": base64.URLEncoding.EncodeToString(append([]byte("xy"), string(value)+"zz"...)),
		"the token": token, "its payload": strings.Split(token, ".")[1], "its signature": token[len(token)-43:], "its decoded signature": string(value[:32]),
		"the hash": hash, "the tag": base64.RawStdEncoding.EncodeToString(value), "the salt": string(value[:16]),
	} {
		require.NotEmpty(t, r.search([]text{{inLog, "x", "before" + s + "after"}}), what)
	}
	require.Empty(t, r.search([]text{{inLog, "x", "a secret, and eyJhbGciOiJIUzI1NiJ9 too"}}))

	// A secret is found only where it may not be, and is not printed.
	var allowed registry
	allowed.add(t, "the code", []byte("12345678"), inStore)
	require.Equal(t, []string{"the code is in a body: of bob"}, allowed.search([]text{{inStore, "x", "12345678"}, {inBody, "of bob", "12345678"}}))
}

func TestCapture_SeesEachKindOfPlace(t *testing.T) {
	t.Parallel()
	const planted = "planted secret 1"
	var r registry
	r.add(t, "it", []byte(planted))
	for p, v := range map[place]any{
		inEvent: auth.Event{Type: auth.EventFault, Err: errors.New(planted)}, inError: fmt.Errorf("x: %w", errors.New(planted)),
		inValue: struct{ X *[]byte }{ptr([]byte(planted))}, inHeader: map[string][]string{"X": {planted}}, inBucket: []auth.Bucket{{Key: planted}},
	} {
		var c capture
		c.value(p, "x", v)
		require.Equal(t, []string{"it is in a " + string(p) + ": x"}, r.search(c.all()))
	}
	require.NotEmpty(t, r.search([]text{{inStore, "x", deep(map[string]*struct{ b any }{"x": {[][]byte{[]byte(planted)}}})}}))
	var s sink
	auth.LogEvents(slog.New(slog.NewJSONHandler(&s, nil)))(context.Background(), auth.Event{Type: auth.EventFault, Err: errors.New(planted)})
	require.NotEmpty(t, r.search([]text{{inLog, "x", s.String()}}))
}

func ptr[T any](v T) *T { return &v }
