package auth_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// decodeToken decodes a token without verifying it.
func decodeToken(t testing.TB, token string) (header, payload map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	for i, to := range []*map[string]any{&header, &payload} {
		b, err := base64.RawURLEncoding.Strict().DecodeString(parts[i])
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, to))
	}
	return header, payload
}

func seconds(at time.Time) float64 { return float64(at.Unix()) }

func TestLogin_IssuesExactlyTheseClaims(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys, func(c *auth.Config) { c.Audience = []string{audience, "https://other.example.com"} })
	fx.clock.Advance(123456789 * time.Nanosecond)
	now := fx.clock.Now()
	tokens, err := fx.Login(
		context.Background(), "ada", pass,
		auth.SessionOptions{Name: "Ada's phone", Data: []byte("app data"), Device: auth.Device{UserAgent: "curl/8", IP: netip.MustParseAddr("192.0.2.1")}},
	)
	require.NoError(t, err)

	header, payload := decodeToken(t, tokens.Access)
	require.Equal(t, map[string]any{"alg": "HS256", "typ": "at+jwt", "kid": auth.HS256(accessSecret).ID()}, header)
	jti, sid := payload["jti"].(string), payload["sid"].(string)
	require.Regexp(t, `^[A-Za-z0-9_-]{22}$`, jti)
	require.Regexp(t, `^[A-Za-z0-9_-]{22}$`, sid)
	require.NotEqual(t, jti, sid)
	require.Equal(t, map[string]any{
		"iss": issuer, "aud": []any{audience, "https://other.example.com"}, "sub": "u1", "sid": sid, "jti": jti,
		"iat": seconds(now), "exp": seconds(now.Add(15 * time.Minute)), "auth_time": seconds(now), "session_exp": seconds(now.Add(7 * 24 * time.Hour)),
		"username": "ada", "roles": []any{"admin", "user"}, "scope": "pay read", "amr": []any{"pwd"},
	}, payload)

	header, payload = decodeToken(t, tokens.Refresh)
	require.Equal(t, map[string]any{"alg": "HS256", "typ": "rt+jwt", "kid": auth.HS256(refreshSecret).ID()}, header)
	require.Equal(t, map[string]any{
		"iss": issuer, "aud": []any{audience, "https://other.example.com"}, "sub": "u1", "sid": sid, "gen": 1.0,
		"auth_time": seconds(now), "iat": seconds(now), "exp": seconds(now.Add(7 * 24 * time.Hour)), "amr": []any{"pwd"},
	}, payload)

	require.Equal(t, auth.Tokens{
		Access: tokens.Access, AccessExpiresAt: now.Add(15 * time.Minute).Truncate(time.Second), Refresh: tokens.Refresh,
		RefreshExpiresAt: now.Add(7 * 24 * time.Hour).Truncate(time.Second),
		Subject:          "u1", SessionID: sid, Scope: "pay read",
	}, tokens)

	// The parsed claims are those of the token.
	c, err := fx.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
	second := now.Truncate(time.Second)
	require.Equal(t, []any{
		issuer, []string{audience, "https://other.example.com"}, "u1", sid, jti, "ada", []string{"admin", "user"}, []string{"pay", "read"},
		[]string{"pwd"},
	},
		[]any{c.Issuer, c.Audience, c.Subject, c.SessionID, c.TokenID, c.Username, c.Roles, c.Scopes, c.AMR})
	require.Equal(
		t, []time.Time{second, second.Add(15 * time.Minute), second, second.Add(7 * 24 * time.Hour)},
		[]time.Time{c.IssuedAt, c.ExpiresAt, c.AuthTime, c.SessionExpiresAt},
	)
}

func TestRefresh_IssuesExactlyTheseClaims(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys)
	first, err := fx.StartSession(context.Background(), "u2", auth.SessionOptions{AMR: []string{"webauthn", "mfa"}})
	require.NoError(t, err)
	login := fx.clock.Now()
	fx.clock.Advance(time.Hour)
	now := fx.clock.Now()
	fx.users.change("u2", func(u *auth.User) { u.Username, u.Roles, u.Scopes = "", nil, nil })
	second, err := fx.Refresh(context.Background(), first.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	_, payload := decodeToken(t, second.Access)
	jti := payload["jti"]
	_, before := decodeToken(t, first.Access)
	require.NotEqual(t, before["jti"], jti, "each token must have its own jti")
	require.Equal(t, map[string]any{
		"iss": issuer, "aud": []any{audience}, "sub": "u2", "sid": first.SessionID, "jti": jti, "iat": seconds(now), "exp": seconds(now.Add(15 * time.Minute)),
		"auth_time": seconds(login), "session_exp": seconds(now.Add(7*24*time.Hour - defaultCooldown)), "amr": []any{"webauthn", "mfa"},
	}, payload, "nothing of the user's is copied from the old token, all of the session's is")
	_, payload = decodeToken(t, second.Refresh)
	require.Equal(t, map[string]any{
		"iss": issuer, "aud": []any{audience}, "sub": "u2", "sid": first.SessionID, "gen": 2.0,
		"auth_time": seconds(login), "iat": seconds(now), "exp": seconds(now.Add(7 * 24 * time.Hour)), "amr": []any{"webauthn", "mfa"},
	}, payload)
}

func TestTokens_ContainOnlyNeededClaims(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	tokens, err := fx.Login(
		context.Background(), "ada@example.com", pass,
		auth.SessionOptions{Name: "Ada's phone", Data: []byte("app data"), Device: auth.Device{UserAgent: "curl/8", IP: netip.MustParseAddr("192.0.2.1")}},
	)
	require.NoError(t, err)
	for _, token := range []string{tokens.Access, tokens.Refresh} {
		header, payload := decodeToken(t, token)
		text := fmt.Sprint(header, payload)
		for _, private := range []string{"@", passHash, "argon2", pass, "phone", "app data", "curl", "192.0.2.1", string(secret)} {
			require.NotContains(t, text, private)
		}
	}
	_, payload := decodeToken(t, tokens.Refresh)
	for _, name := range []string{"username", "roles", "scope", "jti"} {
		require.NotContains(t, payload, name, "a refresh token must not contain claims of the user")
	}
}

func TestTokens_GolangJWTVerifiesThem(t *testing.T) {
	t.Parallel()
	long := []byte("a secret that is long enough for every hash there is, " + "sixty-four")
	long2 := append([]byte("2"), long...)
	for name, make := range map[string]func([]byte) auth.Key{"HS256": auth.HS256, "HS384": auth.HS384, "HS512": auth.HS512} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, func(c *auth.Config) {
				c.Secrets, c.AccessKeys, c.RefreshKeys = nil, auth.Keys{make(long)}, auth.Keys{make(long2)}
			})
			tokens := fx.login(t)
			parser := jwt.NewParser(
				jwt.WithValidMethods([]string{name}), jwt.WithStrictDecoding(), jwt.WithIssuer(issuer), jwt.WithAudience(audience),
				jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithTimeFunc(fx.clock.Now),
			)
			for token, secret := range map[string][]byte{tokens.Access: long, tokens.Refresh: long2} {
				claims := jwt.RegisteredClaims{}
				_, err := parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return secret, nil })
				require.NoError(t, err)
				require.Equal(t, "u1", claims.Subject)
				_, err = parser.Parse(token, func(*jwt.Token) (any, error) { return append(slices.Clone(secret), 'x'), nil })
				require.ErrorIs(t, err, jwt.ErrTokenSignatureInvalid)
			}
			// The Authenticator verifies it as well.
			c, err := fx.Verify(context.Background(), tokens.Access)
			require.NoError(t, err)
			require.Equal(t, tokens.SessionID, c.SessionID)
			_, err = fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
			require.NoError(t, err)
		})
	}
}

func TestVerify_AcceptsTokensOfGolangJWT(t *testing.T) {
	t.Parallel()
	fx := newFixture(t, knownKeys)
	now := fx.clock.Now()
	claims := func() jwt.MapClaims {
		return jwt.MapClaims{
			"iss": issuer, "aud": audience, "sub": "user of another issuer", "sid": "s", "jti": "j", "iat": now.Unix(), "nbf": now.Unix(),
			"exp":       now.Add(time.Minute).Unix(),
			"auth_time": now.Unix(), "session_exp": now.Add(time.Hour).Unix(), "scope": "read  pay", "roles": []string{"user"}, "tenant": "t1",
		}
	}
	sign := func(m jwt.SigningMethod, typ string, c jwt.MapClaims) string {
		token := jwt.NewWithClaims(m, c)
		token.Header["typ"] = typ
		s, err := token.SignedString(accessSecret)
		require.NoError(t, err)
		return s
	}
	c, err := fx.Verify(context.Background(), sign(jwt.SigningMethodHS256, "at+jwt", claims()))
	require.NoError(t, err)
	require.Equal(t, "user of another issuer", c.Subject)
	require.Equal(t, []string{"read", "pay"}, c.Scopes)
	require.Equal(t, []string{"user"}, c.Roles)
	require.Equal(t, now.Truncate(time.Second).Add(time.Minute), c.ExpiresAt)

	_, err = fx.Verify(context.Background(), sign(jwt.SigningMethodHS256, "JWT", claims()))
	require.ErrorIs(t, err, auth.ErrInvalidToken, "the typ of golang-jwt must be refused")
	_, err = fx.Verify(context.Background(), sign(jwt.SigningMethodHS384, "at+jwt", claims()))
	require.ErrorIs(t, err, auth.ErrInvalidToken)
	none := jwt.NewWithClaims(jwt.SigningMethodNone, claims())
	none.Header["typ"] = "at+jwt"
	token, err := none.SignedString(jwt.UnsafeAllowNoneSignatureType)
	require.NoError(t, err)
	_, err = fx.Verify(context.Background(), token)
	require.ErrorIs(t, err, auth.ErrInvalidToken)
}

func TestSecrets_AreRotated(t *testing.T) {
	t.Parallel()
	fresh, older := []byte("the new secret, of thirty-two bytes or more"), []byte("the old secret, of thirty-two bytes or more")
	for name, set := range map[string]func(c *auth.Config, secrets ...[]byte){
		"Secrets": func(c *auth.Config, secrets ...[]byte) { c.Secrets = secrets },
		"keys": func(c *auth.Config, secrets ...[]byte) {
			c.Secrets = nil
			for _, s := range secrets {
				c.AccessKeys = append(c.AccessKeys, auth.HS256(append([]byte("access"), s...)))
				c.RefreshKeys = append(c.RefreshKeys, auth.HS256(append([]byte("refresh"), s...)))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			list := newNodes(t, 3, func(i int, c *auth.Config) {
				set(c, [][][]byte{{older}, {fresh, older}, {fresh}}[i]...)
			})
			before, during, after := list[0], list[1], list[2]
			old := before.login(t)
			_, err := during.Verify(context.Background(), old.Access)
			require.NoError(t, err, "all secrets verify")
			_, err = after.Verify(context.Background(), old.Access)
			require.ErrorIs(t, err, auth.ErrInvalidToken, "the secret was removed")
			_, err = after.Refresh(context.Background(), old.Refresh, auth.RefreshOptions{})
			require.ErrorIs(t, err, auth.ErrInvalidToken)
			require.NoError(t, after.Logout(context.Background(), old.Refresh, old.Access), "an unverifiable token must end no session")

			moved, err := during.Refresh(context.Background(), old.Refresh, auth.RefreshOptions{})
			require.NoError(t, err)
			_, err = after.Verify(context.Background(), moved.Access)
			require.NoError(t, err, "the first secret signs")
			_, err = after.Refresh(context.Background(), moved.Refresh, auth.RefreshOptions{})
			require.NoError(t, err)
			_, err = before.Verify(context.Background(), moved.Access)
			require.ErrorIs(t, err, auth.ErrInvalidToken)
		})
	}
}

func TestRefresh_NodesWithOneSecretReturnTheSameToken(t *testing.T) {
	t.Parallel()
	list := newNodes(t, 2, func(int, *auth.Config) {})
	first := list[0].login(t)
	list[0].clock.Advance(1234 * time.Millisecond)
	one, err := list[0].Refresh(context.Background(), first.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	list[0].clock.Advance(4321 * time.Millisecond)
	two, err := list[1].Refresh(context.Background(), first.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	require.Equal(t, one.Refresh, two.Refresh)
	require.Equal(t, one.RefreshExpiresAt, two.RefreshExpiresAt)
	require.NotEqual(t, one.Access, two.Access)
}

func TestAMR_IsThatOfTheLogin(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	amr := func(tokens auth.Tokens, err error) []string {
		require.NoError(t, err)
		c, err := fx.Verify(context.Background(), tokens.Access)
		require.NoError(t, err)
		return c.AMR
	}
	require.Equal(t, []string{"pwd"}, amr(fx.Login(context.Background(), "ada", pass, auth.SessionOptions{})))
	require.Equal(t, []string{"pwd", "otp"}, amr(fx.Login(context.Background(), "ada", pass, auth.SessionOptions{AMR: []string{"pwd", "otp"}})))
	require.Empty(t, amr(fx.StartSession(context.Background(), "u1", auth.SessionOptions{})))
	require.Equal(t, []string{"hwk"}, amr(fx.StartSession(context.Background(), "u1", auth.SessionOptions{AMR: []string{"hwk"}})))
}

func TestTokens_NeverOutliveTheirSession(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*auth.Config){
		"a short idle lifetime":     func(c *auth.Config) { c.IdleTTL, c.SessionTTL = 16*time.Minute, 20*time.Minute },
		"a short absolute lifetime": func(c *auth.Config) { c.IdleTTL, c.SessionTTL = 16*time.Minute, 16*time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fx := newFixture(t, change)
			fx.clock.Advance(777 * time.Millisecond)
			login := fx.clock.Now()
			tokens := fx.login(t)
			end := time.Time{}
			for range 300 {
				list, err := fx.Sessions(context.Background(), "u1")
				require.NoError(t, err)
				if len(list) == 0 {
					break
				}
				s := list[0]
				c, err := fx.Verify(context.Background(), tokens.Access)
				require.NoError(t, err)
				require.False(t, c.ExpiresAt.After(s.ExpiresAt), "%s after %s", c.ExpiresAt, s.ExpiresAt)
				require.False(t, c.SessionExpiresAt.After(s.ExpiresAt))
				require.False(t, c.ExpiresAt.After(c.SessionExpiresAt))
				require.Equal(t, c.ExpiresAt, tokens.AccessExpiresAt)
				require.Equal(t, s.ExpiresAt.Truncate(time.Second), tokens.RefreshExpiresAt)
				require.False(t, tokens.RefreshExpiresAt.After(login.Truncate(time.Second).Add(20*time.Minute)))
				require.Equal(t, login.Truncate(time.Second), c.AuthTime, "auth_time must stay the time of the login")
				end = s.ExpiresAt
				fx.clock.Advance(7 * time.Second)
				next, err := fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
				if err != nil {
					require.ErrorIs(t, err, auth.ErrTokenExpired)
					break
				}
				tokens = next
			}
			require.WithinDuration(t, end, fx.clock.Now(), 8*time.Second, "the session must last until its end")
			_, err := fx.Verify(context.Background(), tokens.Access)
			require.ErrorIs(t, err, auth.ErrTokenExpired)
		})
	}
}

func TestVerify_ExpiryIsExact(t *testing.T) {
	t.Parallel()
	fx := newFixture(t)
	tokens := fx.login(t)
	fx.clock.Advance(15*time.Minute - time.Millisecond)
	_, err := fx.Verify(context.Background(), tokens.Access)
	require.NoError(t, err)
	fx.clock.Advance(time.Millisecond)
	_, err = fx.Verify(context.Background(), tokens.Access)
	require.ErrorIs(t, err, auth.ErrTokenExpired, "Leeway must not extend a lifetime")
	fx.clock.Advance(7*24*time.Hour - 15*time.Minute - time.Millisecond)
	_, err = fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
	require.NoError(t, err)
	fx.clock.Advance(time.Millisecond)
	_, err = fx.Refresh(context.Background(), tokens.Refresh, auth.RefreshOptions{})
	require.ErrorIs(t, err, auth.ErrTokenExpired)
}

func TestVerify_LeewayBounds(t *testing.T) {
	t.Parallel()
	for _, leeway := range []time.Duration{
		-5 * time.Second, -1, time.Millisecond, 1500 * time.Microsecond, time.Second, 2500 * time.Millisecond, 10 * time.Second,
		time.Minute,
	} {
		known := max(0, leeway).Truncate(time.Millisecond)
		fx := newFixture(t, knownKeys, func(c *auth.Config) { c.Leeway = leeway })
		verifier, err := auth.NewVerifier(auth.VerifierConfig{
			Issuer: issuer, Audience: []string{audience}, Keys: auth.Keys{auth.HS256(accessSecret)}, Leeway: leeway, Now: fx.clock.Now,
		})
		require.NoError(t, err)
		f := newForger("access", fx.clock.Now())
		claim := func(name string, ahead time.Duration) string {
			return f.signClaims(f.claims.with(name, strconv.FormatInt(f.now.Add(ahead).Truncate(time.Second).Unix(), 10)))
		}
		for _, v := range []*auth.Verifier{fx.Verifier, verifier} {
			_, err = v.Verify(context.Background(), claim("iat", 2*known+time.Second))
			require.NoError(t, err, leeway)
			_, err = v.Verify(context.Background(), claim("iat", 2*known+2*time.Second))
			require.ErrorIs(t, err, auth.ErrTokenExpired, leeway)
			_, err = v.Verify(context.Background(), claim("nbf", known))
			require.NoError(t, err, leeway)
			_, err = v.Verify(context.Background(), claim("nbf", known+time.Second))
			require.ErrorIs(t, err, auth.ErrTokenExpired, leeway)
		}
	}
}
