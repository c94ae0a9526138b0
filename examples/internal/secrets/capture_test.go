package secrets

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
)

// capture has everything that was captured. It is safe for concurrent use.
type capture struct {
	mu    sync.Mutex
	texts []text
}

func (c *capture) add(p place, what, s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.texts = append(c.texts, text{p, what, s})
}

// value captures v as programs print it.
func (c *capture) value(p place, what string, v any) {
	var b strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%q", "%x"} {
		fmt.Fprintf(&b, verb+"\n", v)
	}
	asJSON, err := json.Marshal(v)
	fmt.Fprintln(&b, string(asJSON), err)
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("x", "value", v, "in", struct{ Value any }{v})
	}
	c.add(p, what, b.String())
}

// all returns the captured texts, and those of other sinks.
func (c *capture) all(others ...text) []text {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append(c.texts[:len(c.texts):len(c.texts)], others...)
}

// sink is the output of a log. It is safe for concurrent use.
type sink struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// deep prints everything that v leads to, also what package fmt does not follow.
func deep(v any) string {
	var b strings.Builder
	seen := map[[2]any]bool{}
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer, reflect.Map, reflect.Slice:
			if v.IsNil() {
				return
			}
			if at := [2]any{v.Type(), v.Pointer()}; v.Kind() != reflect.Slice {
				if seen[at] {
					return
				}
				seen[at] = true
			}
		}
		switch v.Kind() {
		case reflect.Pointer, reflect.Interface:
			walk(v.Elem())
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Field(i))
			}
		case reflect.Map:
			for entries := v.MapRange(); entries.Next(); {
				walk(entries.Key())
				walk(entries.Value())
			}
		case reflect.Slice, reflect.Array:
			if v.Type().Elem().Kind() == reflect.Uint8 {
				bytes := make([]byte, v.Len())
				for i := range bytes {
					bytes[i] = byte(v.Index(i).Uint())
				}
				b.Write(append(bytes, '\n'))
				return
			}
			for i := range v.Len() {
				walk(v.Index(i))
			}
		case reflect.String:
			b.WriteString(v.String() + "\n")
		}
	}
	walk(reflect.ValueOf(v))
	return b.String()
}
