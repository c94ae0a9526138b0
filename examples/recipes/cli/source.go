package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

var errSignIn = errors.New("sign in: cli login NAME")

// source is an oauth2.TokenSource that keeps the tokens in a file. Package oauth2
// does not report that a refresh has replaced the refresh token, so source calls
// it and saves the tokens before anything uses them. It reads the file each time,
// because another process may have refreshed.
type source struct {
	config oauth2.Config
	server string
	file   string
	mu     sync.Mutex
}

// Token returns an access token that is valid for at least ten seconds. If
// necessary it refreshes.
func (s *source) Token() (*oauth2.Token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.load()
	if err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: 30 * time.Second, CheckRedirect: noRedirect}
	t, err := s.config.TokenSource(context.WithValue(context.Background(), oauth2.HTTPClient, client), old).Token()
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		switch refused.Response.StatusCode {
		case http.StatusBadRequest, http.StatusUnauthorized:
			return nil, errSignIn // the session has ended
		default:
			return nil, fmt.Errorf("%s: try again later", refused.Response.Status) // the refresh token stays valid
		}
	}
	if err != nil {
		return nil, err // no response: the next call presents the same refresh token
	}
	if t.AccessToken != old.AccessToken {
		err = s.save(t)
	}
	return t, err
}

// expire makes the next call of Token refresh.
func (s *source) expire() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.load()
	if err != nil {
		return err
	}
	t.Expiry = time.Unix(0, 0)
	return s.save(t)
}

func (s *source) load() (*oauth2.Token, error) {
	text, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errSignIn
	}
	if err != nil {
		return nil, err
	}
	t := new(oauth2.Token)
	return t, json.Unmarshal(text, t)
}

// save replaces the file, so that a crash leaves either the old tokens or the new
// ones. Only the user can read it: os.CreateTemp sets mode 0600.
func (s *source) save(t *oauth2.Token) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.file), ".tokens-")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), s.file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
