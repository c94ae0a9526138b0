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
	algs   = []string{"HS256", "EdDSA", "ES256"} // in the order in which they sign
	client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
)

// load is what the clients do, and what became of it.
type load struct {
	servers [2]string // the issuer, and the one that verifies

	mu     sync.Mutex
	stages []string
	counts map[cell]int
	grants int    // logins and refreshes
	denied int    // of them
	last   string // refusal, as it was answered
}

// cell is a place in the table.
type cell struct {
	stage, server int
	column        string // an algorithm, of what was asked; or refused
}

const refused = "refused"

func (l *load) stage(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stages = append(l.stages, name)
}

// start lets every user ask until the returned function is called.
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

// client does what an application's client does: it logs in, asks both
// servers, and refreshes long before its token expires.
func (l *load) client(id string, stop <-chan struct{}) {
	tokens, ok := l.grant("/auth/login", map[string]string{"login": id, "password": demoPassword})
	for ok {
		select {
		case <-stop:
			return
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(tokens.renew) {
			if tokens, ok = l.grant("/auth/refresh", map[string]string{"refresh_token": tokens.Refresh}); !ok {
				return
			}
		}
		for i := range l.servers {
			l.ask(i, tokens.Access)
		}
	}
}

type granted struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Expires int    `json:"expires_in"`
	renew   time.Time
}

func (l *load) grant(path string, fields map[string]string) (t granted, ok bool) {
	body, _ := json.Marshal(fields) // strings cannot fail
	began := time.Now()
	resp, err := client.Post(l.servers[0]+path, "application/json", bytes.NewReader(body))
	said, ok := read(resp, err)
	ok = ok && json.Unmarshal([]byte(said), &t) == nil
	third := max(1, time.Duration(t.Expires)*time.Second/3)
	t.renew = began.Add(third/2 + rand.N(third)/2) // not all at the same time
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grants++
	if !ok {
		l.denied++
		l.last = said
	}
	return t, ok
}

// ask makes a request with a token and counts it.
func (l *load) ask(server int, token string) {
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

// algOf reads what only somebody who counts has to know.
func algOf(token string) string {
	var header struct{ Alg string }
	first, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil || json.Unmarshal(text, &header) != nil {
		return "?"
	}
	return header.Alg
}

// print prints the table, and returns an error if anything was refused.
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
		return errors.New("refused; the last one: " + l.last)
	}
	return nil
}
