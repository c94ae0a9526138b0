package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/ratchet-go/auth"
)

// writeJSON writes v as the response. It disables caching, because responses
// contain tokens or data of users.
func writeJSON(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may have disconnected
}

// badToken reports whether err means that a token is not valid. An outage does not
// mean that.
func badToken(err error) bool {
	if errors.Is(err, auth.ErrUnavailable) {
		return false
	}
	return errors.Is(err, auth.ErrInvalidToken) || errors.Is(err, auth.ErrTokenExpired) ||
		errors.Is(err, auth.ErrSessionRevoked) || errors.Is(err, auth.ErrTokenReused)
}

// accessLog logs requests with their path only. The query, headers and body may
// contain tokens.
func accessLog(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		path := r.URL.Path // without the query, and read before a handler may change it
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(sw, r)
		log.Info("request", "method", r.Method, "path", path, "status", sw.status, "took", time.Since(start).Round(time.Millisecond))
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap supports [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
