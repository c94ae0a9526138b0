package protocol

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
	"github.com/ratchet-go/auth/pgstore"
	"github.com/ratchet-go/auth/redisstore"
	"github.com/ratchet-go/auth/sqlitestore"
)

func TestMain(m *testing.M) { testserver.RunMain(m, nil) }

// stores open the stores against which the histories are played.
var stores = map[string]func(t *testing.T) auth.Store{
	"Memory": func(*testing.T) auth.Store { return nil }, // one for each history
	"SQLite": func(t *testing.T) auth.Store {
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, 0o700))
		s, err := sqlitestore.Open(filepath.Join(dir, "sessions.db"), sqlitestore.Config{})
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s
	},
	"Redis": func(t *testing.T) auth.Store {
		client := redis.NewClient(&redis.Options{Addr: testserver.Redis(t).Addr, ContextTimeoutEnabled: true})
		t.Cleanup(func() { _ = client.Close() })
		s, err := redisstore.New(client, redisstore.Config{})
		require.NoError(t, err)
		return prompt{s}
	},
	"PostgreSQL": func(t *testing.T) auth.Store {
		pool, err := pgxpool.New(t.Context(), "postgres://postgres@"+testserver.Postgres(t).Addr+"/postgres?sslmode=disable")
		require.NoError(t, err)
		t.Cleanup(pool.Close)
		s, err := pgstore.New(pool, pgstore.Config{})
		require.NoError(t, err)
		require.NoError(t, s.Migrate(t.Context()))
		return s
	},
}

// prompt is a store whose Changes returns when its context ends. The client of Redis
// waits for the answer of the server, which takes up to a second for each history.
type prompt struct{ auth.Store }

func (s prompt) Changes(ctx context.Context, after string, wait time.Duration) ([]auth.Revocation, string, bool, error) {
	type result struct {
		rs   []auth.Revocation
		next string
		more bool
		err  error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		r.rs, r.next, r.more, r.err = s.Store.Changes(ctx, after, wait)
		done <- r
	}()
	select {
	case r := <-done:
		return r.rs, r.next, r.more, r.err
	case <-ctx.Done():
		return nil, "", false, ctx.Err()
	}
}

// TestHistories plays every history on every store.
func TestHistories(t *testing.T) {
	t.Parallel()
	texts := histories(t)
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && name != "Memory" {
				t.Skip("skipped by -short: needs a server, or a disk")
			}
			shared := open(t)
			for _, file := range slices.Sorted(maps.Keys(texts)) {
				t.Run(file, func(t *testing.T) {
					h, err := parse(texts[file])
					require.NoError(t, err)
					store := shared
					if store == nil {
						store = auth.NewMemoryStore()
					}
					require.NoError(t, play(t, h, store))
				})
			}
		})
	}
}

// TestHistories_CanFail changes one expected value at a time.
func TestHistories_CanFail(t *testing.T) {
	t.Parallel()
	for file, text := range histories(t) {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			for _, m := range mutations(t, text) {
				h, err := parse(m.text)
				require.NoError(t, err, m.what)
				require.Error(t, play(t, h, auth.NewMemoryStore()), "the history passes although %s", m.what)
			}
		})
	}
}

// mutation is a history in which one expected value was changed.
type mutation struct {
	text []byte
	what string
}

// mutations returns a history with each of its expected values changed.
func mutations(t *testing.T, text []byte) (list []mutation) {
	t.Helper()
	var h map[string]any
	require.NoError(t, json.Unmarshal(text, &h))
	steps, _ := h["steps"].([]any)
	for i, s := range steps {
		response, ok := s.(map[string]any)["response"].(map[string]any)
		if !ok {
			continue
		}
		first := len(list)
		eachLeaf(response, fmt.Sprintf("the response of step %d", i+1), func(what string, changed func()) {
			changed()
			mutated, err := json.Marshal(h)
			require.NoError(t, err)
			list = append(list, mutation{mutated, what})
		})
		require.Greater(t, len(list), first)
	}
	return list
}

// eachLeaf calls f for each value in an object. f calls its argument, which changes the
// value; when f returns, eachLeaf restores it.
func eachLeaf(object map[string]any, at string, f func(what string, change func())) {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		value, here := object[name], at+"."+name
		switch value := value.(type) {
		case map[string]any:
			eachLeaf(value, here, f)
			continue
		case []any:
			if len(value) > 0 {
				if inner, ok := value[0].(map[string]any); ok {
					eachLeaf(inner, here+"[0]", f)
					continue
				}
			}
			f(here+" has one more element", func() { object[name] = append(slices.Clone(value), "another") })
		case string:
			f(here+" is another", func() { object[name] = "another" })
		case float64:
			f(here+" is greater", func() { object[name] = value + 1 })
		case bool:
			f(here+" is the opposite", func() { object[name] = !value })
		case nil: // no header, or a cookie that is cleared
			if name != "" && name[0] == '_' {
				f(here+" is set", func() { object[name] = map[string]any{"value": "another", "max_age": 1} })
			} else {
				f(here+" is present", func() { object[name] = "another" })
			}
		}
		object[name] = value
	}
}

func TestHistories_TheReadmeListsThem(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(filepath.Join(folder, "README.md"))
	require.NoError(t, err)
	texts := histories(t)
	for file, text := range texts {
		h, err := parse(text)
		require.NoError(t, err, file)
		require.Contains(t, string(readme), "| ["+file+"]("+file+") | "+h.Title+" |\n")
	}
	for file, text := range clientHistories(t) {
		h, err := parseClient(text)
		require.NoError(t, err, file)
		require.Contains(t, string(readme), "| [client/"+file+"](client/"+file+") | "+h.Title+" |\n")
	}
	require.Equal(t, len(texts)+len(clientHistories(t)), strings.Count(string(readme), ".json) | "), "a file that does not exist")
}
