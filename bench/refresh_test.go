package bench

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// browser is the text that tells what a session was opened by; it is 111 bytes
// long, as they are.
const browser = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0"

// post returns a request for tokens.
func post(body string, form bool) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/refresh", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if form {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("User-Agent", browser)
	return r
}

// catcher is a ResponseWriter that keeps the body for the client to read.
type catcher struct {
	header http.Header
	status int
	body   []byte
}

func (w *catcher) Header() http.Header { return w.header }
func (w *catcher) WriteHeader(s int)   { w.status = s }
func (w *catcher) Write(b []byte) (int, error) {
	w.body = append(w.body, b...)
	return len(b), nil
}

func (w *catcher) reset() {
	if w.header == nil {
		w.header = make(http.Header)
	}
	clear(w.header)
	w.status, w.body = http.StatusOK, w.body[:0]
}

var refreshName = []byte(`"refresh_token":"`)

// refreshToken finds the refresh token in the body, or nil. It does so by a
// search, since what a client costs is not to be measured.
func (w *catcher) refreshToken() []byte {
	i := bytes.Index(w.body, refreshName)
	if i < 0 {
		return nil
	}
	rest := w.body[i+len(refreshName):]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return nil
	}
	return rest[:end]
}

// client refreshes sessions, without allocating anything.
type client struct {
	x      *refresher
	r      *http.Request
	w      catcher
	body   []byte
	reader bytes.Reader
}

func newClient(x *refresher) *client { return &client{x: x, r: post("", x.form)} }

func (c *client) Read(p []byte) (int, error) { return c.reader.Read(p) }
func (c *client) Close() error               { return nil }

// refresh presents a token, and returns the new one, or nil if it was refused.
// It is good until the next call.
func (c *client) refresh(token []byte) []byte {
	if c.x.form {
		c.body = append(c.body[:0], "grant_type=refresh_token&client_id="+clientID+"&client_secret="+clientSecret+"&refresh_token="...)
		c.body = append(c.body, token...)
	} else {
		c.body = append(c.body[:0], `{"refresh_token":"`...)
		c.body = append(append(c.body, token...), '"', '}')
	}
	c.reader.Reset(c.body)
	c.r.Body, c.r.ContentLength = c, int64(len(c.body))
	c.r.Form, c.r.PostForm, c.r.MultipartForm = nil, nil, nil
	c.w.reset()
	c.x.handler.ServeHTTP(&c.w, c.r)
	if c.w.status != http.StatusOK {
		return nil
	}
	return c.w.refreshToken()
}

// session holds the newest refresh token of a session.
type session struct{ token []byte }

func open(x *refresher, i int) *session { return &session{token: []byte(x.login(i))} }

// move refreshes a session; it must get another token, unless it rests.
func (c *client) move(tb testing.TB, s *session) {
	c.x.step()
	next := c.refresh(s.token)
	if next == nil || bytes.Equal(next, s.token) && c.x.name != "ratchet-resting" {
		tb.Fatalf("%s: %d %s", c.x.name, c.w.status, c.w.body)
	}
	s.token = append(s.token[:0], next...)
}

// BenchmarkRefresh is one refresh after the other, of one session, each by the
// newest token.
func BenchmarkRefresh(b *testing.B) {
	for _, s := range stores {
		b.Run("store="+s.name, func(b *testing.B) {
			addr := s.start(b)
			for _, x := range s.open(b, addr) {
				b.Run("peer="+x.name, func(b *testing.B) {
					c, own := newClient(x), open(x, fresh())
					for range 20 { // connections and scripts
						c.move(b, own)
					}
					b.ReportAllocs()
					for b.Loop() {
						c.move(b, own)
					}
				})
			}
			if s.ping != nil {
				ping := s.ping(b, addr)
				b.Run("peer=ping", func(b *testing.B) {
					ping()
					b.ReportAllocs()
					for b.Loop() {
						ping()
					}
				})
			}
		})
	}
}

// atOnce is how many clients BenchmarkRefreshMany has for each CPU, and each of
// them this many sessions.
const (
	atOnce      = 8
	ownSessions = 32
)

// BenchmarkRefreshMany is as many refreshes at once as there are clients, each
// of whom has sessions of its own.
func BenchmarkRefreshMany(b *testing.B) {
	for _, s := range stores {
		b.Run("store="+s.name, func(b *testing.B) {
			for _, x := range s.open(b, s.start(b)) {
				// The memory store of fosite reads a map that another request
				// writes, which ends the process sooner or later.
				if x.name == "ratchet-resting" || x.name == "fosite" {
					continue
				}
				everybody := sync.OnceValue(func() chan []*session { return signIn(b, x) })
				b.Run("peer="+x.name, func(b *testing.B) {
					all := everybody()
					b.SetParallelism(atOnce)
					b.ReportAllocs()
					b.ResetTimer()
					b.RunParallel(func(pb *testing.PB) {
						c, own := newClient(x), <-all
						for i := 0; pb.Next(); i++ {
							c.move(b, own[i%len(own)])
						}
						all <- own
					})
				})
			}
		})
	}
}

// signIn signs the users of all clients in, and lets each client refresh once,
// all at once, so that the connections are there.
func signIn(tb testing.TB, x *refresher) chan []*session {
	n := atOnce * runtime.GOMAXPROCS(0)
	all := make(chan []*session, n)
	var wg sync.WaitGroup
	for range n {
		own := make([]*session, ownSessions)
		for i := range own {
			own[i] = open(x, fresh())
		}
		wg.Go(func() {
			c := newClient(x)
			for _, s := range own {
				c.move(tb, s)
			}
			all <- own
		})
	}
	wg.Wait()
	return all
}

// nextUser is one who has not signed in.
var nextUser atomic.Int64

// fresh returns another every time.
func fresh() int { return int(nextUser.Add(1)) }
