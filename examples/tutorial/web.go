package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/ratchet-go/auth"
)

// maxBody bounds the bodies that are read here. The library bounds those that
// it reads itself.
const maxBody = 16 << 10

// readBody returns the strings in a body, JSON or a form, and puts the body
// back for others to read. If it cannot, status says why.
func readBody(w http.ResponseWriter, r *http.Request) (fields map[string]string, status int) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return nil, http.StatusRequestEntityTooLarge
	} else if err != nil {
		return nil, http.StatusBadRequest
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	fields = map[string]string{}
	if len(body) == 0 {
		return fields, 0
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return nil, http.StatusUnsupportedMediaType
	}
	switch kind {
	case "application/json":
		var object map[string]any
		if err := json.Unmarshal(body, &object); err != nil {
			return nil, http.StatusBadRequest
		}
		for name, value := range object {
			if text, ok := value.(string); ok {
				fields[name] = text
			}
		}
	case "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, http.StatusBadRequest
		}
		for name := range form {
			fields[name] = form.Get(name)
		}
	default:
		return nil, http.StatusUnsupportedMediaType
	}
	return fields, 0
}

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
