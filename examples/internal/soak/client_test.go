package soak

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/ratchet-go/auth/internal/faults"
)

// mode is how a device keeps and sends its tokens.
type mode int

const (
	byCookie mode = iota // like a browser
	inBody               // like a program
	withKeys             // like a program that uses retry keys
)

const (
	accessCookie  = "__Host-access"
	refreshCookie = "__Host-Http-refresh"
)

// tokenClaims are the claims of a token that the checks need.
type tokenClaims struct {
	Sub, Sid string
	Gen, Exp int64
}

func claimsOf(token string) (c tokenClaims) {
	if parts := strings.Split(token, "."); len(parts) == 3 {
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(payload, &c)
	}
	return c
}

// expires returns the time at which a token expires.
func expires(token string) time.Time { return time.Unix(claimsOf(token).Exp, 0) }

// device is a client with at most one session.
type device struct {
	mode            mode
	access, refresh string // "" if it is signed out
	cookies         map[string]string
	key             faults.RetryKey

	spent, spentKey string // the refresh token before refresh, and its retry key
	asked, rotated  time.Time
	late            bool // the last response to a refresh may be that of a late retry
}

// end forgets the session.
func (d *device) end() { *d = device{mode: d.mode, cookies: d.cookies} }

// response is the last response to a request that may have been repeated.
type response struct {
	node   int // that responded
	status int
	header http.Header
	body   []byte
	err    error     // set if no complete response arrived
	sent   time.Time // when the request was sent
	first  time.Time // when the request was sent for the first time
	lost   bool      // an earlier request got no response, or a 503
}

func (r response) fields() (f struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	Action       string
	Reason       string
}) {
	_ = json.Unmarshal(r.body, &f)
	return f
}

// refuses reports whether the response says that the session has ended.
func (r response) refuses() bool {
	return r.status == http.StatusUnauthorized && r.fields().Action == "login"
}

// anyToken matches a token in the body of a response.
var anyToken = regexp.MustCompile(`eyJ[\w.-]+`)

func (r response) String() string {
	if r.err != nil {
		return r.err.Error()
	}
	return fmt.Sprintf("%d %.300s", r.status, anyToken.ReplaceAll(r.body, []byte("…")))
}

// user is a user with several devices. It does one thing at a time, so it knows what
// each response must be.
type user struct {
	*soak
	name, source string
	http         *http.Client
	devices      []*device
	wrong        [2]int // wrong passwords on each node since the last login there without cookies
}

// send sends a request to a node, once. With a device, it sends its cookies and
// stores those of the response.
func (u *user) send(kind string, node int, d *device, method, path string, header http.Header, body any) response {
	var reader io.Reader
	if body != nil {
		b, _ := json.Marshal(body)
		reader = bytes.NewReader(b)
	}
	r := response{node: node, sent: time.Now()}
	req, err := http.NewRequestWithContext(context.Background(), method, "http://"+u.proxies[node].Addr+path, reader)
	if err != nil {
		r.err = err
		return r
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("X-Forwarded-For", u.source)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if d != nil && d.mode == byCookie {
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		for name, value := range d.cookies {
			req.AddCookie(&http.Cookie{Name: name, Value: value})
		}
	}
	resp, err := u.http.Do(req)
	if err != nil {
		r.err = err
	} else {
		r.status, r.header = resp.StatusCode, resp.Header
		if d != nil && d.mode == byCookie { // like a browser, even if the body does not arrive
			for _, c := range resp.Cookies() {
				if c.MaxAge < 0 {
					delete(d.cookies, c.Name)
				} else {
					d.cookies[c.Name] = c.Value
				}
			}
		}
		r.body, r.err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	u.record(kind, r)
	return r
}

// repeat sends a request until there is a response other than 503. With node < 0,
// each time to any node. It gives up after answerLimit, which is a violation.
func (u *user) repeat(node int, send func(node int) response) response {
	first, lost := time.Now(), false
	for {
		at := node
		if at < 0 {
			at = mathrand.IntN(2)
		}
		r := send(at)
		r.first, r.lost = first, lost
		if r.err == nil && r.status != http.StatusServiceUnavailable {
			return r
		}
		if time.Since(first) > answerLimit {
			u.violation("%s: no response within %s: %s", u.name, answerLimit, r)
			return r
		}
		lost = true
		time.Sleep(time.Duration(20+mathrand.IntN(100)) * time.Millisecond)
	}
}

// bearer returns the header of a request with an access token.
func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// step does one thing at random.
func (u *user) step() {
	d := u.devices[mathrand.IntN(len(u.devices))]
	if d.refresh == "" {
		u.login(d)
		return
	}
	switch p := mathrand.IntN(1000); {
	case p < 600:
		u.protected(d, mathrand.IntN(2))
	case p < 860:
		u.renew(d)
	case p < 885:
		u.retry(d)
	case p < 900:
		u.lateRetry(d)
	case p < 915:
		u.theft(d)
	case p < 965:
		u.logout(d)
	case p < 968:
		u.logoutAll(d)
	case p < 984:
		u.wrongPassword()
	default:
		u.guess()
	}
}

func (u *user) login(d *device) {
	r := u.repeat(-1, func(node int) response {
		fields := map[string]string{"login": u.name, "password": u.password}
		if d.mode != byCookie {
			fields["delivery"] = "body"
		}
		return u.send("login", node, d, "POST", "/auth/login", nil, fields)
	})
	if r.err != nil {
		return
	}
	if r.status != http.StatusOK {
		u.violation("login of %s: %s", u.name, r)
		return
	}
	if d.mode != byCookie { // a browser is a known device, whose logins count separately
		u.wrong[r.node] = 0
	}
	access, refresh := u.tokens(d, r)
	if c := claimsOf(refresh); c.Sub != u.name || c.Gen != 1 || claimsOf(access).Sid != c.Sid {
		u.violation("login of %s: the tokens are %+v and %+v", u.name, claimsOf(access), c)
		return
	}
	d.end()
	d.access, d.refresh = access, refresh
	u.count("logins")
}

// tokens returns the tokens of a response with status 200, or of the cookies.
func (u *user) tokens(d *device, r response) (access, refresh string) {
	if d.mode == byCookie {
		return d.cookies[accessCookie], d.cookies[refreshCookie]
	}
	f := r.fields()
	return f.AccessToken, f.RefreshToken
}

// protected requests a page. It refreshes an access token that has expired.
func (u *user) protected(d *device, node int) {
	for begin := time.Now(); time.Since(begin) < answerLimit; {
		header := http.Header(nil)
		if d.mode != byCookie {
			header = bearer(d.access)
		}
		r := u.repeat(node, func(node int) response { return u.send("protected", node, d, "GET", "/me", header, nil) })
		expired, c := !r.sent.Before(expires(d.access)), claimsOf(d.access)
		switch {
		case r.err != nil:
			return
		case r.status == http.StatusOK && !expired:
			if want := c.Sub + " " + c.Sid; string(r.body) != want {
				u.violation("the page of %s is that of %q, want %q", u.name, r.body, want)
			}
			return
		case r.status == http.StatusUnauthorized && r.fields().Action == "refresh" && !time.Now().Before(expires(d.access)):
			if u.renew(d); d.refresh == "" {
				return
			}
		default:
			u.violation("page of %s on node %d, whose access token expires in %s: %s", u.name, node, time.Until(expires(d.access)), r)
			return
		}
	}
	u.violation("%s got no access token that lives long enough within %s", u.name, answerLimit)
}

// retryKey returns the header with the retry key of d.
func (d *device) retryKey() http.Header {
	if d.mode != withKeys {
		return http.Header{}
	}
	return d.key.Header()
}

// renew refreshes the tokens of d. A device whose session has ended in time is then
// signed out.
func (u *user) renew(d *device) {
	var since time.Time // when the token that d has was sent for the first time
	r := u.repeat(-1, func(node int) response {
		if since.IsZero() {
			since = time.Now()
		}
		header := d.retryKey()
		if d.mode != byCookie {
			header.Set("Refresh-Token", d.refresh)
		}
		r := u.send("refresh", node, d, "POST", "/auth/refresh", header, nil)
		if access, refresh := u.tokens(d, r); r.status == http.StatusOK && (r.err == nil || d.mode == byCookie) {
			if u.replace(d, since, access, refresh) {
				since = time.Time{}
			}
		}
		return r
	})
	switch {
	case r.err != nil || r.status == http.StatusOK:
	case r.refuses() && r.fields().Reason == "reuse" && d.mode != withKeys && r.lost && time.Since(since) > u.config.Window-time.Second:
		u.count("retries after the retry window, signed out")
		d.end()
	case r.status == http.StatusUnauthorized && !time.Now().Before(expires(d.refresh)):
		u.count("sessions that expired")
		d.end()
	default:
		u.violation("%s was signed out: refresh of %+v, sent first %s ago: %s", u.name, claimsOf(d.refresh), time.Since(since), r)
		d.end()
	}
}

// replace gives d the tokens of a refresh, and reports whether the session was
// rotated. since is when d sent its token for the first time.
func (u *user) replace(d *device, since time.Time, access, refresh string) (rotated bool) {
	before, now := claimsOf(d.refresh), claimsOf(refresh)
	late := time.Since(since) > u.config.Window-time.Second
	rotated = now.Gen == before.Gen+1
	switch {
	case now.Sub != before.Sub || now.Sid != before.Sid || claimsOf(access).Sid != now.Sid:
		u.violation("refresh of %+v returned %+v", before, now)
	case rotated:
		d.spent, d.spentKey, d.asked, d.rotated = d.refresh, d.key.Key, since, time.Now()
		d.key, d.late = faults.RetryKey{}, late
		u.count("rotations")
	case now.Gen != before.Gen:
		u.violation("refresh of generation %d returned generation %d", before.Gen, now.Gen)
	case refresh != d.refresh && !d.late:
		u.violation("two refreshes of generation %d returned different tokens", now.Gen)
	}
	d.access, d.refresh = access, refresh
	return rotated
}

// present sends a refresh token as another client would.
func (u *user) present(kind, token, key string) response {
	header := http.Header{"Refresh-Token": {token}}
	if key != "" {
		header.Set("Refresh-Key", key)
	}
	return u.repeat(-1, func(node int) response {
		return u.send(kind, node, nil, "POST", "/auth/refresh", header, nil)
	})
}

// retry presents the spent token within the retry window, which returns the same
// successor.
func (u *user) retry(d *device) {
	if d.spent == "" || time.Since(d.asked) > u.config.Window/2 {
		u.protected(d, mathrand.IntN(2))
		return
	}
	r := u.present("retry", d.spent, "")
	switch f := r.fields(); {
	case r.err != nil, time.Since(d.asked) > u.config.Window:
		// The window may have ended meanwhile, and with it the session.
		if r.refuses() {
			u.count("thefts")
			u.ended(d, r, "reuse")
		}
	case r.status != http.StatusOK || f.RefreshToken != d.refresh && !d.late:
		u.violation("retry of %+v, %s after its rotation: %s", claimsOf(d.spent), time.Since(d.rotated), r)
	default:
		u.count("retries")
	}
}

// lateRetry presents the spent token with its retry key after the retry window.
func (u *user) lateRetry(d *device) {
	if d.spentKey == "" || time.Since(d.rotated) < u.config.Window+time.Second || !time.Now().Before(expires(d.spent)) {
		u.protected(d, mathrand.IntN(2))
		return
	}
	r := u.present("late retry", d.spent, d.spentKey)
	switch now := claimsOf(r.fields().RefreshToken); {
	case r.err != nil, !time.Now().Before(expires(d.spent)):
	case r.status != http.StatusOK || now.Sid != claimsOf(d.refresh).Sid || now.Gen != claimsOf(d.refresh).Gen:
		u.violation("late retry of %+v: %s", claimsOf(d.spent), r)
	default:
		u.count("late retries")
	}
}

// theft presents the spent token after the retry window, without its key. That ends
// this session, and no other one of the user.
func (u *user) theft(d *device) {
	if d.spent == "" || time.Since(d.rotated) < u.config.Window+time.Second || time.Until(expires(d.spent)) < 5*time.Second {
		u.protected(d, mathrand.IntN(2))
		return
	}
	u.count("thefts")
	r := u.present("spent token", d.spent, "")
	switch {
	case r.err != nil:
	case !r.refuses() && time.Now().Before(expires(d.spent)):
		u.violation("%s: a spent token was accepted: %s", u.name, r)
	default:
		u.ended(d, r, "reuse")
		for _, other := range u.devices {
			if other.refresh != "" {
				u.protected(other, mathrand.IntN(2))
			}
		}
	}
}

func (u *user) logout(d *device) {
	if u.renew(d); d.refresh == "" {
		return
	}
	old := *d
	r := u.repeat(-1, func(node int) response {
		header := http.Header{}
		if d.mode != byCookie {
			header.Set("Refresh-Token", d.refresh)
		}
		return u.send("logout", node, d, "POST", "/auth/logout", header, nil)
	})
	if r.err != nil {
		return
	}
	if r.status != http.StatusNoContent {
		u.violation("logout of %s: %s", u.name, r)
		return
	}
	d.access, d.refresh = old.access, old.refresh // a browser has forgotten them
	u.count("logouts")
	u.ended(d, r, "logout")
}

func (u *user) logoutAll(d *device) {
	if u.renew(d); d.refresh == "" {
		return
	}
	access := d.access
	r := u.repeat(-1, func(node int) response {
		return u.send("logout of all", node, nil, "POST", "/auth/logout/all", bearer(access), nil)
	})
	switch {
	case r.err != nil:
		return
	case r.status == http.StatusNoContent:
	case r.refuses() && r.lost: // by the first request
	case r.status == http.StatusUnauthorized && !time.Now().Before(expires(access)):
		return
	default:
		u.violation("logout of all sessions of %s: %s", u.name, r)
		return
	}
	u.count("logouts of all sessions")
	for _, d := range u.devices {
		if d.refresh != "" {
			u.ended(d, r, "revoked")
		}
	}
}

// ended checks that the nodes refuse the session of d, which r has ended: the node
// that responded at once, and the other one soon. Then d is signed out.
func (u *user) ended(d *device, r response, reason string) {
	defer d.end()
	since := time.Now()
	for _, node := range []int{1 - r.node, r.node} {
		for {
			page := u.repeat(node, func(node int) response { return u.send("ended", node, nil, "GET", "/me", bearer(d.access), nil) })
			took := time.Since(since)
			switch {
			case page.err != nil:
			case !page.sent.Before(expires(d.access)):
			case page.fields().Action == "refresh" && !time.Now().Before(expires(d.access)): // expired on its way
			case page.refuses():
				if got := page.fields().Reason; got != reason && !r.lost {
					u.violation("%s: the reason is %q, want %q", u.name, got, reason)
				}
				if node != r.node && !page.lost && !u.disturbed(since) {
					u.delay(page.sent.Sub(since))
				}
			case page.status != http.StatusOK,
				node == r.node && !r.lost,
				took > feedLimit && !u.disturbed(since):
				u.violation("node %d, %s after the session of %s ended (%s) on node %d: %s", node, took, u.name, reason, r.node, page)
			default:
				time.Sleep(2 * time.Millisecond)
				continue
			}
			break
		}
	}
	if r := u.present("ended", d.refresh, ""); r.err == nil && r.status != http.StatusUnauthorized {
		u.violation("%s could refresh a session that has ended (%s): %s", u.name, reason, r)
	}
}

// wrongPassword tries a wrong password for the user's own account, at most three
// times between two logins, so that the account is not throttled.
func (u *user) wrongPassword() {
	node := mathrand.IntN(2)
	if u.wrong[node] >= 3 {
		return
	}
	u.wrong[node]++
	r := u.send("wrong password", node, nil, "POST", "/auth/login", nil,
		map[string]string{"login": u.name, "password": "wrong", "delivery": "body"})
	if r.err == nil && r.status != http.StatusServiceUnavailable {
		u.checkWrong(r, false)
	}
}

// guess tries a password of an account that nobody uses, from any address.
func (u *user) guess() {
	stranger := *u
	stranger.source = fmt.Sprintf("198.18.%d.%d", mathrand.IntN(256), mathrand.IntN(256))
	name := [...]string{"user-victim", "nobody"}[mathrand.IntN(2)]
	r := stranger.send("wrong password", mathrand.IntN(2), nil, "POST", "/auth/login", nil,
		map[string]string{"login": name, "password": "wrong", "delivery": "body"})
	if r.err == nil && r.status != http.StatusServiceUnavailable {
		u.checkWrong(r, true)
	}
}

func (u *user) checkWrong(r response, mayWait bool) {
	switch {
	case r.refuses():
		u.count("wrong passwords")
	case mayWait && r.status == http.StatusTooManyRequests && r.header.Get("Retry-After") != "":
		u.count("throttled")
	default:
		u.violation("wrong password: %s", r)
	}
}

// check checks at the end that every session that nobody has ended can be used.
func (u *user) check() {
	for _, d := range u.devices {
		if d.refresh != "" {
			u.renew(d)
		}
		for node := range 2 {
			if d.refresh != "" {
				u.protected(d, node)
			}
		}
		if d.refresh != "" {
			u.count("signed in at the end")
		}
	}
}
