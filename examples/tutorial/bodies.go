package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/ratchet-go/auth"
)

// bodyConfig configures the API with tokens in bodies.
type bodyConfig struct {
	shared
	tokenSecret   []byte // two secrets, as in the original
	refreshSecret []byte

	// queryToken also accepts access tokens in the query, as in the original.
	// It is off by default, because servers and proxies log URLs.
	queryToken bool
}

// newBodyAPI returns the API of the tutorial that sends tokens in bodies:
//
//	POST /api/login      email, password → {"status":"Logged in","token","refreshToken"}
//	POST /api/token      refreshToken → {"token","refreshToken"}; 404 if invalid
//	GET  /api/secure     token in body token, query token or header x-access-token
//	POST /api/logout     204; the original had no logout
//	GET  /api/sessions   and DELETE …/{id}, the library's SessionsHandler
//
// It uses no cookies, so a browser sends no credentials with the requests of
// another site.
func newBodyAPI(c bodyConfig) (http.Handler, error) {
	from := []auth.Extractor{auth.FromHeader("X-Access-Token")}
	if c.queryToken {
		from = append(from, auth.FromQuery("token"))
	}
	a, err := auth.New(auth.Config{
		Issuer:      "https://bodies.example.com",
		Audience:    []string{"https://bodies.example.com/api"},
		AccessKeys:  auth.Keys{auth.HS256(c.tokenSecret)},
		RefreshKeys: auth.Keys{auth.HS256(c.refreshSecret)},
		Users:       c.users,
		Hasher:      c.hasher,

		AccessTTL: 900 * time.Second,
		// As in the original, a session ends a day after its login, with or
		// without refreshes.
		IdleTTL:     86_400 * time.Second,
		SessionTTL:  86_400 * time.Second,
		MaxSessions: maxSessions,

		Extractors: from,
		OnError:    bodyError,
		OnEvent:    auth.LogEvents(c.log),
		Now:        c.now,
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /api/login", bodyLogin(a))
	mux.Handle("POST /api/token", bodyToken(a))
	mux.Handle("GET /api/secure", requireToken(a, http.HandlerFunc(bodySecure)))
	mux.Handle("POST /api/logout", bodyLogout(a))
	mux.Handle("/api/sessions", a.SessionsHandler())
	mux.Handle("/api/sessions/{id}", a.SessionsHandler())
	return mux, nil
}

// bodyTokens is the body of a login and of a refresh.
type bodyTokens struct {
	Status       string `json:"status,omitempty"`
	Token        string `json:"token"`
	RefreshToken string `json:"refreshToken"`
}

func bodyLogin(a *auth.Authenticator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fields, err := auth.ReadFields(r, "email", "password")
		if err != nil {
			status := auth.ResponseFor(err).Status
			bodyRefusal(w, status, http.StatusText(status))
			return
		}
		if fields["email"] == "" || fields["password"] == "" {
			bodyRefusal(w, http.StatusBadRequest, "email and password are required.")
			return
		}
		// The original copied the fields of the request into the token. Here
		// they only identify the user.
		t, err := a.Login(r.Context(), fields["email"], fields["password"], auth.SessionOptions{Device: a.Device(r)})
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		writeJSON(w, http.StatusOK, bodyTokens{Status: "Logged in", Token: t.Access, RefreshToken: t.Refresh})
	})
}

func bodyToken(a *auth.Authenticator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _, err := a.RefreshToken(r)
		var t auth.Tokens
		if err == nil {
			t, err = a.Refresh(r.Context(), token, auth.RefreshOptions{Device: a.Device(r)})
		}
		switch {
		case err == nil:
			writeJSON(w, http.StatusOK, bodyTokens{Token: t.Access, RefreshToken: t.Refresh})
		case errors.Is(err, auth.ErrNoToken), badToken(err):
			bodyRefusal(w, http.StatusNotFound, "Invalid request.")
		default:
			a.WriteError(w, r, err)
		}
	})
}

// bodyLogout is like a.LogoutHandler(), but also accepts the token in the body.
// Otherwise a client that sends it there would get 204 and stay signed in.
func bodyLogout(a *auth.Authenticator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fields, err := auth.ReadFields(r, "token")
		if err != nil {
			status := auth.ResponseFor(err).Status
			bodyRefusal(w, status, http.StatusText(status))
			return
		}
		tokens, _, err := a.RequestTokens(r)
		if err == nil {
			err = a.Logout(r.Context(), append(tokens, fields["token"])...)
		}
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
	})
}

// requireToken is like a.Require(), but also accepts the token in the body, which no
// [auth.Extractor] reads.
func requireToken(a *auth.Authenticator, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "X-Access-Token")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Referrer-Policy", "no-referrer") // the URL may contain a token
		fields, err := auth.ReadFields(r, "token")
		if err != nil {
			status := auth.ResponseFor(err).Status
			bodyRefusal(w, status, http.StatusText(status))
			return
		}
		token, _, err := a.AccessToken(r)
		switch inBody := fields["token"]; {
		case inBody == "" || inBody == token:
		case errors.Is(err, auth.ErrNoToken):
			token, err = inBody, nil
		case err == nil:
			err = fmt.Errorf("%w: the request has two different tokens", auth.ErrInvalidRequest)
		}
		var claims *auth.Claims
		if err == nil {
			claims, err = a.Verify(r.Context(), token)
		}
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(auth.NewContext(r.Context(), claims)))
	})
}

func bodySecure(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	user, err := identityOf(claims)
	if err != nil {
		auth.DefaultOnError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Message string   `json:"message"`
		User    identity `json:"user"`
	}{"I am secured...", user})
}

// bodyError writes the error responses that the original defines. The library
// writes the others.
func bodyError(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, auth.ErrUnavailable):
		auth.DefaultOnError(w, r, err) // 503 with Retry-After, even if err also wraps another error
	case errors.Is(err, auth.ErrInvalidCredentials):
		bodyRefusal(w, http.StatusUnauthorized, "Invalid email or password.") // the same for both, so that it does not reveal which is wrong
	case errors.Is(err, auth.ErrNoToken):
		bodyRefusal(w, http.StatusForbidden, "No token provided.")
	case badToken(err):
		bodyRefusal(w, http.StatusUnauthorized, "Unauthorized access.")
	default:
		auth.DefaultOnError(w, r, err)
	}
}

// bodyRefusal writes an error response of the original.
func bodyRefusal(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, struct {
		Error   bool   `json:"error"`
		Message string `json:"message"`
	}{true, message})
}
