// This file plays the contract of the article that sends both tokens in bodies.

package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/redisstore"
)

// newBodyAPI returns the API with bodies:
//
//	GET  /api/           Ok
//	POST /api/login      email, name, password
//	POST /api/token      refreshToken
//	any  /api/secure     token in body or query, or header x-access-token
//	POST /api/logout     the library's LogoutHandler; the article has no logout
//	GET  /api/sessions   and DELETE …/{id}, the library's SessionsHandler
//
// It uses no cookies, so a browser sends no credentials with the requests of
// another site. It follows the store until ctx is done.
func newBodyAPI(ctx context.Context, o options) (http.Handler, error) {
	var store auth.Store // nil means memory
	var err error
	if o.redis != "" {
		// This line puts the sessions in Redis, where all processes of the service share them.
		store, err = redisstore.New(redis.NewClient(&redis.Options{Addr: o.redis, ContextTimeoutEnabled: true}), redisstore.Config{})
	}
	if err != nil {
		return nil, err
	}
	from := []auth.Extractor{auth.FromHeader("X-Access-Token")}
	if o.queryToken { // a concession: servers and proxies log URLs
		from = append(from, auth.FromQuery("token"))
	}
	a, err := auth.New(auth.Config{
		Issuer:      "https://bodies.example.com",
		Audience:    []string{"https://bodies.example.com/api"},
		AccessKeys:  o.accessKeys,
		RefreshKeys: o.refreshKeys,
		Users:       lookup{o.users, bodyUser},
		Store:       store,
		Hasher:      o.hasher,

		AccessTTL:  900 * time.Second,
		IdleTTL:    86_400 * time.Second,
		SessionTTL: 86_400 * time.Second, // a refresh token of the article cannot be extended

		Extractors: from,
		OnError:    bodyError,
		OnEvent:    auth.LogEvents(o.log),
		Now:        o.now,
	})
	if err != nil {
		return nil, err
	}
	go func() { _ = a.Run(ctx) }() // learns of revocations by other processes, if there is a store
	mux := http.NewServeMux()
	mux.Handle("GET /api/{$}", text("Ok"))
	mux.HandleFunc("POST /api/login", func(w http.ResponseWriter, r *http.Request) { bodyLogin(a, w, r) })
	mux.HandleFunc("POST /api/token", func(w http.ResponseWriter, r *http.Request) { bodyToken(a, w, r) })
	// The handler finds the claims with auth.FromContext, where the article has req.decoded.
	mux.Handle("/api/secure", tokenFromBody(a.Require()(text("I am secured..."))))
	mux.Handle("POST /api/logout", tokenFromBody(a.LogoutHandler()))
	mux.Handle("/api/sessions", tokenFromBody(a.SessionsHandler()))
	mux.Handle("/api/sessions/{id}", tokenFromBody(a.SessionsHandler()))
	return mux, nil
}

// bodyUser returns the user of an account. The article copies the claims from the
// request.
func bodyUser(a account) auth.User {
	return auth.User{ID: a.id, PasswordHash: a.hash, Extra: map[string]any{"email": a.email, "name": a.name}}
}

// bodyTokens is the body of a login and of a refresh.
type bodyTokens struct {
	Status       string `json:"status,omitempty"`
	Token        string `json:"token"`
	RefreshToken string `json:"refreshToken"`
}

func bodyLogin(a *auth.Authenticator, w http.ResponseWriter, r *http.Request) {
	f, err := auth.ReadFields(r, "email", "password")
	if err != nil {
		a.WriteError(w, r, err)
		return
	}
	if f["password"] == "" {
		writeJSON(w, http.StatusBadRequest, bodyRefusal{true, "A password is required."})
		return
	}
	t, err := a.Login(r.Context(), f["email"], f["password"], auth.SessionOptions{Device: a.Device(r)})
	if err != nil {
		a.WriteError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, bodyTokens{"Logged in", t.Access, t.Refresh})
}

func bodyToken(a *auth.Authenticator, w http.ResponseWriter, r *http.Request) {
	token, o, err := a.RefreshRequest(r)
	var t auth.Tokens
	if err == nil {
		t, err = a.Refresh(r.Context(), token, o)
	}
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, bodyTokens{"", t.Access, t.Refresh})
	case auth.ResponseFor(err).Status < http.StatusInternalServerError:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "Invalid request")
	default: // an outage does not make the token invalid
		a.WriteError(w, r, err)
	}
}

// tokenFromBody puts the token of the body into the header, because no
// [auth.Extractor] reads a body. A body that is neither JSON nor a form has no
// token.
func tokenFromBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Referrer-Policy", "no-referrer") // the URL may contain a token
		w.Header().Set("Cache-Control", "no-store")
		if f, _ := auth.ReadFields(r, "token"); f["token"] != "" {
			r = r.Clone(r.Context())
			r.Header.Set("X-Access-Token", f["token"])
		}
		next.ServeHTTP(w, r)
	})
}

// text returns a handler that responds with s.
func text(s string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, s)
	})
}

// bodyRefusal is the body of an error response of the article.
type bodyRefusal struct {
	Error   bool   `json:"error"`
	Message string `json:"message"`
}

// bodyError writes err as the article does.
func bodyError(w http.ResponseWriter, _ *http.Request, err error) {
	response := auth.ResponseFor(err)
	response.SetHeaders(w.Header())
	status, message := response.Status, response.Description
	if status == http.StatusUnauthorized {
		switch {
		case errors.Is(err, auth.ErrNoToken):
			status, message = http.StatusForbidden, "No token provided."
		case errors.Is(err, auth.ErrInvalidCredentials):
			message = "Invalid email or password." // the same for an unknown user and a wrong password
		default:
			message = "Unauthorized access."
		}
	}
	writeJSON(w, status, bodyRefusal{true, message})
}
