package site

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"time"

	"github.com/ratchet-go/auth"
)

//go:embed web
var web embed.FS

// routes returns the handler of the application: the endpoints of package auth under
// /auth/, those of package oauth, an API protected by a.Require, and the page.
func routes(streams context.Context, a *auth.Authenticator, clients http.Handler, o Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("/oauth/", http.StripPrefix("/oauth", clients))
	mux.Handle("/.well-known/oauth-authorization-server", clients)
	mux.Handle("GET /api/me", a.Require()(me(o.sessionTTL())))
	mux.Handle("GET /api/admin", a.Require(auth.Role("admin"))(http.HandlerFunc(admin)))
	mux.Handle("GET /api/events", a.Require()(events(streams, a)))
	mux.Handle("GET /{$}", page(o))
	files, err := fs.Sub(web, "web")
	if err != nil {
		panic(err) // cannot happen: web is embedded above
	}
	mux.Handle("/", http.FileServerFS(files))
	return secure(mux)
}

// page serves index.html with the texts that differ between the programs.
func page(o Options) http.HandlerFunc {
	var b bytes.Buffer
	err := template.Must(template.ParseFS(web, "web/index.html")).Execute(&b, map[string]any{
		"Name":     o.Name,
		"Durable":  o.Auth.Store != nil,
		"Password": Password,
		"Window":   o.retryWindow(),
		"Wait":     int(o.retryWindow().Seconds()) + 2, // seconds after which a spent token means theft
	})
	if err != nil {
		panic(err) // cannot happen: the template is embedded above
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(b.Bytes()) // the client may have disconnected
	}
}

// me returns the claims of the caller. Behind Require, FromContext always has claims.
func me(sessionTTL time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		writeJSON(w, map[string]any{
			"sub": c.Subject, "username": c.Username, "roles": c.Roles, "sid": c.SessionID,
			"auth_time": c.AuthTime, "expires_at": c.ExpiresAt,
			"session_expires_at":  c.SessionExpiresAt,                             // unless it is refreshed
			"absolute_expires_at": c.AuthTime.Add(sessionTTL),                     // even if it is refreshed
			"expires_in":          max(0, int(time.Until(c.ExpiresAt).Seconds())), // for clients whose clocks are wrong
		})
	}
}

func admin(w http.ResponseWriter, r *http.Request) {
	c, _ := auth.FromContext(r.Context())
	writeJSON(w, map[string]string{"message": "Only admins see this, " + c.Username + "."})
}

// events streams to the page until the session ends, the client disconnects or the
// server shuts down. A refresh does not end the stream, nor does the expiry of the
// access token of the request.
func events(streams context.Context, a *auth.Authenticator) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, _ := auth.FromContext(r.Context())
		session, cancel := a.SessionContext(r.Context(), c)
		defer cancel()
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		conn := http.NewResponseController(w)
		_ = conn.SetReadDeadline(time.Time{}) // the request is already read
		send := func(event string, data map[string]any) bool {
			b, _ := json.Marshal(data)
			_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			_, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, b)
			return err == nil && conn.Flush() == nil
		}
		ticks := time.NewTicker(time.Second)
		defer ticks.Stop()
		for send("tick", map[string]any{"time": time.Now().UTC()}) {
			select {
			case <-ticks.C:
			case <-streams.Done():
				send("end", map[string]any{"reason": "shutdown"})
				return
			case <-session.Done():
				reason := "expired" // the session expired, or ExpireAccess was called: refresh and reconnect
				if errors.Is(context.Cause(session), auth.ErrSessionRevoked) {
					reason = "revoked"
				}
				send("end", map[string]any{"reason": reason})
				return
			}
		}
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // the client may have disconnected
}

// secure sets headers that allow the page to load only its own files.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}
