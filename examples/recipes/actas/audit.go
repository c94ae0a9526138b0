package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ratchet-go/auth"
)

// entry is what somebody did who acted for somebody else.
type entry struct {
	Time    time.Time `json:"time"`
	What    string    `json:"what"` // an event or the pattern of a route
	Actor   string    `json:"actor"`
	User    string    `json:"user"`
	Session string    `json:"session"`
}

// audit has the entries. Yours are in a table, to which rows can only be added.
type audit struct {
	mu      sync.Mutex
	entries []entry
}

// event is the OnEvent of the configuration. Events about the end of a session have no
// actor, but that session has an entry already.
func (au *audit) event(_ context.Context, e auth.Event) {
	s := e.Session
	actor := s.Actor()
	if actor == "" {
		actor = au.actorOf(s.ID)
	}
	if actor != "" {
		au.add(entry{e.Time, string(e.Type), actor, s.Subject, s.ID})
	}
}

func (au *audit) actorOf(session string) string {
	au.mu.Lock()
	defer au.mu.Unlock()
	i := slices.IndexFunc(au.entries, func(e entry) bool { return e.Session == session })
	if i < 0 {
		return ""
	}
	return au.entries[i].Actor
}

func (au *audit) add(e entry) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	au.mu.Lock()
	defer au.mu.Unlock()
	au.entries = append(au.entries, e)
}

func (au *audit) all() []entry {
	au.mu.Lock()
	defer au.mu.Unlock()
	return append([]entry{}, au.entries...)
}
