package authclient

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// prints formats v in every way that a program might.
func prints(v any) map[string]string {
	out := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%d", "%x", "%X", "%s", "%q", "%o", "%b", "%e", "%t", "%c", "%U", "%z"} {
		for _, v := range []any{v, &v, []any{v}, struct{ Value any }{v}, map[string]any{"x": v}} {
			out[verb] += fmt.Sprintf(verb, v)
		}
	}
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v, "struct", struct{ Value any }{v})
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v)
	out["slog"] = b.String()
	text, err := json.Marshal(v)
	out["json"] = fmt.Sprint(string(text), err)
	text, err = xml.Marshal(v)
	out["xml"] = fmt.Sprint(string(text), err)
	b.Reset()
	err = gob.NewEncoder(&b).Encode(v)
	out["gob"] = fmt.Sprint(b.String(), err)
	return out
}

// No exported type contains a token, a retry key or a challenge.
func TestTypes_PrintNoSecret(t *testing.T) {
	playLogin(t, codes{}, func(t *testing.T, s *server, tr *Transport) {
		secrets := map[string]string{"password": password}
		var values []any
		keep := func(err error) {
			require.Error(t, err)
			values = append(values, err, *refusalOf(t, err))
		}
		keep(tr.Login(t.Context(), map[string]string{"login": "ada", "password": "wrong " + password}))
		keep(tr.Login(t.Context(), map[string]string{"login": "ada", "password": password}))
		secrets["challenge"] = tr.challenge()
		s.signIn(t, tr)
		time.Sleep(time.Hour)
		s.onRefresh(unavailable)
		_, _, err := get(t, tr, page)
		keep(err)
		now := stored(t, tr)
		secrets["access token"], secrets["refresh token"], secrets["retry key"] = now.Access, now.Refresh, now.RetryKey
		s.onRefresh(func(w http.ResponseWriter, _ *http.Request, _ func()) {
			fmt.Fprintf(w, `{"access_token":%q,"refresh_token":["%s"]}`, now.Access, now.Refresh)
		})
		_, _, err = get(t, tr, page)
		require.Error(t, err)
		text, err2 := tr.store.Load(t.Context())
		require.NoError(t, err2)
		require.NoError(t, tr.store.Update(t.Context(), func([]byte) ([]byte, error) { return text[:len(text)-2], nil }))
		_, _, err3 := get(t, tr, page)
		require.Error(t, err3)
		values = append(values, err, err3, tr, *tr.url, Config{BaseURL: base, Store: tr.store, Base: tr}, FileStore("tokens.json"), tr.store, struct{ t *Transport }{tr})

		for _, v := range values {
			for way, text := range prints(v) {
				for name, secret := range secrets {
					require.NotEmpty(t, secret, name)
					for _, form := range []string{
						secret, secret[len(secret)-20:], hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret))),
						base64.StdEncoding.EncodeToString([]byte(secret)), strings.Trim(fmt.Sprint([]byte(secret)), "[]"),
					} {
						if strings.Contains(text, form) {
							require.Fail(t, fmt.Sprintf("%T shows the %s by %s", v, name, way))
						}
					}
				}
			}
		}
		require.Equal(t, "authclient.Transport{https://example.com/auth}", fmt.Sprint(tr))
	})
}
