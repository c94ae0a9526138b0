package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/ratchet-go/auth"
)

// writeJSON answers with v. Answers with tokens or about users are not cached.
func writeJSON(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// badToken reports whether err says that a token is of no use, which is not so
// when something did not answer.
func badToken(err error) bool {
	if errors.Is(err, auth.ErrUnavailable) {
		return false
	}
	return errors.Is(err, auth.ErrInvalidToken) || errors.Is(err, auth.ErrTokenExpired) ||
		errors.Is(err, auth.ErrSessionRevoked) || errors.Is(err, auth.ErrTokenReused)
}

// accessLog logs requests by their path alone: the query may hold a token, and
// so may headers and bodies.
func accessLog(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		path := r.URL.Path // not RequestURI, and taken before anybody changes it
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(sw, r)
		log.Info("request", "method", r.Method, "path", path, "status", sw.status, "took", time.Since(began).Round(time.Millisecond))
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

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
