package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/ratchet-go/auth"
)

// secondConfig is what the second tutorial needs.
type secondConfig struct {
	shared
	tokenSecret   []byte // two, as in the article
	refreshSecret []byte

	// queryToken lets access tokens come in the query, as the article has it.
	// URLs are logged by whatever stands between, so the zero value is not to.
	queryToken bool
}

// second serves the second tutorial:
//
//	POST /api/login      email, password → {"status":"Logged in","token","refreshToken"}
//	POST /api/token      refreshToken → {"token","refreshToken"}; 404 if it is unknown
//	GET  /api/secure     token in body token, query token or header x-access-token
//	POST /api/logout     204; the article had none
//	GET  /api/sessions   and DELETE …/{id}, as the library has them
//
// There are no cookies, so there is nothing that a browser would send along
// for another site.
func second(c secondConfig) (http.Handler, error) {
	from := []auth.Extractor{auth.FromHeader("X-Access-Token")}
	if c.queryToken {
		from = append(from, auth.FromQuery("token"))
	}
	a, err := auth.New(auth.Config{
		Issuer:      "https://second.example.com",
		Audience:    []string{"https://second.example.com/api"},
		AccessKeys:  auth.Keys{auth.HS256(c.tokenSecret)},
		RefreshKeys: auth.Keys{auth.HS256(c.refreshSecret)},
		Users:       c.users,
		Hasher:      c.hasher,

		AccessTTL: 900 * time.Second,
		// The article's login is over after a day, whatever is refreshed.
		IdleTTL:     86_400 * time.Second,
		SessionTTL:  86_400 * time.Second,
		MaxSessions: maxSessions,

		Extractors: from,
		OnError:    secondError,
		OnEvent:    auth.LogEvents(c.log),
		Now:        c.now,
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("POST /api/login", secondLogin(a))
	mux.Handle("POST /api/token", secondToken(a))
	mux.Handle("GET /api/secure", requireAnywhere(a, http.HandlerFunc(secondSecure)))
	mux.Handle("POST /api/logout", secondLogout(a))
	mux.Handle("/api/sessions", a.SessionsHandler())
	mux.Handle("/api/sessions/{id}", a.SessionsHandler())
	return mux, nil
}

// secondTokens is the body of a login and of a refresh.
type secondTokens struct {
	Status       string `json:"status,omitempty"`
	Token        string `json:"token"`
	RefreshToken string `json:"refreshToken"`
}

func secondLogin(a *auth.Authenticator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fields, err := auth.ReadFields(r, "email", "password")
		if err != nil {
			status := auth.ResponseFor(err).Status
			secondRefusal(w, status, http.StatusText(status))
			return
		}
		if fields["email"] == "" || fields["password"] == "" {
			secondRefusal(w, http.StatusBadRequest, "email and password are required.")
			return
		}
		// The article put whatever was sent into the token. Here it is only
		// what the user is looked up by.
		t, err := a.Login(r.Context(), fields["email"], fields["password"], auth.SessionOptions{Device: a.Device(r)})
		if err != nil {
			a.WriteError(w, r, err)
			return
		}
		writeJSON(w, http.StatusOK, secondTokens{Status: "Logged in", Token: t.Access, RefreshToken: t.Refresh})
	})
}

func secondToken(a *auth.Authenticator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _, err := a.RefreshToken(r)
		var t auth.Tokens
		if err == nil {
			t, err = a.Refresh(r.Context(), token, auth.RefreshOptions{Device: a.Device(r)})
		}
		switch {
		case err == nil:
			writeJSON(w, http.StatusOK, secondTokens{Token: t.Access, RefreshToken: t.Refresh})
		case errors.Is(err, auth.ErrNoToken), badToken(err):
			secondRefusal(w, http.StatusNotFound, "Invalid request.")
		default:
			a.WriteError(w, r, err)
		}
	})
}

// secondLogout is a.LogoutHandler() that knows of the token in the body as
// well; without it, such a client would be told 204 and stay signed in.
func secondLogout(a *auth.Authenticator) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fields, err := auth.ReadFields(r, "token")
		if err != nil {
			status := auth.ResponseFor(err).Status
			secondRefusal(w, status, http.StatusText(status))
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

// requireAnywhere is a.Require() for an application whose tokens may also
// stand in the body, where no [auth.Extractor] looks.
func requireAnywhere(a *auth.Authenticator, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Vary", "X-Access-Token")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Referrer-Policy", "no-referrer") // the URL may hold a token
		fields, err := auth.ReadFields(r, "token")
		if err != nil {
			status := auth.ResponseFor(err).Status
			secondRefusal(w, status, http.StatusText(status))
			return
		}
		token, _, err := a.AccessToken(r)
		switch inBody := fields["token"]; {
		case inBody == "" || inBody == token:
		case errors.Is(err, auth.ErrNoToken):
			token, err = inBody, nil
		case err == nil:
			err = fmt.Errorf("%w: two tokens that differ", auth.ErrInvalidRequest)
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

func secondSecure(w http.ResponseWriter, r *http.Request) {
	claims, _ := auth.FromContext(r.Context())
	who, err := personOf(claims)
	if err != nil {
		auth.DefaultOnError(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Message string `json:"message"`
		User    person `json:"user"`
	}{"I am secured...", who})
}

// secondError writes the answers that the article has a body for, and leaves
// the others to the library.
func secondError(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, auth.ErrUnavailable):
		auth.DefaultOnError(w, r, err) // 503 with Retry-After, whatever else it wraps
	case errors.Is(err, auth.ErrInvalidCredentials):
		secondRefusal(w, http.StatusUnauthorized, "Invalid email or password.") // whichever it is
	case errors.Is(err, auth.ErrNoToken):
		secondRefusal(w, http.StatusForbidden, "No token provided.")
	case badToken(err):
		secondRefusal(w, http.StatusUnauthorized, "Unauthorized access.")
	default:
		auth.DefaultOnError(w, r, err)
	}
}

// secondRefusal writes the body of every refusal of the article.
func secondRefusal(w http.ResponseWriter, status int, message string) {
	writeJSON(w, status, struct {
		Error   bool   `json:"error"`
		Message string `json:"message"`
	}{true, message})
}
