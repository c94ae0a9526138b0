package auth

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Cookies configures token cookies for browsers. The zero value is the safe
// choice: cookies named __Host-access, __Host-Http-refresh and __Host-Http-device,
// with Secure, HttpOnly, SameSite=Lax and path /. The prefix __Host- prevents other
// hosts of the site from setting the cookies. The prefix __Host-Http- also prevents
// scripts from setting them; browsers that do not support it treat it as __Host-.
//
// The access cookie and the refresh cookie expire with the session, not with the
// access token. So a request with an expired access token is told to refresh, not
// to sign in. The third cookie is explained at DeviceName. The cookies of an
// ephemeral session ([SessionOptions].Ephemeral) have no Max-Age.
//
// Requests that authenticate by cookie, and logins that set cookies, are
// refused if they come from an origin that is neither the host's own nor in
// TrustedOrigins, even one of the same site. This applies to WebSocket
// handshakes, and to all methods except GET, HEAD and OPTIONS. See
// [http.CrossOriginProtection].
type Cookies struct {
	_ [0]func() // keyed literals only

	// AccessName and RefreshName replace the default names, for example if two
	// Authenticators serve one host. They must begin with __Host-, unless
	// InsecureNames or InsecureHTTP is set.
	AccessName  string
	RefreshName string

	// DeviceName replaces the default name of a third cookie, __Host-Http-device,
	// which says that the user has signed in with this browser. Failed logins of
	// such a browser are counted separately, so nobody else can cause its user to
	// wait there; see Config.Limiter. Each login whose tokens go into cookies sets
	// it, except one with SessionOptions.Actor. A logout does not delete it. It
	// expires after 180 days, or with SessionOptions.Ephemeral when the browser is
	// closed. It gives no access. It contains the ID of the user, signed and not
	// encrypted. The rules for its name are those of the other names.
	DeviceName string

	// InsecureNames allows names without the prefix __Host-, for clients that
	// expect other names. Another host of the site can then set the cookies. For
	// example, it can sign a victim in to an account of the attacker.
	InsecureNames bool

	// SameSite is the SameSite attribute; zero means Lax. Lax suffices for pages
	// of the same site, even of another origin; pages of another site need None.
	// SameSite=None requires TrustedOrigins, because the check of the origin is
	// then the only defense against cross-site requests.
	SameSite http.SameSite

	// Partitioned sets the attribute Partitioned (CHIPS). Pages of another site
	// then keep the cookies even in browsers that block third-party cookies. The
	// cookies are separate for each site that the browser shows as the address
	// of the page, so a user signs in once on each of these sites. Partitioned
	// requires SameSite=None.
	Partitioned bool

	// TrustedOrigins are other origins whose pages may send requests that the
	// check of the origin would refuse. They are spelled as in the Origin
	// header, such as https://app.example.com or, for an app in a WebView,
	// capacitor://localhost. An http origin must have a loopback name, such as
	// http://localhost:3000, unless InsecureHTTP is set.
	//
	// List also this server's own public origin if a proxy in front of it
	// replaces the Host header. Otherwise WebSocket handshakes are refused,
	// because the check compares the Origin header with Host if a request has no
	// Sec-Fetch-Site header.
	TrustedOrigins []string

	// AllowBody allows clients that are not browsers to request the tokens of
	// [Authenticator.LoginHandler] in the response body ("delivery": "body").
	AllowBody bool

	// ClearSiteData makes [Authenticator.ClearCookies], and so every logout that
	// clears the cookies, also send
	//
	//	Clear-Site-Data: "cache", "storage"
	//
	// Browsers then delete what pages of this origin have stored: the HTTP cache,
	// localStorage, sessionStorage, IndexedDB, CacheStorage and service workers,
	// for every application on this origin, and for no other origin. Over http
	// they ignore the header, except from a loopback host. They may delay the
	// response until the data is deleted.
	//
	// The header does not say "cookies", because browsers would then delete all
	// cookies of the registrable domain: those of other applications and hosts, and
	// the cookie DeviceName, which must survive a logout.
	ClearSiteData bool

	// InsecureHTTP is for development on a loopback address without TLS. The
	// cookies are not Secure, and their default names are access and refresh.
	// It is an error if the Issuer is an https URL.
	InsecureHTTP bool
}

// maxCookie bounds the name and value of a cookie together. Browsers drop larger
// cookies (rfc6265bis section 5.7), so the client would sign in again and again.
const maxCookie = 4096

// maxCookieAge is the Max-Age at which browsers cap larger values.
const maxCookieAge = 400 * 24 * time.Hour

// cookieJar is a validated Cookies.
type cookieJar struct {
	access, refresh, device http.Cookie // without Value and MaxAge
	origins                 *http.CrossOriginProtection
	allowBody               bool
	clearSiteData           bool
}

// newCookieJar validates c. It returns nil if c is nil. The jar must not be used
// if there is an error.
func newCookieJar(field string, c *Cookies) (*cookieJar, error) {
	if c == nil {
		return nil, nil
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("auth: "+field+"."+format, args...)) }

	sameSite := c.SameSite
	switch sameSite {
	case 0:
		sameSite = http.SameSiteLaxMode
	case http.SameSiteLaxMode, http.SameSiteStrictMode:
	case http.SameSiteNoneMode:
		if len(c.TrustedOrigins) == 0 {
			bad("SameSite is None, so browsers send the cookies with requests from every site; list your sites in TrustedOrigins")
		}
		if c.InsecureHTTP {
			bad("SameSite is None, which requires Secure cookies, but InsecureHTTP is set")
		}
	default:
		bad("SameSite (%d) must be Lax, Strict or None", sameSite)
	}
	if c.Partitioned && sameSite != http.SameSiteNoneMode {
		bad("Partitioned requires SameSite None: without it, browsers send the cookies to no page of another site")
	}
	access, refresh, device := c.AccessName, c.RefreshName, c.DeviceName
	if access == "" {
		access = prefixed("__Host-", c.InsecureHTTP) + "access"
	}
	if refresh == "" {
		refresh = prefixed("__Host-Http-", c.InsecureHTTP) + "refresh"
	}
	if device == "" {
		device = prefixed("__Host-Http-", c.InsecureHTTP) + "device"
	}
	for _, n := range []struct{ field, name string }{{"AccessName", access}, {"RefreshName", refresh}, {"DeviceName", device}} {
		lower := strings.ToLower(n.name) // current browsers ignore the case of prefixes, older ones do not
		switch {
		case !isToken(n.name) || len(n.name) > 128:
			bad("%s %q is not a cookie name of 1 to 128 characters (RFC 6265 section 4.1.1)", n.field, n.name)
		case c.InsecureHTTP && (strings.HasPrefix(lower, "__host-") || strings.HasPrefix(lower, "__secure-") || strings.HasPrefix(lower, "__http-")):
			bad("%s %q has a prefix that requires Secure cookies, but InsecureHTTP is set", n.field, n.name)
		case !c.InsecureHTTP && !c.InsecureNames && !strings.HasPrefix(n.name, "__Host-"):
			bad("%s %q does not begin with __Host-, so other hosts of the site can set the cookie; InsecureNames allows this", n.field, n.name)
		}
	}
	if access == refresh {
		bad("AccessName and RefreshName are both %q", access)
	}
	if device == access || device == refresh {
		bad("DeviceName %q is the name of another cookie", device)
	}
	origins := http.NewCrossOriginProtection()
	for i, origin := range c.TrustedOrigins {
		if err := checkTrustedOrigin(origin, c.InsecureHTTP); err != nil {
			bad("TrustedOrigins[%d] %q: %w", i, origin, err)
		} else if err := origins.AddTrustedOrigin(origin); err != nil {
			bad("TrustedOrigins[%d] %q: %w", i, origin, err)
		}
	}
	template := http.Cookie{Path: "/", Secure: !c.InsecureHTTP, HttpOnly: true, SameSite: sameSite, Partitioned: c.Partitioned}
	jar := &cookieJar{
		access: template, refresh: template, device: template, origins: origins, allowBody: c.AllowBody, clearSiteData: c.ClearSiteData,
	}
	jar.access.Name, jar.refresh.Name, jar.device.Name = access, refresh, device
	return jar, errors.Join(errs...)
}

func prefixed(prefix string, insecure bool) string {
	if insecure {
		return ""
	}
	return prefix
}

// fits returns an error if browsers would drop the cookie.
func (jar *cookieJar) fits(c *http.Cookie, token string) error {
	if n := len(c.Name) + len(token); n > maxCookie {
		return &cookieSizeError{c.Name, n}
	}
	return nil
}

// fitsCookie returns an error if an access token is too large for its cookie and
// is not sent in a body. It is called before a refresh token is spent.
func (a *Authenticator) fitsCookie(access string, inBody bool) error {
	if a.cookies == nil || inBody {
		return nil
	}
	return a.cookies.fits(&a.cookies.access, access)
}

// SetCookies sets the token cookies and, after a login, the cookie of a known
// device ([Cookies].DeviceName). It writes no status and no body, so a
// redirect may follow. Without Config.Cookies it does nothing, except that it emits
// an event.
//
// If t has the refresh token that was presented, SetCookies does not set the
// refresh cookie, because a late response could overwrite a newer one. If t
// was issued with InBody, the access token may be too large for a cookie:
// SetCookies then emits an event, and browsers drop the cookie.
func (a *Authenticator) SetCookies(w http.ResponseWriter, t Tokens) {
	if a.cookies == nil {
		a.emitLimited(context.Background(), "SetCookies", Event{Type: EventFault, Err: errors.New("auth: SetCookies does nothing, because Config.Cookies is nil")})
		return
	}
	if err := a.fitsCookie(t.Access, false); err != nil { // issued with InBody
		a.emit(context.Background(), Event{Type: EventFault, Session: Session{Subject: t.Subject, ID: t.SessionID}, Err: err})
	}
	dropCookie(w, a.cookies.access.Name)
	dropClearSiteData(w)
	age := int(min(secondsLeft(t.RefreshExpiresAt, a.now()), int64(maxCookieAge/time.Second)))
	if t.ephemeral && age > 0 {
		age = untilClosed
	}
	a.setCookie(w, a.cookies.access, t.Access, age)
	if !t.presented {
		dropCookie(w, a.cookies.refresh.Name)
		a.setCookie(w, a.cookies.refresh, t.Refresh, age)
	}
	if t.device != "" {
		dropCookie(w, a.cookies.device.Name)
		age := int(knownDeviceTTL / time.Second)
		if t.ephemeral {
			age = untilClosed
		}
		a.setCookie(w, a.cookies.device, t.device, age)
	}
}

// ClearCookies deletes both token cookies, for a logout. With
// [Cookies].ClearSiteData it also tells the browser to delete what pages of this
// origin have stored. Without Config.Cookies it does nothing.
func (a *Authenticator) ClearCookies(w http.ResponseWriter) {
	if a.cookies == nil {
		return
	}
	dropCookie(w, a.cookies.access.Name)
	dropCookie(w, a.cookies.refresh.Name)
	a.setCookie(w, a.cookies.access, "", -1)
	a.setCookie(w, a.cookies.refresh, "", -1)
	if a.cookies.clearSiteData {
		dropClearSiteData(w)
		w.Header().Add("Clear-Site-Data", clearSiteData)
	}
}

// clearSiteData is the value of the header that Cookies.ClearSiteData sends.
const clearSiteData = `"cache", "storage"`

// dropClearSiteData removes the header that ClearCookies has set, for example when
// a handler signs the user in again. It keeps what the application has set.
func dropClearSiteData(w http.ResponseWriter) {
	h := w.Header()
	if kept := slices.DeleteFunc(h["Clear-Site-Data"], func(v string) bool { return v == clearSiteData }); len(kept) > 0 {
		h["Clear-Site-Data"] = kept
	} else {
		delete(h, "Clear-Site-Data")
	}
}

// dropCookie removes a cookie that the response already sets, for example when a
// handler signs the user out after Config.AutoRefresh has refreshed the tokens.
func dropCookie(w http.ResponseWriter, name string) {
	old := w.Header()["Set-Cookie"]
	kept := slices.DeleteFunc(old, func(line string) bool { return strings.HasPrefix(line, name+"=") })
	if len(kept) < len(old) {
		w.Header()["Set-Cookie"] = kept
	}
}

// untilClosed is the age of a cookie without Max-Age, which the browser drops when
// it is closed.
const untilClosed = math.MinInt

// setCookie sets a cookie with an age in seconds, or untilClosed. It deletes the
// cookie if the age is 0 or less.
func (a *Authenticator) setCookie(w http.ResponseWriter, c http.Cookie, value string, age int) {
	c.Value = value
	switch {
	case age == untilClosed:
		c.MaxAge = 0 // no attribute
	case age <= 0:
		c.MaxAge = -1
	default:
		c.MaxAge = age
	}
	w.Header().Add("Set-Cookie", c.String())
	w.Header().Set("Cache-Control", "no-store")
}
