package authclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Store keeps the tokens of a [Transport], and the retry key of a refresh that may
// have been sent, as one short text, usually 2 KiB. Whoever can read the text is
// signed in as the user, so it must be kept secret.
//
// Processes may share a Store if Update is atomic for all of them. A Store is safe
// for concurrent use. Its methods return when ctx ends.
type Store interface {
	// Load returns the text that was saved last, or nil if there is none. It is
	// called for each request.
	Load(ctx context.Context) ([]byte, error)

	// Update replaces the text in one atomic step: it calls f with the current
	// text, or with nil, and saves what f returns. Nil means that the text is
	// removed. The same text need not be saved again. If f returns an error, nothing
	// is saved, and Update returns that error. f does no I/O. It may be called again
	// if the text has changed.
	//
	// When Update returns nil, the new text must survive a crash. After any other
	// error, either text may be stored.
	Update(ctx context.Context, f func(old []byte) ([]byte, error)) error
}

// memory is a Store in memory. The text is in a closure, because package fmt would
// print a field.
type memory struct {
	mu   sync.Mutex
	text func() []byte // nil if there is none
}

func (m *memory) Load(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.load(), nil
}

func (m *memory) load() []byte {
	if m.text == nil {
		return nil
	}
	return m.text()
}

func (m *memory) Update(_ context.Context, f func([]byte) ([]byte, error)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, err := f(m.load())
	if err != nil {
		return err
	}
	m.text = nil
	if len(text) > 0 {
		m.text = func() []byte { return bytes.Clone(text) }
	}
	return nil
}

// state is what a Store keeps. The zero state is that of a user who is signed out.
type state struct {
	Origin    string    `json:"origin"` // of the server that issued the tokens
	Session   string    `json:"session_id"`
	Access    string    `json:"access_token"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // when Access expires; zero if that is not known
	RefreshAt time.Time `json:"refresh_at,omitzero"` // when Access is refreshed ahead of its expiry
	Refresh   string    `json:"refresh_token"`

	// RetryKey belongs to Refresh. It is "" until Refresh is sent.
	RetryKey string `json:"retry_key,omitempty"`
}

// parse reads the text of a Store.
func (t *Transport) parse(text []byte) (s state, err error) {
	if len(text) == 0 {
		return s, nil
	}
	if json.Unmarshal(text, &s) != nil || s.Refresh == "" { // the error could contain a part of a token
		return state{}, errors.New("authclient: the text in the Store is not that of a Transport; remove it, or sign in again")
	}
	if s.Origin != t.origins[0] {
		return state{}, fmt.Errorf("authclient: the Store has the tokens of another server (%s); use another Store, or sign in again", s.Origin)
	}
	return s, nil
}

// load returns what is stored, or ErrSignedOut.
func (t *Transport) load(ctx context.Context) (state, error) {
	text, err := t.store.Load(ctx)
	if err != nil {
		return state{}, fmt.Errorf("authclient: loading the tokens: %w", err)
	}
	s, err := t.parse(text)
	if err == nil && s.Refresh == "" {
		err = ErrSignedOut
	}
	return s, err
}

// update changes what is stored. If f changes nothing, nothing is written.
func (t *Transport) update(ctx context.Context, f func(*state)) error {
	return t.store.Update(ctx, func(old []byte) ([]byte, error) {
		s, err := t.parse(old)
		if err != nil {
			return nil, err
		}
		before := s
		switch f(&s); {
		case s == before:
			return old, nil
		case s.Refresh == "":
			return nil, nil
		}
		return json.Marshal(s)
	})
}
