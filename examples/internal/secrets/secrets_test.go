package secrets

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
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

			planted := sc.plant(s)
			sc.stop()

			texts := sc.captured.all(
				text{inStore, name, dump()}, text{inLog, "LogEvents", sc.logs.String()}, text{inLog, "http.Server.ErrorLog", sc.errors.String()},
				text{inLog, "slog.Default", defaultLog.String()},
			)
			found := sc.secrets.search(texts)
			require.Empty(t, found, strings.Join(found, "\n"))

			places := planted.search(texts)
			for _, want := range []string{
				"the ID of a session is in a store: " + name,
				"the record of a session is in a store: " + name,
				"a body is in a body: the response to GET by mallory",
				"a cookie is in a header: the response to GET by mallory",
				"a header is in a header: the response to GET by mallory",
				"a handler's panic is in a log: http.Server.ErrorLog",
				"a message is in a log: slog.Default",
				"a lookup's error is in a log: LogEvents",
				"a lookup's error is in a event: fault",
				"a lookup's error is in a error: StartSession",
			} {
				require.Contains(t, places, want)
			}
			for _, typ := range []auth.EventType{
				auth.EventLogin, auth.EventLoginRefused, auth.EventRefresh, auth.EventRetry, auth.EventLateRetry, auth.EventReuse,
				auth.EventRevoked, auth.EventLogout, auth.EventFault, auth.EventRefused,
			} {
				require.True(t, sc.events[typ], "the scenario has no event of type %s", typ)
			}
		})
	}
}

// plant puts a secret into each kind of place, in the ways in which the scenario
// could have done it. It returns these secrets.
func (sc *scenario) plant(s auth.Store) *registry {
	planted := &registry{}
	secret := func(name string) string {
		value := "planted " + rand.Text()
		planted.add(sc.t, name, []byte(value))
		return value
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	session := auth.Session{
		ID: base64.RawURLEncoding.EncodeToString(id), Subject: "mallory", Generation: 1, Opaque: []byte("x" + secret("the record of a session")),
		CreatedAt: sc.clock.Now(), RotatedAt: sc.clock.Now(), ExpiresAt: sc.clock.Now().Add(time.Hour),
	}
	planted.add(sc.t, "the ID of a session", []byte(session.ID))
	planted.add(sc.t, "the ID of a session", id) // a store may decode it
	require.NoError(sc.t, s.Create(context.Background(), session))

	body, header, cookie, panicked := secret("a body"), secret("a header"), secret("a cookie"), secret("a handler's panic")
	sc.other = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Other", header)
		http.SetCookie(w, &http.Cookie{Name: "other", Value: url.QueryEscape(cookie)})
		_, _ = io.WriteString(w, body)
		slog.Info(secret("a message"))
	}
	mallory := sc.client("mallory")
	mallory.expect(200, mallory.send("GET", "/other", ""))
	sc.other = func(http.ResponseWriter, *http.Request) { panic(panicked) }
	_, err := http.Get(sc.server.URL + "/other")
	require.Error(sc.t, err)

	lookup := errors.New(secret("a lookup's error"))
	sc.faults.set("Users.FindByID", func() error { return lookup })
	_, err = sc.a.StartSession(context.Background(), "ada", auth.SessionOptions{})
	sc.failed("StartSession", err)
	sc.faults.set("", nil)
	return planted
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
