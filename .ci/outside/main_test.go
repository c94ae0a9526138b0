package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/authtest"
	"github.com/ratchet-go/auth/sqlitestore"
	"github.com/ratchet-go/auth/storetest"
)

func TestRun_VerifiesTheTokenOfALogin(t *testing.T) {
	subject, err := run(t.Context(), t.TempDir())
	if err != nil || subject != "u1" {
		t.Fatal(subject, err)
	}
}

func TestHandlers_SignAUserInAndOut(t *testing.T) {
	a, store, err := newAuthenticator(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	go func() { _ = a.Run(t.Context()) }()
	<-a.Ready()
	mux := http.NewServeMux()
	mux.Handle("/auth/", http.StripPrefix("/auth", a.Handler()))
	mux.Handle("GET /me", a.Require()(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, _ := auth.FromContext(r.Context())
		fmt.Fprint(w, claims.Username)
	})))
	answer := func(method, path, token string, form url.Values) (int, string) {
		r := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	status, body := answer("POST", "/auth/login", "", url.Values{"login": {"ada"}, "password": {"correct horse battery staple"}})
	_, rest, _ := strings.Cut(body, `"access_token":"`)
	token, _, _ := strings.Cut(rest, `"`)
	if status != http.StatusOK || token == "" {
		t.Fatal(status, body)
	}
	if status, body = answer("GET", "/me", token, nil); status != http.StatusOK || body != "ada" {
		t.Fatal(status, body)
	}
	if status, body = answer("POST", "/auth/logout", token, nil); status != http.StatusNoContent {
		t.Fatal(status, body)
	}
	if status, body = answer("GET", "/me", token, nil); status != http.StatusUnauthorized {
		t.Fatal(status, body)
	}
}

func TestAuthtest_SignsARequestIn(t *testing.T) {
	store, err := sqlitestore.Open(filepath.Join(t.TempDir(), "sessions.db"), sqlitestore.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	a := authtest.New(t, auth.Config{Store: store})
	admin := a.Require(auth.Role("admin"))(http.NotFoundHandler())
	for role, want := range map[string]int{"admin": http.StatusNotFound, "guest": http.StatusForbidden} {
		r := authtest.As(t, a, httptest.NewRequest("GET", "/", nil), auth.User{ID: "u1", Roles: []string{role}})
		w := httptest.NewRecorder()
		admin.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: status %d, want %d", role, w.Code, want)
		}
	}
}

func TestStore_PassesStoretest(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func() auth.Store {
		path := filepath.Join(t.TempDir(), "sessions.db")
		return func() auth.Store {
			store, err := sqlitestore.Open(path, sqlitestore.Config{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = store.Close() })
			return store
		}
	})
}
