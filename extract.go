package auth

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
)

// Extractor tells where to find the access token of a request. All configured
// places are searched. If they contain different tokens, those that do not
// verify are ignored, and tokens of two sessions are refused.
type Extractor struct {
	source source
	name   string
}

type source int

const (
	inBearer source = iota + 1
	inCookie
	inHeader
	inQuery
)

// FromBearer finds the token in the header "Authorization: Bearer" (RFC 6750
// section 2.1). The scheme is case-insensitive. Other schemes are ignored.
func FromBearer() Extractor { return Extractor{inBearer, "Authorization"} }

// FromCookie finds the token in the access cookie; see [Cookies]. If the token
// in the cookie is valid, [Verifier.CheckOrigin] checks the origin of the
// request.
func FromCookie() Extractor { return Extractor{inCookie, "Cookie"} }

// FromHeader finds the token in a header, such as X-Access-Token, whose whole
// value is the token. [New] refuses a header that browsers, proxies or HTTP use
// for something else, such as X-Forwarded-For.
func FromHeader(name string) Extractor {
	return Extractor{inHeader, textproto.CanonicalMIMEHeaderKey(name)}
}

// FromQuery finds the token in a query parameter of the URL, on every route.
// URLs are stored in access logs and browser histories and sent in Referer
// headers. Anyone who reads one can use the token until it expires (RFC 6750
// section 5.3). Use FromQuery only for clients that support nothing else. The
// name is UTF-8 without spaces, control characters or invisible characters.
func FromQuery(name string) Extractor { return Extractor{inQuery, name} }

// checkExtractors returns the extractors to use: es, or the defaults if es is
// empty. The error joins every mistake in es.
func checkExtractors(field string, es []Extractor, jar *cookieJar) ([]Extractor, error) {
	if len(es) == 0 {
		es = []Extractor{FromBearer()}
		if jar != nil {
			es = append(es, FromCookie())
		}
		return es, nil
	}
	var errs []error
	for i, e := range es {
		switch {
		case e.source == 0:
			errs = append(errs, fmt.Errorf("auth: %s[%d] is the zero Extractor; create it with FromBearer, FromCookie, FromHeader or FromQuery", field, i))
		case e.source == inHeader && !isToken(e.name):
			errs = append(errs, fmt.Errorf("auth: %s[%d]: %+q is not a valid header name, such as X-Access-Token", field, i, e.name))
		case e.source == inQuery && !isQueryName(e.name):
			errs = append(errs, fmt.Errorf("auth: %s[%d]: %+q is not a valid parameter name, such as access_token", field, i, e.name))
		case e.source == inHeader && headerUse(e.name) != "":
			errs = append(errs, fmt.Errorf("auth: %s[%d]: header %s %s", field, i, e.name, headerUse(e.name)))
		case e.source == inCookie && jar == nil:
			errs = append(errs, fmt.Errorf("auth: %s[%d] reads a cookie, but Cookies is nil; set Cookies, or remove it", field, i))
		case slices.Contains(es[:i], e):
			errs = append(errs, fmt.Errorf("auth: %s[%d] duplicates %s[%d]", field, i, field, slices.Index(es, e)))
		}
	}
	return slices.Clone(es), errors.Join(errs...)
}

// placesOf returns the places in which es look for tokens, for error texts.
func placesOf(es []Extractor, jar *cookieJar) []string {
	var places []string
	for _, e := range es {
		switch e.source {
		case inBearer:
			places = append(places, "the header Authorization (Bearer)")
		case inCookie:
			if jar != nil {
				places = append(places, "the cookie "+jar.access.Name)
			}
		case inHeader:
			places = append(places, "the header "+e.name)
		case inQuery:
			places = append(places, "the query parameter "+cleanText(e.name, maxDeviceName))
		}
	}
	return places
}

// alternatives joins texts with commas and "or".
func alternatives(texts []string) string {
	last := len(texts) - 1
	if last < 1 {
		return strings.Join(texts, "")
	}
	return strings.Join(texts[:last], ", ") + " or " + texts[last]
}

// errNoScheme is the error for a token in the Authorization header without the
// scheme Bearer.
var errNoScheme = fmt.Errorf("%w: the Authorization header has a token without the scheme Bearer", ErrNoToken)

// missingToken returns the ErrNoToken for a request without an access token.
func (v *Verifier) missingToken(r *http.Request) error {
	if slices.Contains(v.extractors, FromBearer()) {
		for _, h := range r.Header["Authorization"] {
			// A token begins with "eyJ", the start of a JSON object in base64, and
			// has two dots. Nothing need separate it from the scheme.
			token := h[strings.LastIndexAny(h, " \t")+1:]
			if strings.HasPrefix(token, "eyJ") || strings.Contains(token, "eyJ") && strings.Count(token, ".") == 2 {
				return &describedError{errNoScheme, "the Authorization header has a token without the scheme Bearer; send Authorization: Bearer, a space, and the token"}
			}
		}
	}
	return v.noToken.forRequest(r)
}

// noTokenErrors are the errors for a request without a token. They exist from
// the start, because Optional needs one for most anonymous requests.
type noTokenErrors struct{ usual, overHTTP error }

// newNoTokenErrors returns the errors for a request without a token of a kind in
// the given places, which may include the Secure cookies of jar.
func newNoTokenErrors(kind string, places []string, jar *cookieJar, cookies bool) noTokenErrors {
	text := "no " + kind + " token in " + alternatives(places)
	e := noTokenErrors{noTokenError(text), nil}
	if e.overHTTP = e.usual; cookies && jar != nil && jar.access.Secure {
		e.overHTTP = noTokenError(text + "; browsers send the cookie only over https")
	}
	return e
}

func noTokenError(text string) error {
	return &describedError{fmt.Errorf("%w: %s", ErrNoToken, text), text}
}

// forRequest returns the error for r. It says that the cookie needs https if
// this may be why it is missing.
func (e *noTokenErrors) forRequest(r *http.Request) error {
	if e.usual != e.overHTTP && mayBePlainHTTP(r) { //nolint:errorlint // compared by identity
		return e.overHTTP
	}
	return e.usual
}

// mayBePlainHTTP reports whether a browser may have sent the request over http
// to a host that is not a loopback host, and therefore without Secure cookies.
// Browsers send Sec-Fetch-Site over https.
func mayBePlainHTTP(r *http.Request) bool {
	return r.TLS == nil && r.Header["Sec-Fetch-Site"] == nil && !isLoopback(hostname(r))
}

// isQueryName reports whether s is UTF-8 without spaces, control characters or
// invisible characters, and not empty.
func isQueryName(s string) bool {
	return s != "" && isPlainText(s) && !strings.Contains(s, " ") && !strings.ContainsFunc(s, isInvisible)
}

// headerUse returns the end of an error text that says why the token cannot be
// in the header with this canonical name, or "" if it can. A proxy or a browser
// sets these headers, or removes them, or writes them to logs.
func headerUse(name string) string {
	const ownHeader = "; use FromBearer, or a header of your own such as X-Access-Token"
	switch name {
	case "Authorization":
		return "has a scheme before the token; use FromBearer"
	case "Cookie":
		return "contains all cookies; use FromCookie"
	case "Refresh-Token", headerRetryKey:
		return "is for refresh tokens" + ownHeader
	case "Sec-Websocket-Protocol": // the only header that a script can set for a WebSocket
		return ""
	case
		// The connection and the message (RFC 9110, RFC 9112, RFC 9113).
		"Connection", "Date", "Expect", "Host", "Http2-Settings", "Keep-Alive", "Max-Forwards", "Te", "Trailer", "Transfer-Encoding",
		"Upgrade", "Via", "Alt-Used", "Early-Data",
		// Content, caches and responses.
		"Age", "Allow", "Cache-Control", "Etag", "Expires", "Last-Modified", "Link", "Location", "Pragma", "Range", "Retry-After",
		"Server", "Set-Cookie", "Vary", "Warning", "Www-Authenticate",
		// What browsers say about themselves, the user or the page.
		"Dnt", "Dpr", "Downlink", "Ect", "From", "Last-Event-Id", "Origin", "Ping-From", "Ping-To", "Priority", "Purpose", "Referer",
		"Rtt", "Save-Data", "Service-Worker", "Upgrade-Insecure-Requests", "User-Agent", "Viewport-Width", "Width", "X-Requested-With",
		// What proxies say about the client or the original request.
		"Cdn-Loop", "Cf-Connecting-Ip", "Cf-Connecting-Ipv6", "Cf-Ipcountry", "Cf-Pseudo-Ipv4", "Cf-Ray", "Cf-Visitor", "Client-Ip",
		"Fastly-Client-Ip", "Fly-Client-Ip", "Forwarded", "Forwarded-For", "Remote-Addr", "True-Client-Ip", "X-Appengine-User-Ip",
		"X-Azure-Clientip", "X-Azure-Socketip", "X-Client-Ip", "X-Cluster-Client-Ip", "X-Envoy-External-Address", "X-Forwarded", "X-Host",
		"X-Original-Forwarded-For", "X-Original-Host", "X-Original-Method", "X-Original-Uri", "X-Original-Url", "X-Proxyuser-Ip",
		"X-Real-Ip", "X-Remote-Addr", "X-Remote-Ip", "X-Rewrite-Url", "X-Scheme",
		// Names of requests, which are written to logs.
		"Baggage", "Traceparent", "Tracestate", "X-Amzn-Trace-Id", "X-Cloud-Trace-Context", "X-Correlation-Id", "X-Request-Id",
		"X-Http-Method-Override":
		return "has another meaning" + ownHeader
	}
	for _, prefix := range [...]string{"Accept", "Access-Control-", "Content-", "If-", "Proxy-", "Sec-", "X-Forwarded-"} {
		if strings.HasPrefix(name, prefix) {
			return "has another meaning" + ownHeader
		}
	}
	return ""
}

// varyOf returns the Vary header for responses to requests in which es look for
// tokens, or nil.
func varyOf(es []Extractor) []string {
	var names []string
	for _, e := range es {
		if e.source != inQuery {
			names = append(names, e.name)
		}
	}
	if names == nil {
		return nil
	}
	return []string{strings.Join(names, ", ")}
}

// isToken reports whether s is a token as defined in RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// find returns the token in a place other than a cookie, or "".
func (e Extractor) find(r *http.Request) (string, error) {
	switch e.source {
	case inBearer:
		return bearer(r.Header["Authorization"])
	case inHeader:
		return singleValue(r.Header[e.name])
	case inQuery:
		values, ok := queryValues(r, e.name)
		if !ok {
			return "", requestError("the token in the query is malformed")
		}
		return singleValue(values)
	}
	return "", nil
}

// findAll returns every value that may be a token, even if find returns an error
// for it. It does not search cookies. It is for a logout.
func (e Extractor) findAll(r *http.Request) []string {
	var values []string
	switch e.source {
	case inBearer:
		for _, h := range r.Header["Authorization"] {
			if rest, ok := cutBearer(h); ok {
				values = append(values, splitTokens(rest)...)
			}
		}
	case inHeader:
		for _, h := range r.Header[e.name] {
			values = append(values, splitTokens(h)...)
		}
	case inQuery:
		values, _ = queryValues(r, e.name)
	}
	return values
}

// splitTokens splits the value of a header at spaces, tabs and commas. Nearly
// every value is a single token.
func splitTokens(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ' ' || c == ',' || c == '\t' })
}

// queryValues returns the values of a query parameter that are well-formed, and
// whether all of its values are. It ignores other parameters.
func queryValues(r *http.Request, name string) (values []string, ok bool) {
	raw := r.URL.RawQuery
	if !strings.Contains(raw, name) && !strings.ContainsAny(raw, "%+") { // the usual case
		return nil, true
	}
	ok = true
	readPairs(raw, func(key, value string, readable bool) {
		switch {
		case key != name:
		case readable:
			values = append(values, value)
		default:
			ok = false
		}
	})
	return values, ok
}

// readPairs calls pair for each field of a query or a form. Fields are split as
// by url.ParseQuery. readable is false for a field that is malformed, and its
// key is "" if the key is malformed.
func readPairs(raw string, pair func(key, value string, readable bool)) {
	for raw != "" {
		var field string
		if field, raw, _ = strings.Cut(raw, "&"); field == "" {
			continue
		}
		key, value, _ := strings.Cut(field, "=")
		key, err := url.QueryUnescape(key)
		if err != nil {
			pair("", "", false)
			continue
		}
		value, err = url.QueryUnescape(value)
		pair(key, value, err == nil && !strings.Contains(field, ";"))
	}
}

// cutBearer returns the part of an Authorization header after the scheme, and
// whether the scheme is Bearer.
func cutBearer(header string) (rest string, ok bool) {
	const scheme = "Bearer"
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return "", false
	}
	rest = header[len(scheme):]
	if rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return "", false // another scheme, whose name begins with Bearer
	}
	return rest, true
}

// bearer returns the bearer token in the Authorization headers, or "". It
// returns an error if there is more than one.
func bearer(headers []string) (token string, err error) {
	for _, h := range headers {
		rest, ok := cutBearer(h)
		if !ok {
			continue
		}
		rest = strings.Trim(rest, " ")
		switch {
		case rest == "", len(rest) <= maxToken && hasSeparator(rest): // a longer one is refused later
			return "", requestError("the Authorization header must contain one bearer token")
		case token != "":
			return "", requestError("more than one bearer token")
		}
		token = rest
	}
	return token, nil
}

// hasSeparator reports whether s contains a separator of tokens. Three calls of
// IndexByte are much faster than one of IndexAny.
func hasSeparator(s string) bool {
	return strings.IndexByte(s, ' ') >= 0 || strings.IndexByte(s, ',') >= 0 || strings.IndexByte(s, '\t') >= 0
}

// singleValue returns the only value, or "" if there is none. It returns an
// error if there are several.
func singleValue(values []string) (string, error) {
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", requestError("more than one token in a header or query parameter")
	}
	return values[0], nil
}
