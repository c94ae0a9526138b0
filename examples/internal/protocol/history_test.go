package protocol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// folder has the histories.
const folder = "../../../protocol"

// history is a file of the folder.
type history struct {
	Title  string            `json:"title"`
	Config config            `json:"config"`
	Let    map[string]string `json:"let"`
	Steps  []step            `json:"steps"`
}

type config struct {
	AccessTTL       int               `json:"access_ttl"`
	IdleTTL         int               `json:"idle_ttl"`
	SessionTTL      int               `json:"session_ttl"`
	RetryWindow     int               `json:"retry_window"`
	Leeway          int               `json:"leeway"`
	Cookies         bool              `json:"cookies"`
	MaxSessions     int               `json:"max_sessions"`
	RefuseOverLimit bool              `json:"refuse_over_limit"`
	SecondFactor    map[string]string `json:"second_factor"`
}

type step struct {
	Comment  string   `json:"comment"`
	After    int      `json:"after"`
	Server   string   `json:"server"`
	Request  *request `json:"request"`
	Response *reply   `json:"response"`
}

type request struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers"`
	Cookies map[string]string `json:"cookies"`
	JSON    map[string]any    `json:"json"`
}

type reply struct {
	Status  int                       `json:"status"`
	Headers map[string]*string        `json:"headers"`
	Cookies map[string]*cookie        `json:"cookies"`
	JSON    map[string]any            `json:"json"`
	Claims  map[string]map[string]any `json:"claims"`
}

type cookie struct {
	Value  string `json:"value"`
	MaxAge int    `json:"max_age"`
}

// parse reads a history. It refuses names that the format does not have.
func parse(text []byte) (h history, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return h, err
	}
	if _, err := d.Token(); err != io.EOF {
		return h, fmt.Errorf("there is more than one value")
	}
	for i, s := range h.Steps {
		if (s.Request == nil) != (s.Response == nil) || (s.Request == nil) == (s.Server == "") {
			return h, fmt.Errorf("step %d has neither a request with a response nor an action of the server", i+1)
		}
	}
	return h, nil
}

// histories returns the text of each file by its name.
func histories(t *testing.T) map[string][]byte {
	t.Helper()
	return filesIn(t, folder)
}

// filesIn returns the text of each JSON file of a folder by its name.
func filesIn(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	texts := map[string][]byte{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		texts[filepath.Base(path)] = text
	}
	return texts
}
