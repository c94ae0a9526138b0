package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/examples/internal/exampletest"
	"github.com/ratchet-go/auth/examples/quickstart/site"
	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, quickstart) }

// quickstart is the program of that name with a clock that its standard input
// advances: each line is a duration.
func quickstart() {
	o := site.Options{Name: "quickstart"}
	o.Flags()
	site.ParseFlags()
	var ahead atomic.Int64
	o.Auth.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			d, _ := time.ParseDuration(lines.Text())
			fmt.Println("the clock is ahead by", time.Duration(ahead.Add(int64(d))))
		}
	}()
	site.NewSecrets().SetKeys(&o.Auth)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := site.Run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// service is a running quickstart and a network that leads to it.
type service struct {
	*exampletest.Program
	*internet

	t     *testing.T
	clock io.Writer
	ahead time.Duration
}

func start(t *testing.T, args ...string) *service {
	t.Helper()
	cmd := testserver.Self(t, append([]string{"-addr", "127.0.0.1:0", "-hash", "m=64,t=1,p=1"}, args...)...)
	clock, err := cmd.StdinPipe()
	require.NoError(t, err)
	p := exampletest.Run(t, cmd)
	return &service{Program: p, internet: newInternet(t, p.URL), t: t, clock: clock}
}

// advance moves the clock of the server.
func (s *service) advance(d time.Duration) {
	s.t.Helper()
	s.ahead += d
	_, err := fmt.Fprintln(s.clock, d)
	require.NoError(s.t, err)
	s.eventually(func() bool { return strings.Contains(s.Output(), fmt.Sprintf("the clock is ahead by %s\n", s.ahead)) })
}

// expire makes the access tokens expire.
func (s *service) expire() {
	s.t.Helper()
	s.advance(16 * time.Minute)
}

// events returns how many events of the type the server has logged.
func (s *service) events(typ string) int {
	return strings.Count(s.Output(), `msg="auth: `+typ+`" `)
}

func (s *service) eventually(f func() bool) {
	s.t.Helper()
	require.Eventually(s.t, f, 30*time.Second, 5*time.Millisecond)
}

// internet is a proxy in front of the server.
type internet struct {
	url string

	proxy *httptest.Server
	mu    sync.Mutex
	down  bool
	sent  int // refreshes
	lost  int // responses to refreshes
	fate  func(http.ResponseWriter, *http.Request, http.Handler)
}

func newInternet(t *testing.T, target string) *internet {
	t.Helper()
	to, err := url.Parse(target)
	require.NoError(t, err)
	n := &internet{}
	next := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(to)
			p.Out.Host = p.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode == http.StatusNotFound || r.StatusCode >= http.StatusInternalServerError {
				t.Errorf("%s %s: status %d", r.Request.Method, r.Request.URL.Path, r.StatusCode)
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	n.proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		down, fate := n.down, n.fate
		if r.URL.Path == "/auth/refresh" {
			n.sent++
		}
		n.mu.Unlock()
		switch {
		case down:
			panic(http.ErrAbortHandler) // closes the connection
		case r.URL.Path == "/auth/refresh" && fate != nil:
			fate(w, r, next)
		default:
			next.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		n.proxy.CloseClientConnections()
		n.proxy.Close()
	})
	n.url = n.proxy.URL
	return n
}

// refreshes sets what happens to refreshes. With nil, the server answers them.
func (n *internet) refreshes(fate func(http.ResponseWriter, *http.Request, http.Handler)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fate = fate
}

// losesResponses is a fate of refreshes: the server carries them out, and the client
// gets no response.
func (n *internet) losesResponses(_ http.ResponseWriter, r *http.Request, server http.Handler) {
	response := httptest.NewRecorder()
	server.ServeHTTP(response, r)
	if response.Code == http.StatusOK {
		n.mu.Lock()
		n.lost++
		n.mu.Unlock()
	}
	panic(http.ErrAbortHandler)
}

// requests returns the number of refreshes that were sent.
func (n *internet) requests() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent
}

// losses returns the number of responses with status 200 that were lost.
func (n *internet) losses() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost
}

// cut closes all connections, and refuses requests until restore.
func (n *internet) cut() {
	n.mu.Lock()
	n.down = true
	n.mu.Unlock()
	n.proxy.CloseClientConnections()
}

func (n *internet) restore() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = false
}

// tab is a tab with the page.
type tab struct {
	exampletest.Tab

	t   *testing.T
	url string
}

// open opens the page in a new profile.
func (s *service) open(chromium exampletest.Tab) tab {
	s.t.Helper()
	return s.openAt(chromium, s.url)
}

func (s *service) openAt(chromium exampletest.Tab, at string) tab {
	s.t.Helper()
	b := tab{chromium.Profile(s.t), s.t, at}
	b.Do(chromedp.Navigate(b.url))
	b.until(`!document.querySelector(".gate").hidden`)
	return b
}

// another opens the page in another tab of the same profile.
func (b tab) another() tab {
	b.t.Helper()
	b.Tab = b.Open()
	b.Do(chromedp.Navigate(b.url))
	return b
}

func (b tab) signIn(device string) {
	b.t.Helper()
	b.Do(chromedp.Click(`[data-fill="ada"]`), chromedp.SendKeys(`[name="device"]`, device), chromedp.SendKeys(`[name="password"]`, kb.Enter))
	b.until(signedIn)
}

const (
	signedIn = `document.getElementById("username").checkVisibility() && document.getElementById("username").innerText === "ada"`
	live     = `document.getElementById("live").classList.contains("on")`
	focused  = `(document.activeElement.id || document.activeElement.name || document.activeElement.tagName)`
)

// until waits until a JavaScript expression is true.
func (b tab) until(js string) {
	b.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if is, err := chromedp.Run(b.Context, chromedp.Evaluate[bool](js)); err == nil && is {
			return
		} else if time.Now().After(deadline) {
			text, _ := chromedp.Run(b.Context, chromedp.Evaluate[string](`document.body.innerText`))
			require.Fail(b.t, "not true", "%s (%v). The page shows:\n%s", js, err, text)
		}
	}
}

// shows waits until the element with the ID shows exactly the text.
func (b tab) shows(id, text string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`(e => e.checkVisibility() && e.innerText === %q)(document.getElementById(%q))`, text, id))
}

// logs waits until the list of activities contains the text.
func (b tab) logs(text string) {
	b.t.Helper()
	b.Sees("log", text)
}

// ask presses a button of the protected API, and does not wait.
func (b tab) ask() {
	b.t.Helper()
	b.Evaluate(`document.getElementById("response").textContent = ""; document.querySelector('[data-get="/api/me"]').click(); ""`)
}

// answered waits for the answer to ask.
func (b tab) answered() {
	b.t.Helper()
	b.until(`document.getElementById("response").textContent.startsWith("200 ")`)
}

// neverShowsTheForm fails the test if the page shows the form after it has been
// loaded again, even for a moment.
func (b tab) neverShowsTheForm() func() {
	b.t.Helper()
	b.onLoad(`addEventListener("DOMContentLoaded", () => {
		const form = document.querySelector(".gate"), look = () => { window.formShown ||= !form.hidden };
		look();
		new MutationObserver(look).observe(form, { attributes: true });
	})`)
	return func() {
		b.t.Helper()
		require.Equal(b.t, "false", b.Evaluate(`String(window.formShown ?? false)`))
	}
}

// onLoad runs a script before those of the page when the page is loaded.
func (b tab) onLoad(js string) {
	b.t.Helper()
	_, err := chromedp.Call(b.Context, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: js})
	require.NoError(b.t, err)
}

// cookie returns the value of the cookie whose name ends so.
func (b tab) cookie(name string) string {
	b.t.Helper()
	cookies, err := chromedp.Call(b.Context, network.GetCookies, network.GetCookiesParams{})
	require.NoError(b.t, err)
	i := slices.IndexFunc(cookies.Cookies, func(c *network.Cookie) bool { return strings.HasSuffix(c.Name, name) })
	require.NotEqual(b.t, -1, i)
	return cookies.Cookies[i].Value
}
