package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Cookies says how tokens travel in browsers. The zero Cookies is the safe
// one: __Host-access and __Host-Http-refresh, Secure, HttpOnly, SameSite=Lax,
// path /. Because of the prefix __Host- no other host of the site can set them,
// and because of Http- a page's script can neither set nor overwrite the
// refresh cookie; older browsers know only the former. Both live as long as the
// session, so that an expired access token still arrives and is answered with
// "refresh".
//
// What came by cookie is checked for its origin by
// [http.CrossOriginProtection]: writes, logins and WebSocket handshakes from
// any other origin, those of the same site included, are refused.
type Cookies struct {
	_ [0]func() // keyed literals only

	// AccessName and RefreshName replace the names, for instance where two
	// Authenticators live on one host. They begin with __Host-.
	AccessName  string
	RefreshName string

	// InsecureNames allows names without the prefix __Host-, for clients that
	// know others. Any other host of the site can then set such a cookie, for
	// instance one of its own user, and a victim works in that user's account.
	InsecureNames bool

	// SameSite is Lax if zero. None needs TrustedOrigins, and leaves those
	// alone as a defence.
	SameSite http.SameSite

	// TrustedOrigins are the other origins whose pages may send the cookies
	// along with a write, spelled as browsers do: https://app.example.com.
	TrustedOrigins []string

	// AllowBody lets [Authenticator.LoginHandler] be asked for tokens in the
	// body of the answer ("delivery": "body"), for clients that are not
	// browsers.
	AllowBody bool

	// InsecureHTTP is for development on a loopback address without TLS: the
	// cookies are not Secure, and their default names have no prefix.
	InsecureHTTP bool
}

// maxCookie bounds name and value together; browsers drop what is larger
// (rfc6265bis section 5.7), which would be a login loop.
const maxCookie = 4096

// maxCookieAge is what browsers cut Max-Age to.
const maxCookieAge = 400 * 24 * time.Hour

// cookieJar is a checked Cookies.
type cookieJar struct {
	access, refresh http.Cookie // all but the value and the age
	origins         *http.CrossOriginProtection
	allowBody       bool
}

// newCookieJar returns nil for nil. It is only of use without an error.
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
			bad("SameSite is None, which sends the cookies with requests of every site; name yours in TrustedOrigins")
		}
		if c.InsecureHTTP {
			bad("SameSite is None, which browsers refuse with InsecureHTTP")
		}
	default:
		bad("SameSite (%d) is none of Lax, Strict and None", sameSite)
	}
	access, refresh := c.AccessName, c.RefreshName
	if access == "" {
		access = prefixed("__Host-", c.InsecureHTTP) + "access"
	}
	if refresh == "" {
		refresh = prefixed("__Host-Http-", c.InsecureHTTP) + "refresh"
	}
	for _, n := range []struct{ field, name string }{{"AccessName", access}, {"RefreshName", refresh}} {
		lower := strings.ToLower(n.name) // browsers match prefixes so, but older ones do not
		switch {
		case !isToken(n.name) || len(n.name) > 128:
			bad("%s %q is not the name of a cookie", n.field, n.name)
		case c.InsecureHTTP && (strings.HasPrefix(lower, "__host-") || strings.HasPrefix(lower, "__secure-") || strings.HasPrefix(lower, "__http-")):
			bad("%s %q needs Secure, which InsecureHTTP leaves out", n.field, n.name)
		case !c.InsecureHTTP && !c.InsecureNames && !strings.HasPrefix(n.name, "__Host-"):
			bad("%s %q does not begin with __Host-, so that other hosts of the site could set it; InsecureNames allows that", n.field, n.name)
		}
	}
	if access == refresh {
		bad("AccessName and RefreshName are both %q", access)
	}
	origins := http.NewCrossOriginProtection()
	for i, origin := range c.TrustedOrigins {
		if err := checkOriginSpelling(origin); err != nil {
			bad("TrustedOrigins[%d] %q: %w", i, origin, err)
		} else if err := origins.AddTrustedOrigin(origin); err != nil {
			bad("TrustedOrigins[%d] %q: %w", i, origin, err)
		}
	}
	template := http.Cookie{Path: "/", Secure: !c.InsecureHTTP, HttpOnly: true, SameSite: sameSite}
	jar := &cookieJar{access: template, refresh: template, origins: origins, allowBody: c.AllowBody}
	jar.access.Name, jar.refresh.Name = access, refresh
	return jar, errors.Join(errs...)
}

func prefixed(prefix string, insecure bool) string {
	if insecure {
		return ""
	}
	return prefix
}

// checkOriginSpelling refuses an origin that no browser would send in these
// letters (RFC 6454 section 6.2), so that it would never match.
func checkOriginSpelling(origin string) error {
	u, err := url.Parse(origin)
	switch {
	case err != nil || u.Scheme == "" || u.Host == "":
		return errors.New("not an origin such as https://app.example.com")
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("the scheme is neither https nor http")
	case u.Scheme+"://"+u.Host != origin:
		return errors.New("an origin is a scheme and a host, without path, user or trailing slash")
	case strings.ToLower(origin) != origin:
		return errors.New("browsers send origins in lower case")
	case strings.ContainsFunc(origin, func(r rune) bool { return r >= 0x7f }):
		return errors.New("browsers send the host in its ASCII form (xn--…)")
	case strings.Contains(u.Host, "*"):
		return errors.New("there are no wildcards; name every origin")
	case strings.HasPrefix(u.Port(), "0"):
		return errors.New("browsers send ports without leading zeros")
	case u.Port() == "443" && u.Scheme == "https", u.Port() == "80" && u.Scheme == "http", strings.HasSuffix(origin, ":"):
		return errors.New("browsers leave out the default port")
	}
	return nil
}

// fits refuses tokens that a browser would drop.
func (jar *cookieJar) fits(c *http.Cookie, token string) error {
	if n := len(c.Name) + len(token); n > maxCookie {
		return &cookieSizeError{c.Name, n}
	}
	return nil
}

// fitsCookie refuses an access token that is too large for its cookie, unless
// it travels in a body. It is asked before a refresh token is spent.
func (a *Authenticator) fitsCookie(access string, inBody bool) error {
	if a.cookies == nil || inBody {
		return nil
	}
	return a.cookies.fits(&a.cookies.access, access)
}

// SetCookies sets the cookies of t, and no status or body, so that a redirect
// may follow. Where t repeats the refresh token that was presented, its cookie
// is left alone: a late answer must not put back an older one. It does nothing
// without Config.Cookies. Tokens that were issued with InBody may be too large:
// browsers drop such a cookie, and an event says so.
func (a *Authenticator) SetCookies(w http.ResponseWriter, t Tokens) {
	if a.cookies == nil {
		return
	}
	if err := a.fitsCookie(t.Access, false); err != nil { // issued with InBody
		a.emit(context.Background(), Event{Type: EventFault, Session: Session{Subject: t.Subject, ID: t.SessionID}, Err: err})
	}
	age := int(min(secondsLeft(t.RefreshExpiresAt, a.now()), int64(maxCookieAge/time.Second)))
	a.setCookie(w, a.cookies.access, t.Access, age)
	if !t.presented {
		a.setCookie(w, a.cookies.refresh, t.Refresh, age)
	}
}

// ClearCookies deletes both cookies, for a logout.
func (a *Authenticator) ClearCookies(w http.ResponseWriter) {
	if a.cookies == nil {
		return
	}
	a.setCookie(w, a.cookies.access, "", -1)
	a.setCookie(w, a.cookies.refresh, "", -1)
}

func (a *Authenticator) setCookie(w http.ResponseWriter, c http.Cookie, value string, age int) {
	c.Value, c.MaxAge = value, age
	if age <= 0 {
		c.MaxAge = -1
	}
	w.Header().Add("Set-Cookie", c.String())
	w.Header().Set("Cache-Control", "no-store")
}
