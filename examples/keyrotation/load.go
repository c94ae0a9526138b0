package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

var (
	algs   = []string{"HS256", "EdDSA", "ES256"} // in the order in which the keys sign
	client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
)

// load sends requests as several clients, and counts the results.
type load struct {
	servers [2]string // the issuer and the verifier

	mu     sync.Mutex
	stages []string
	counts map[cell]int
	grants int    // number of logins and refreshes
	denied int    // number of those that were refused
	last   string // the last refusal
}

// cell identifies a cell of the table.
type cell struct {
	stage, server int
	column        string // the algorithm of the token, or refused
}

const refused = "refused"

// stage starts a new row of the table.
func (l *load) stage(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stages = append(l.stages, name)
}

// summarize prints the number of requests in the current stage. It prints
// nothing before the first stage.
func (l *load) summarize(out io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.stages) == 0 {
		return
	}
	var sent, denied [2]int
	for c, n := range l.counts {
		switch {
		case c.stage != len(l.stages)-1:
		case c.column == refused:
			denied[c.server] += n
		default:
			sent[c.server] += n
		}
	}
	fmt.Fprintf(out, "         Requests: issuer %d, %d refused; verifier %d, %d refused.\n", sent[0], denied[0], sent[1], denied[1])
}

// start runs a client for each user until end is called.
func (l *load) start(us users) (end func()) {
	stop, running := make(chan struct{}), sync.WaitGroup{}
	for id := range us {
		running.Go(func() { l.client(id, stop) })
	}
	return sync.OnceFunc(func() {
		close(stop)
		running.Wait()
	})
}

// client logs in, sends requests to both servers, and refreshes well before its
// access token expires.
func (l *load) client(id string, stop <-chan struct{}) {
	tokens, ok := l.grant("/auth/login", map[string]string{"login": id, "password": demoPassword})
	for ok {
		select {
		case <-stop:
			return
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(tokens.renew) {
			if tokens, ok = l.grant("/auth/refresh", map[string]string{"refresh_token": tokens.Refresh}); !ok {
				return
			}
		}
		for i := range l.servers {
			l.request(i, tokens.Access)
		}
	}
}

// granted is the response to a login or a refresh.
type granted struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Expires int    `json:"expires_in"`
	renew   time.Time
}

func (l *load) grant(path string, fields map[string]string) (t granted, ok bool) {
	body, _ := json.Marshal(fields) // cannot fail for strings
	begin := time.Now()
	resp, err := client.Post(l.servers[0]+path, "application/json", bytes.NewReader(body))
	said, ok := read(resp, err)
	ok = ok && json.Unmarshal([]byte(said), &t) == nil
	third := max(1, time.Duration(t.Expires)*time.Second/3)
	t.renew = begin.Add(third/2 + rand.N(third)/2) // spread over time
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grants++
	if !ok {
		l.denied++
		l.last = said
	}
	return t, ok
}

// request sends a request with a token and counts it.
func (l *load) request(server int, token string) {
	l.mu.Lock()
	c := cell{len(l.stages) - 1, server, algOf(token)}
	l.mu.Unlock()
	said, ok := l.get(server, token)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[c]++
	if !ok {
		l.counts[cell{c.stage, server, refused}]++
		l.last = fmt.Sprintf("%s, %s, server %d: %s", l.stages[c.stage], c.column, server, said)
	}
}

func (l *load) get(server int, token string) (said string, ok bool) {
	r, err := http.NewRequest(http.MethodGet, l.servers[server]+"/me", http.NoBody)
	if err != nil {
		return err.Error(), false
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return read(client.Do(r))
}

func read(resp *http.Response, err error) (said string, ok bool) {
	if err != nil {
		return err.Error(), false
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err.Error(), false
	}
	if resp.StatusCode != http.StatusOK {
		return resp.Status + ": " + string(body), false
	}
	return string(body), true
}

// algOf returns the algorithm in the header of a token.
func algOf(token string) string {
	var header struct{ Alg string }
	first, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil || json.Unmarshal(text, &header) != nil {
		return "?"
	}
	return header.Alg
}

// print prints the table. It returns an error if any request was refused.
func (l *load) print(out io.Writer) error {
	columns := append(algs, refused)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\tissuer%s\tverifier%s\t\n", strings.Repeat("\t", len(algs)), strings.Repeat("\t", len(algs)))
	fmt.Fprintf(w, "%-30s\t%s\t%[2]s\t\n", "REQUESTS", strings.Join(columns, "\t"))
	total := map[cell]int{}
	for i, name := range append(l.stages, "all") {
		fmt.Fprintf(w, "%-30s\t", name)
		for server := range l.servers {
			for _, column := range columns {
				n, sum := l.counts[cell{i, server, column}], cell{0, server, column}
				if total[sum] += n; i == len(l.stages) {
					n = total[sum]
				}
				fmt.Fprint(w, n, "\t")
			}
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush()
	failed := [2]int{total[cell{0, 0, refused}], total[cell{0, 1, refused}]}
	fmt.Fprintf(out, "\nissuer: %d refused\nverifier: %d refused\nlogins and refreshes: %d, %d refused\n", failed[0], failed[1], l.grants, l.denied)
	if failed[0]+failed[1]+l.denied > 0 {
		return errors.New("requests were refused; the last one: " + l.last)
	}
	return nil
}
