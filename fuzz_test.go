package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/password"
)

// Tokens are fuzzed in two ways. Some targets change the text of a token; then
// only tokens signed here may be accepted. Others change the header and payload
// under a valid signature; then the accepted claims must equal what
// encoding/json reads.

type fuzzUsers struct{}

func (fuzzUsers) FindByLogin(_ context.Context, login string) (User, error) {
	if login == "ada" {
		return User{ID: "u1"}, nil
	}
	return User{}, ErrUserNotFound
}

func (fuzzUsers) FindByID(_ context.Context, id string) (User, error) { return User{ID: id}, nil }

var fuzzNow = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

const fuzzAccess, fuzzRefresh = "the access secret of the fuzz tests, 1", "the refresh secret of the fuzz tests, 2"

func fuzzAuthenticator(t testing.TB) *Authenticator {
	t.Helper()
	a, err := New(Config{
		Issuer: "https://example.com", Audience: []string{"https://api.example.com"}, AccessKeys: Keys{HS256([]byte(fuzzAccess))},
		RefreshKeys: Keys{HS256([]byte(fuzzRefresh))},
		Users:       fuzzUsers{}, Hasher: &password.Hasher{Memory: 8, Time: 1}, Cookies: &Cookies{AllowBody: true}, Now: func() time.Time { return fuzzNow },
		Limiter: unlimited{}, // all inputs of a fuzzing run come from one address within one instant
	})
	require.NoError(t, err)
	a.memoryID = "" // fuzzSign does not know it
	return a
}

// unlimited is a Limiter that permits every attempt, so that the response to an input
// does not depend on the inputs before it.
type unlimited struct{}

func (unlimited) Take(context.Context, []Bucket) (time.Duration, int, error) { return 0, 0, nil }

func (unlimited) Settle(context.Context, []Bucket, []Bucket) error { return nil }

func fuzzSign(secret, header, payload string) string {
	enc := base64.RawURLEncoding
	input := enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(payload))
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(input))
	return input + "." + enc.EncodeToString(m.Sum(nil))
}

// fuzzTokens returns valid tokens, the same in every fuzzing process.
func fuzzTokens(sub string) Tokens {
	common := `{"iss":"https://example.com","aud":["https://api.example.com"],"sub":"` + sub + `","sid":"session of ` +
		sub + `","iat":1795176000,"auth_time":1795176000,`
	return Tokens{
		Subject: sub, SessionID: "session of " + sub,
		Access: fuzzSign(
			fuzzAccess, `{"alg":"HS256","typ":"at+jwt","kid":"`+HS256([]byte(fuzzAccess)).ID()+`"}`,
			common+`"jti":"j","exp":1795176900,"session_exp":1795780800}`,
		),
		Refresh: fuzzSign(fuzzRefresh, `{"alg":"HS256","typ":"rt+jwt","kid":"`+HS256([]byte(fuzzRefresh)).ID()+`"}`, common+`"gen":1,"exp":1795780800}`),
	}
}

// oddTokens returns seeds: a token and malformed variants of it.
func oddTokens(token string) []string {
	parts := strings.Split(token, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`))
	return []string{
		token, "", ".", "..", "...", token + "=", token + "\n", " " + token, token + ".", parts[0] + "." + parts[1],
		none + "." + parts[1] + ".", parts[0] + ".." + parts[2],
		parts[0] + "." + parts[1] + "." + parts[2][:42] + "B", strings.Replace(token, ".", "\r\n.", 1),
		`{"payload":"` + parts[1] + `"}`, strings.Repeat("a.", 5),
	}
}

// meansTheSame compares claims with the payload as encoding/json reads it.
func meansTheSame(t *testing.T, payload []byte, sub, sid string, exp time.Time) {
	t.Helper()
	var loose map[string]any
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	require.NoError(t, d.Decode(&loose), "%q", payload)
	require.False(t, d.More(), "%q", payload)
	require.Equal(t, sub, loose["sub"], "%q", payload)
	require.Equal(t, sid, loose["sid"], "%q", payload)
	n, err := loose["exp"].(json.Number).Float64()
	require.NoError(t, err)
	require.Equal(t, exp.Unix(), int64(n))
	// A reader that ignores the case of names reads the same values.
	var fold struct {
		Sub, Sid string
		Iss      string
		Exp      json.Number
	}
	require.NoError(t, json.Unmarshal(payload, &fold), "%q", payload)
	require.Equal(t, sub, fold.Sub)
	require.Equal(t, sid, fold.Sid)
	require.Equal(t, "https://example.com", fold.Iss)
}

func FuzzVerifyAccessToken(f *testing.F) {
	a := fuzzAuthenticator(f)
	tokens := fuzzTokens("u1")
	header := `{"alg":"HS256","typ":"at+jwt","kid":"` + HS256([]byte(fuzzAccess)).ID() + `"}`
	payload := `{"iss":"https://example.com","aud":["https://api.example.com"],"sub":"u1","sid":"s","jti":"j",` +
		`"iat":1795176000,"exp":1795176900,"auth_time":1795176000,"session_exp":1795780800}`
	for _, token := range oddTokens(tokens.Access) {
		f.Add(token, header, payload)
	}
	for _, change := range [][2]string{
		{`"u1"`, `"u1","Sub":"u2"`}, {`"u1"`, `"u1","\u0073ub":"u2"`}, {`"u1"`, `"u1","x":{"a":[1,{}]}`}, {`1795176900`, `1e10`},
		{`1795176900`, `"1795176900"`}, {`1795176900`, `1795176900.5`}, {`["https://api.example.com"]`, `"https://api.example.com"`},
		{`"u1"`, `"u1","nbf":0,"scope":"a b","roles":["x"],"amr":[],"username":"é"`}, {`}`, `} `}, {`{`, `[{`}, {`"j"`, `"\ud83d\ude00"`}, {`"j"`, `"\ud800"`},
	} {
		f.Add(tokens.Refresh, header, strings.Replace(payload, change[0], change[1], 1))
	}
	for _, h := range []string{
		`{"alg":"none"}`, strings.Replace(header, "HS256", "HS384", 1), strings.Replace(header, "}", `,"crit":[]}`, 1),
		strings.Replace(header, "at+jwt", "application/at+jwt", 1),
	} {
		f.Add("", h, payload)
	}
	f.Fuzz(func(t *testing.T, token, header, payload string) {
		_, err := a.Verify(context.Background(), token)
		if token == tokens.Access {
			require.NoError(t, err)
		} else {
			require.True(t, errors.Is(err, ErrInvalidToken), "%v", err)
		}

		signed := fuzzSign(fuzzAccess, header, payload)
		c, err := a.Verify(context.Background(), signed)
		if err != nil {
			require.True(t, errors.Is(err, ErrInvalidToken) != errors.Is(err, ErrTokenExpired), "%v", err)
			require.LessOrEqual(t, len(err.Error()), 120)
			return
		}
		require.LessOrEqual(t, len(signed), 8192)
		var h struct{ Alg, Typ string }
		require.NoError(t, json.Unmarshal([]byte(header), &h))
		require.Equal(t, "HS256", h.Alg)
		require.Equal(t, "at+jwt", strings.TrimPrefix(h.Typ, "application/"))
		require.NotEmpty(t, c.Subject)
		require.NotEmpty(t, c.SessionID)
		require.NotEmpty(t, c.TokenID)
		require.Equal(t, "https://example.com", c.Issuer)
		require.Contains(t, c.Audience, "https://api.example.com")
		require.True(t, c.ExpiresAt.After(fuzzNow))
		require.False(t, c.IssuedAt.After(fuzzNow.Add(21*time.Second)))
		meansTheSame(t, []byte(payload), c.Subject, c.SessionID, c.ExpiresAt)
		_, err = a.Refresh(context.Background(), signed, RefreshOptions{})
		require.ErrorIs(t, err, ErrInvalidToken)
	})
}

func FuzzVerifyRefreshToken(f *testing.F) {
	a := fuzzAuthenticator(f)
	tokens := fuzzTokens("u1")
	header := `{"alg":"HS256","typ":"rt+jwt","kid":"` + HS256([]byte(fuzzRefresh)).ID() + `"}`
	payload := `{"iss":"https://example.com","aud":["https://api.example.com"],"sub":"u1","sid":"s","gen":1,` +
		`"auth_time":1795176000,"iat":1795176000,"exp":1795780800,"amr":["pwd"]}`
	for _, token := range oddTokens(tokens.Refresh) {
		f.Add(token, header, payload)
	}
	for _, change := range [][2]string{
		{`"gen":1`, `"gen":999999999999999999`}, {`"gen":1`, `"gen":1.0`}, {`"gen":1`, `"gen":1,"jti":"x"`},
		{`"gen":1`, `"gen":1,"GEN":2`}, {`"u1"`, `"u1","\u0073ub":"u2"`}, {`1795780800`, `1e11`}, {`["pwd"]`, `[]`},
	} {
		f.Add(tokens.Access, header, strings.Replace(payload, change[0], change[1], 1))
	}
	f.Fuzz(func(t *testing.T, token, header, payload string) {
		_, err := a.openRefresh(context.Background(), token)
		if token == tokens.Refresh {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, ErrInvalidToken)
			_, err = a.Refresh(context.Background(), token, RefreshOptions{})
			require.ErrorIs(t, err, ErrInvalidToken)
		}
		signed := fuzzSign(fuzzRefresh, header, payload)
		c, err := a.openRefresh(context.Background(), signed)
		if err != nil {
			if !errors.As(err, new(newerToken)) {
				require.ErrorIs(t, err, ErrInvalidToken)
				require.LessOrEqual(t, len(err.Error()), 120)
			}
			return
		}
		require.NotEmpty(t, c.subject)
		require.NotEmpty(t, c.sid)
		require.GreaterOrEqual(t, c.generation, int64(1))
		meansTheSame(t, []byte(payload), c.subject, c.sid, c.expiresAt)
		_, err = a.Verify(context.Background(), signed)
		require.ErrorIs(t, err, ErrInvalidToken)
	})
}

func FuzzOneTimeToken(f *testing.F) {
	a := fuzzAuthenticator(f)
	keys, err := oneTimeKeys(Keys{HS256([]byte(fuzzRefresh))})
	require.NoError(f, err)
	a.memoryID = "" // it differs between the processes of a fuzzing run
	secret := string(keys[0].secret())
	header := `{"alg":"HS256","typ":"ot+jwt","kid":"` + keys[0].ID() + `"}`
	payload := `{"iss":"https://example.com","aud":["https://api.example.com"],"sub":"u1","purpose":"reset","jti":"x",` +
		`"iat":1795176000,"exp":1795780800,"data":"ZGF0YQ"}`
	genuine := fuzzSign(secret, header, payload)
	for _, token := range oddTokens(genuine) {
		f.Add(token, header, payload)
	}
	for _, change := range [][2]string{
		{`"ZGF0YQ"`, `"ZGF0YR"`}, {`"ZGF0YQ"`, `"ZGF0YQ\n"`}, {`"jti":"x"`, `"jti":"x","gen":1`}, {`"jti":"x"`, `"jti":"x","bound":"x"`},
		{`"reset"`, `"login factor"`}, {`"u1"`, `"u1","\u0073ub":"u2"`}, {`1795780800`, `1e11`}, {`"jti":"x"`, `"jti":"x","amr":["pwd"]`},
	} {
		f.Add(genuine, header, strings.Replace(payload, change[0], change[1], 1))
	}
	ticket := oneTimeClaims{id: "x"}
	for _, access := range []string{
		`{"iss":"https://example.com","aud":"https://api.example.com","sub":"u1","sid":"s","jti":"y","iat":1795176000,"exp":1,"auth_time":1795176000,"session_exp":1795780800}`, `{"iss":1}`, "",
	} {
		sealed := base64.RawURLEncoding.EncodeToString(ticket.crypt(keys[0].key, []byte(access)))
		f.Add(genuine, header, strings.Replace(payload, `"purpose":"reset"`, `"purpose":"stream ticket","path":"/","sealed":"`+sealed+`"`, 1))
	}
	f.Fuzz(func(t *testing.T, token, header, payload string) {
		_, err := a.CheckOneTime(context.Background(), "reset", token)
		if token == genuine {
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, ErrInvalidToken)
		}
		signed := fuzzSign(secret, header, payload)
		for _, purpose := range []string{"reset", purposeFactor, purposeTicket} {
			c, _, err := a.openOneTime(context.Background(), purpose, signed)
			if err != nil {
				require.True(t, errors.Is(err, ErrInvalidToken) || errors.Is(err, ErrTokenExpired) || errors.Is(err, ErrUnavailable), "%v", err)
				continue
			}
			require.NotEmpty(t, c.subject)
			require.NotEmpty(t, c.id)
			require.Equal(t, purpose, c.purpose)
			require.Equal(t, purpose == purposeTicket, c.ticket.claims != nil)
			require.Empty(t, c.memoryID)
			require.True(t, c.expiresAt.After(fuzzNow))
			require.False(t, c.issuedAt.After(fuzzNow.Add(21*time.Second)))
		}
		_, err = a.Verify(context.Background(), signed)
		require.ErrorIs(t, err, ErrInvalidToken)
		_, err = a.Refresh(context.Background(), signed, RefreshOptions{})
		require.ErrorIs(t, err, ErrInvalidToken)
	})
}

func FuzzAuthorizationHeader(f *testing.F) {
	a := fuzzAuthenticator(f)
	tokens := fuzzTokens("u1")
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER  ", "Bearer\t", "Basic ", "", " Bearer ", "Bearer", "Bearer,", "DPoP ", "Bearer Bearer "} {
		for _, rest := range []string{
			tokens.Access, "", " ", tokens.Access + " ", tokens.Access + "," + tokens.Access, tokens.Access + " x", tokens.Refresh,
			`"` + tokens.Access + `"`, "dTpw",
		} {
			f.Add(scheme+rest, "")
			f.Add(scheme+rest, "Bearer "+tokens.Access)
		}
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Authorization"] = []string{one}
		if two != "" {
			r.Header["Authorization"] = []string{one, two}
		}
		token, byCookie, err := a.AccessToken(r)
		require.False(t, byCookie)
		if err != nil {
			require.Empty(t, token)
			require.True(t, errors.Is(err, ErrNoToken) != errors.Is(err, ErrInvalidRequest), "%v", err)
		} else {
			require.NotEmpty(t, token)
			require.NotContains(t, token, " ")
			require.NotContains(t, token, ",")
		}
		c, err := a.Authenticate(r)
		if err != nil {
			return
		}
		require.Equal(t, tokens.SessionID, c.SessionID)
		// The only bearer token of the request is the valid one.
		bearers := 0
		for _, h := range r.Header["Authorization"] {
			if scheme, rest, _ := strings.Cut(h, " "); strings.EqualFold(scheme, "bearer") {
				bearers++
				require.Equal(t, tokens.Access, strings.Trim(rest, " "))
			}
		}
		require.Equal(t, 1, bearers)
	})
}

func FuzzCookieHeader(f *testing.F) {
	a := fuzzAuthenticator(f)
	tokens := fuzzTokens("u1")
	other := fuzzTokens("u2")
	access, refresh := "__Host-access=", "__Host-Http-refresh="
	for _, c := range []string{
		access + tokens.Access, refresh + tokens.Refresh, access + tokens.Access + "; " + refresh + tokens.Refresh,
		access + tokens.Refresh, access + "; " + access + tokens.Access, access + tokens.Access + "; " + access + tokens.Access,
		access + tokens.Access + "; " + access + other.Access, refresh + tokens.Refresh + "; " + refresh + other.Refresh,
		`__Host-access="` + tokens.Access + `"`, "__host-access=" + tokens.Access, "access=" + tokens.Access, ";;=; " + access,
		access + "1; " + access + "2; " + access + "3; " + access + "4; " + access + tokens.Access,
		"a=b; " + access + tokens.Access + " ; c", access + "\x00", "$Version=1; " + access + tokens.Access,
	} {
		f.Add(c, "")
		f.Add(c, access+other.Access)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Cookie"] = []string{one}
		if two != "" {
			r.Header["Cookie"] = []string{one, two}
		}
		all := one + ";" + two
		token, byCookie, err := a.AccessToken(r)
		if err == nil {
			require.True(t, byCookie)
			require.NotEmpty(t, token)
		}
		if c, err := a.Authenticate(r); err == nil {
			switch c.SessionID {
			case tokens.SessionID:
				require.Contains(t, all, tokens.Access)
			case other.SessionID:
				require.Contains(t, all, other.Access)
			default:
				require.Fail(t, "a session that was never created")
			}
		}
		token, o, err := a.RefreshRequest(r)
		if err == nil {
			require.False(t, o.InBody)
			require.Contains(t, all, token)
		}
		list, _, err := a.RequestTokens(r)
		require.NoError(t, err)
		require.LessOrEqual(t, len(list), 2*maxVerified+strings.Count(all, tokens.Refresh)+strings.Count(all, other.Refresh))
		for _, token := range list {
			require.Contains(t, all, token)
		}
		w := httptest.NewRecorder()
		a.Optional(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, known := FromContext(r.Context())
			require.Equal(t, known, ErrorFromContext(r.Context()) == nil && hasGood(a, r))
		})).ServeHTTP(w, r)
	})
}

func hasGood(a *Authenticator, r *http.Request) bool {
	_, err := a.Authenticate(r)
	return err == nil
}

func FuzzLoginRequest(f *testing.F) {
	a := fuzzAuthenticator(f)
	h := a.LoginHandler()
	for _, body := range []string{
		`{"login":"ada","password":"x"}`, `{"username":"ada","password":"x","device":"phone","delivery":"body"}`,
		`{"email":"ada","login":"ada","password":"x"}`, `{"login":"ada","login":"bob","password":"x"}`, `{"login":1,"password":"x"}`,
		`{"login":null,"password":"x"}`,
		`{"login":"ada","password":"\ud800"}`, `[]`, ``, `{`, "\xff", `{"login":{"$ne":""},"password":["x"]}`,
		`{"login":"ada","password":"x","extra":{"a":[1]}}`, strings.Repeat("[", 100),
		`login=ada&password=x`, `login=ada&login=bob&password=x`, `login=%ff&password=x`, `login=ada;password=x`, `%`, `password=&login=`,
	} {
		f.Add("application/json", body)
		f.Add("application/x-www-form-urlencoded", body)
	}
	f.Add("application/json; charset=latin1", `{}`)
	f.Add("multipart/form-data; boundary=x", "--x")
	f.Add("application/json;", `{"login":"ada","password":"x"}`)
	f.Fuzz(func(t *testing.T, kind, body string) {
		r := httptest.NewRequest(http.MethodPost, "/login", strings.NewReader(body))
		r.Header["Content-Type"] = []string{kind}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Contains(t, []int{400, 401, 413, 415}, w.Code, "no user has a password")
		require.Empty(t, w.Header()["Set-Cookie"])
		require.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		require.True(t, json.Valid(w.Body.Bytes()))
		require.LessOrEqual(t, w.Body.Len(), 300)

		r = httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
		r.Header["Content-Type"] = []string{kind}
		names := []string{"login", "username", "email", "login_id", "password", "device", "delivery"}
		fields, err := ReadFields(r, names...)
		if err != nil {
			require.Nil(t, fields)
			return
		}
		again, err := ReadFields(r, names...)
		require.NoError(t, err, "the body must be readable again")
		require.Equal(t, fields, again)
		if strings.HasPrefix(kind, "application/json") && len(body) > 0 {
			var loose map[string]any
			require.NoError(t, json.Unmarshal([]byte(body), &loose))
			for name, v := range fields {
				require.Equal(t, loose[name], v)
			}
		}
	})
}
