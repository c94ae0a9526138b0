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

// browser is a User-Agent of typical length: 111 bytes.
const browser = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0"

// post returns a token request with a JSON body, or a form.
func post(body string, form bool) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/refresh", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if form {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.Header.Set("User-Agent", browser)
	return r
}

// recorder is a ResponseWriter that records status and body, and reuses its
// memory.
type recorder struct {
	header http.Header
	status int
	body   []byte
}

func (w *recorder) Header() http.Header { return w.header }
func (w *recorder) WriteHeader(s int)   { w.status = s }
func (w *recorder) Write(b []byte) (int, error) {
	w.body = append(w.body, b...)
	return len(b), nil
}

func (w *recorder) reset() {
	if w.header == nil {
		w.header = make(http.Header)
	}
	clear(w.header)
	w.status, w.body = http.StatusOK, w.body[:0]
}

var refreshName = []byte(`"refresh_token":"`)

// refreshToken returns the refresh token in the body, or nil. It searches for it
// rather than decode the body, so that the client costs little.
func (w *recorder) refreshToken() []byte {
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

// client refreshes sessions without allocations of its own.
type client struct {
	x      *refresher
	r      *http.Request
	w      recorder
	body   []byte
	reader bytes.Reader
}

func newClient(x *refresher) *client { return &client{x: x, r: post("", x.form)} }

func (c *client) Read(p []byte) (int, error) { return c.reader.Read(p) }
func (c *client) Close() error               { return nil }

// refresh presents a token and returns its successor, or nil if the token was
// refused. The result is valid until the next call.
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

// mustRefresh refreshes a session. The refresh token must change, except in the
// cooldown.
func (c *client) mustRefresh(tb testing.TB, s *session) {
	c.x.advance()
	next := c.refresh(s.token)
	if next == nil || bytes.Equal(next, s.token) && c.x.name != "ratchet-cooldown" {
		tb.Fatalf("%s: %d %s", c.x.name, c.w.status, c.w.body)
	}
	s.token = append(s.token[:0], next...)
}

// BenchmarkRefresh measures consecutive refreshes of one session.
func BenchmarkRefresh(b *testing.B) {
	for _, s := range stores {
		b.Run("store="+s.name, func(b *testing.B) {
			addr := s.start(b)
			for _, x := range s.open(b, addr) {
				b.Run("peer="+x.name, func(b *testing.B) {
					c, own := newClient(x), open(x, newUser())
					for range 20 { // open connections and load scripts
						c.mustRefresh(b, own)
					}
					b.ReportAllocs()
					for b.Loop() {
						c.mustRefresh(b, own)
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

// The number of clients of BenchmarkRefreshMany for each CPU, and of sessions for
// each client.
const (
	atOnce      = 8
	ownSessions = 32
)

// BenchmarkRefreshMany measures refreshes by many clients at once, each with its
// own sessions.
func BenchmarkRefreshMany(b *testing.B) {
	for _, s := range stores {
		b.Run("store="+s.name, func(b *testing.B) {
			for _, x := range s.open(b, s.start(b)) {
				// The memory store of fosite reads a map while another request may
				// write to it, which crashes the process.
				if x.name == "ratchet-cooldown" || x.name == "fosite" {
					continue
				}
				clients := sync.OnceValue(func() chan []*session { return signIn(b, x) })
				b.Run("peer="+x.name, func(b *testing.B) {
					all := clients()
					b.SetParallelism(atOnce)
					b.ReportAllocs()
					b.ResetTimer()
					b.RunParallel(func(pb *testing.PB) {
						c, own := newClient(x), <-all
						for i := 0; pb.Next(); i++ {
							c.mustRefresh(b, own[i%len(own)])
						}
						all <- own
					})
				})
			}
		})
	}
}

// signIn creates the sessions of all clients, and lets all clients refresh at
// once, so that the connections are open.
func signIn(tb testing.TB, x *refresher) chan []*session {
	n := atOnce * runtime.GOMAXPROCS(0)
	all := make(chan []*session, n)
	var wg sync.WaitGroup
	for range n {
		own := make([]*session, ownSessions)
		for i := range own {
			own[i] = open(x, newUser())
		}
		wg.Go(func() {
			c := newClient(x)
			for _, s := range own {
				c.mustRefresh(tb, s)
			}
			all <- own
		})
	}
	wg.Wait()
	return all
}

// lastUser is the number of the last user that newUser returned.
var lastUser atomic.Int64

// newUser returns the number of a user without sessions.
func newUser() int { return int(lastUser.Add(1)) }
