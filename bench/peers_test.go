package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	ginjwt "github.com/appleboy/gin-jwt/v3"
	jwtmiddleware "github.com/auth0/go-jwt-middleware/v3"
	"github.com/auth0/go-jwt-middleware/v3/validator"
	cristalhq "github.com/cristalhq/jwt/v5"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/jwtauth/v5"
	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"github.com/golang-jwt/jwt/v5"
	kataras "github.com/kataras/jwt"
	echojwt "github.com/labstack/echo-jwt/v4"
	"github.com/labstack/echo/v4"
	jwx2 "github.com/lestrrat-go/jwx/v2/jwt"
	"github.com/lestrrat-go/jwx/v3/jwa"
	jwx3 "github.com/lestrrat-go/jwx/v3/jwt"
	"github.com/ratchet-go/auth"
)

// inner is the protected handler.
type inner func(w http.ResponseWriter, subject string)

// peer is a way to protect a handler.
type peer struct {
	name    string
	ratchet bool // whether the peer is Ratchet, whose tokens have more claims
	wrap    func(*algorithm, inner) http.Handler
}

// peers lists the middlewares that accept tokens. Each checks the algorithm, the
// signature, exp, iss and aud, and gives the handler every claim.
var peers = []peer{
	{"ratchet-cached", true, func(a *algorithm, next inner) http.Handler { return wrapRatchet(a.ratchet(0, nil), next) }},
	{"ratchet-new", true, func(a *algorithm, next inner) http.Handler { return wrapRatchet(a.ratchet(-1, nil), next) }},
	{"golang-jwt", false, wrapGolangJWT},
	{"cristalhq", false, wrapCristalhq},
	{"kataras", false, wrapKataras},
	{"go-jose", false, wrapGoJose},
	{"jwx", false, wrapJWX},
	{"echo-jwt", false, wrapEchoJWT},
	{"gin-jwt", false, wrapGinJWT},
	{"go-jwt-middleware", false, wrapGoJWTMiddleware},
	{"jwtauth", false, wrapJWTAuth},
}

var (
	errClaims = errors.New("unexpected claims")
	errKey    = errors.New("unexpected type of key")
)

func wrapRatchet(a *auth.Authenticator, next inner) http.Handler {
	return a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		next(w, c.Subject)
	}))
}

// noAuth returns a handler behind a middleware that does not authenticate, but
// adds a value to the context.
func noAuth(next inner) http.Handler {
	return byHandAround(next, func(*http.Request) (*principal, error) { return someone, nil },
		func(p *principal) string { return p.Subject })
}

var someone = &principal{RegisteredClaims: jwt.RegisteredClaims{Subject: subject(0)}}

type contextKey struct{}

// byHand is a middleware as a careful user writes it for a library that has
// none: it reads the header, calls parse, and either adds the claims to the
// context or writes a response with the reason.
func byHand[C any](next inner, parse func(token string) (C, error), subject func(C) string) http.Handler {
	return byHandAround(next, func(r *http.Request) (none C, err error) {
		scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
		if !ok || !strings.EqualFold(scheme, "Bearer") {
			return none, errNoToken
		}
		return parse(token)
	}, subject)
}

var errNoToken = errors.New("no token")

func byHandAround[C any](next inner, authenticate func(*http.Request) (C, error), subject func(C) string) http.Handler {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(contextKey{}).(C)
		next(w, subject(c))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := authenticate(r)
		if err != nil {
			refuseByHand(w, err)
			return
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, c)))
	})
}

var (
	bodyNoToken      = []byte(`{"error":"no_token"}` + "\n")
	bodyInvalidToken = []byte(`{"error":"invalid_token"}` + "\n")
)

func refuseByHand(w http.ResponseWriter, err error) {
	challenge, body := `Bearer error="invalid_token"`, bodyInvalidToken
	if errors.Is(err, errNoToken) {
		challenge, body = "Bearer", bodyNoToken
	}
	w.Header().Set("WWW-Authenticate", challenge)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write(body)
}

// own holds the claims that are not registered.
type own struct {
	SessionID string   `json:"sid"`
	Username  string   `json:"username"`
	Roles     []string `json:"roles"`
}

type principal struct {
	jwt.RegisteredClaims
	own
}

// strictly returns the options for checks that golang-jwt does not do by
// default.
func (a *algorithm) strictly() []jwt.ParserOption {
	return []jwt.ParserOption{
		jwt.WithValidMethods([]string{a.name}), jwt.WithExpirationRequired(), jwt.WithIssuer(issuer), jwt.WithAudience(audience),
	}
}

func wrapGolangJWT(a *algorithm, next inner) http.Handler {
	parser := jwt.NewParser(a.strictly()...)
	key := func(*jwt.Token) (any, error) { return a.verify, nil }
	return byHand(next, func(token string) (*principal, error) {
		p := new(principal)
		_, err := parser.ParseWithClaims(token, p, key)
		return p, err
	}, func(p *principal) string { return p.Subject })
}

func wrapCristalhq(a *algorithm, next inner) http.Handler {
	type claims struct {
		cristalhq.RegisteredClaims
		own
	}
	var v cristalhq.Verifier
	var err error
	switch key := a.verify.(type) {
	case []byte:
		v, err = cristalhq.NewVerifierHS(cristalhq.HS256, key)
	case *rsa.PublicKey:
		v, err = cristalhq.NewVerifierRS(cristalhq.RS256, key)
	case *ecdsa.PublicKey:
		v, err = cristalhq.NewVerifierES(cristalhq.ES256, key)
	case ed25519.PublicKey:
		v, err = cristalhq.NewVerifierEdDSA(key)
	default:
		err = errKey
	}
	must(err)
	return byHand(next, func(token string) (*claims, error) {
		c := new(claims)
		if err := cristalhq.ParseClaims([]byte(token), v, c); err != nil {
			return nil, fmt.Errorf("cristalhq: %w", err)
		}
		if c.ExpiresAt == nil || !c.IsValidAt(time.Now()) || !c.IsIssuer(issuer) || !c.IsForAudience(audience) {
			return nil, errClaims
		}
		return c, nil
	}, func(c *claims) string { return c.Subject })
}

func wrapKataras(a *algorithm, next inner) http.Handler {
	type claims struct {
		kataras.Claims
		own
	}
	alg := map[string]kataras.Alg{"HS256": kataras.HS256, "RS256": kataras.RS256, "ES256": kataras.ES256, "EdDSA": kataras.EdDSA}[a.name]
	expected := kataras.Expected{Issuer: issuer, Audience: kataras.Audience{audience}}
	return byHand(next, func(token string) (*claims, error) {
		v, err := kataras.Verify(alg, a.verify, []byte(token), expected)
		if err != nil {
			return nil, fmt.Errorf("kataras: %w", err)
		}
		c := &claims{Claims: v.StandardClaims}
		if c.Expiry == 0 {
			return nil, errClaims
		}
		if err := v.Claims(&c.own); err != nil {
			return nil, fmt.Errorf("kataras: %w", err)
		}
		return c, nil
	}, func(c *claims) string { return c.Subject })
}

func wrapGoJose(a *algorithm, next inner) http.Handler {
	type claims struct {
		josejwt.Claims
		own
	}
	algs := []jose.SignatureAlgorithm{jose.SignatureAlgorithm(a.name)}
	audiences := josejwt.Audience{audience}
	return byHand(next, func(token string) (*claims, error) {
		t, err := josejwt.ParseSigned(token, algs)
		if err != nil {
			return nil, fmt.Errorf("go-jose: %w", err)
		}
		c := new(claims)
		if err := t.Claims(a.verify, c); err != nil {
			return nil, fmt.Errorf("go-jose: %w", err)
		}
		if c.Expiry == nil {
			return nil, errClaims
		}
		return c, c.ValidateWithLeeway(josejwt.Expected{Issuer: issuer, AnyAudience: audiences, Time: time.Now()}, 0)
	}, func(c *claims) string { return c.Subject })
}

func wrapJWX(a *algorithm, next inner) http.Handler {
	alg, ok := jwa.LookupSignatureAlgorithm(a.name)
	if !ok {
		panic(a.name)
	}
	options := []jwx3.ParseOption{
		jwx3.WithKey(alg, a.verify), jwx3.WithIssuer(issuer), jwx3.WithAudience(audience), jwx3.WithRequiredClaim("exp"),
	}
	return byHand(next, func(token string) (jwx3.Token, error) {
		return jwx3.ParseString(token, options...)
	}, func(t jwx3.Token) string { s, _ := t.Subject(); return s })
}

func wrapEchoJWT(a *algorithm, next inner) http.Handler {
	parser := jwt.NewParser(a.strictly()...)
	key := func(*jwt.Token) (any, error) { return a.verify, nil }
	e := echo.New()
	e.Use(echojwt.WithConfig(echojwt.Config{ParseTokenFunc: func(_ echo.Context, token string) (any, error) {
		return parser.ParseWithClaims(token, new(principal), key)
	}}))
	e.GET("/me", func(c echo.Context) error {
		t, _ := c.Get("user").(*jwt.Token)
		p, _ := t.Claims.(*principal)
		next(c.Response(), p.Subject)
		return nil
	})
	return e
}

func wrapGinJWT(a *algorithm, next inner) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	mw := &ginjwt.GinJWTMiddleware{
		Realm: "bench", SigningAlgorithm: a.name, Key: a.secret(), IdentityKey: "sub", ParseOptions: a.strictly(),
		Authenticator: func(*gin.Context) (any, error) { return nil, ginjwt.ErrFailedAuthentication },
	}
	if mw.Key == nil {
		mw.KeyFunc = func(*jwt.Token) (any, error) { return a.verify, nil }
	}
	mw, err := ginjwt.New(mw)
	must(err)
	g := gin.New()
	g.Use(mw.MiddlewareFunc())
	g.GET("/me", func(c *gin.Context) {
		s, _ := ginjwt.ExtractClaims(c)["sub"].(string)
		next(c.Writer, s)
	})
	return g
}

// ownValidated is own with the method that go-jwt-middleware requires.
type ownValidated struct{ own }

func (*ownValidated) Validate(context.Context) error { return nil }

func wrapGoJWTMiddleware(a *algorithm, next inner) http.Handler {
	v, err := validator.New(
		validator.WithKeyFunc(func(context.Context) (any, error) { return a.verify, nil }),
		validator.WithAlgorithm(validator.SignatureAlgorithm(a.name)),
		validator.WithIssuer(issuer), validator.WithAudience(audience),
		validator.WithCustomClaims(func() *ownValidated { return new(ownValidated) }),
	)
	must(err)
	mw, err := jwtmiddleware.New(jwtmiddleware.WithValidator(v))
	must(err)
	return mw.CheckJWT(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := jwtmiddleware.GetClaims[*validator.ValidatedClaims](r.Context())
		if err != nil || c.RegisteredClaims.Expiry == 0 { // go-jwt-middleware accepts tokens without exp
			refuseByHand(w, errClaims)
			return
		}
		next(w, c.RegisteredClaims.Subject)
	}))
}

func wrapJWTAuth(a *algorithm, next inner) http.Handler {
	ja := jwtauth.New(a.name, a.sign, a.verify, jwx2.WithIssuer(issuer), jwx2.WithAudience(audience), jwx2.WithRequiredClaim("exp"))
	return jwtauth.Verifier(ja)(jwtauth.Authenticator(ja)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t, _, _ := jwtauth.FromContext(r.Context())
		next(w, t.Subject())
	})))
}
