package auth

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ratchet-go/auth/internal/strictjson"
)

const (
	// purposeTicket is the purpose of tickets. An application cannot issue or check
	// a token of this purpose, because it contains a space.
	purposeTicket = "stream ticket"

	ticketTTL       = 30 * time.Second
	ticketParameter = "ticket"
)

// ticketGrant is what a ticket carries. It is zero in other one-time tokens.
type ticketGrant struct {
	path   string        // as canonicalPath returns it
	sealed []byte        // the payload of the access token, encrypted
	claims *parsedClaims // of sealed; nil until openClaims has read it
}

// write adds the claims of a ticket.
func (g *ticketGrant) write(w *strictjson.Writer) {
	if g.path != "" {
		w.String("path", g.path)
		w.String("sealed", base64.RawURLEncoding.EncodeToString(g.sealed))
	}
}

// read reads a claim that write wrote. known reports whether it is one, and ok
// whether its value is valid.
func (g *ticketGrant) read(name, value string) (known, ok bool) {
	switch name {
	case "path":
		g.path, ok = strictjson.String(value)
	case "sealed":
		var text string
		if text, ok = strictjson.String(value); ok {
			g.sealed, ok = decodeSegment(nil, text)
		}
	default:
		return false, false
	}
	return true, ok
}

// crypt encrypts or decrypts the payload of the access token in a ticket, so that
// a log of URLs does not contain it. The key belongs to this ticket only, because
// it depends on its ID. Its input contains spaces, so it never is the input of a
// signature. The signature of the ticket authenticates the result.
func (c *oneTimeClaims) crypt(k *key, text []byte) []byte {
	sum, _ := k.sign([]byte("ratchet ticket " + c.id)) // HMAC does not fail
	block, _ := aes.NewCipher(sum)                     // nor does a key of 32 bytes
	out := make([]byte, len(text))
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(out, text)
	return out
}

// openClaims reads the claims of the access token with which a ticket was issued.
// It does not compare its exp with the clock: the ticket has one of its own.
func (c *oneTimeClaims) openClaims(k *key, issuer string, audience []string) error {
	claims := new(parsedClaims)
	if _, err := readAccess(claims, string(c.crypt(k, c.ticket.sealed)), issuer, audience); err != nil {
		return err
	}
	c.ticket.claims = claims
	return nil
}

// TicketHandler handles POST with an access token. It responds with a ticket for a
// stream, such as server-sent events or a WebSocket:
//
//	{"ticket":"…","expires_in":30}
//
// The ticket is for clients that cannot send the access token in a header or a
// cookie, such as EventSource and WebSocket in a page of another site. It is a
// one-time token, which [Authenticator.RequireStream] accepts in the query of the
// stream's URL.
//
// TicketHandler reads "path", as JSON or as a form: the path of the stream's URL as
// the server receives it, which [LocalPath] accepts, without a query and a fragment.
// The ticket is bound to the path, and to the session of the access token. It lives
// for 30 seconds, but not longer than the session. A client asks for it immediately
// before it connects, each time.
//
// The ticket has the claims of the access token, encrypted. So its size is about 400
// bytes plus 1.8 times that of the claims. A ticket that would be larger than 8 KiB
// is refused with status 500. Many proxies limit the whole URL to 8 KiB.
func (a *Authenticator) TicketHandler() http.Handler {
	return a.endpoint(a.issueTicket, http.MethodPost)
}

func (a *Authenticator) issueTicket(w http.ResponseWriter, r *http.Request) error {
	a.setVary(w.Header())
	c, err := a.Authenticate(r)
	if err != nil {
		return err
	}
	f, err := ReadFields(r, "path")
	if err != nil {
		return err
	}
	path, ok := f["path"]
	switch {
	case !ok:
		return requestError("path is missing in the body")
	case LocalPath(path) != path || strings.ContainsAny(path, "?#"):
		return requestError("path must be the path of a stream of this site, such as /events, without query and fragment")
	}
	u, _ := url.Parse(path) // LocalPath has parsed it
	token, expires, err := a.signTicket(r.Context(), c, canonicalPath(u))
	if err != nil {
		return err
	}
	body := strictjson.NewWriter(make([]byte, 0, 64+len(token)))
	body.String("ticket", token)
	body.Int("expires_in", secondsLeft(expires, a.now()))
	writeBody(w, &headerSetter{h: w.Header()}, http.StatusOK, body.Close())
	return nil
}

// signTicket returns a ticket with verified claims, and when it expires.
func (a *Authenticator) signTicket(ctx context.Context, claims *Claims, path string) (token string, expires time.Time, err error) {
	now := a.now()
	c := oneTimeClaims{
		subject: claims.Subject, purpose: purposeTicket, id: randomID(), memoryID: a.memoryID,
		issuedAt: now, expiresAt: earlier(wholeSecond(now.Add(ticketTTL)), claims.SessionExpiresAt),
	}
	ring := a.oneTimeKeys.ring.Load()
	c.ticket = ticketGrant{path: path, sealed: c.crypt(ring.keys[ring.signer(now)].key, []byte(claims.payload))}
	token, err = ring.signToken(now, c.payload(a.issuer, a.audience))
	if err != nil {
		return "", time.Time{}, a.internalError(ctx, claims.session(), err)
	}
	return token, c.expiresAt, nil
}

// RequireStream is [Verifier.Require] for streams that a client opens with a GET,
// such as server-sent events and WebSockets. It also accepts a ticket of
// [Authenticator.TicketHandler] in the query parameter "ticket". The handler gets
// the claims of the access token with which the ticket was issued; their ExpiresAt
// may have passed. It ends the stream with [Verifier.SessionContext].
//
// A ticket is accepted once, on one node, for the path for which it was issued: that
// of the request before http.StripPrefix. The rest of the query is not bound to the
// ticket. A request with a ticket must be the handshake of a stream: a GET with
// Accept: text/event-stream, as EventSource sends it, or the opening handshake of a
// WebSocket (RFC 6455, or RFC 8441 over HTTP/2). Any other request with a ticket is
// refused with status 400 and spends nothing, so a prefetch or a program that scans
// links cannot use it up. Tokens in other places of a request with a ticket are
// ignored, and its origin is not checked: a browser adds no ticket by itself.
//
// A ticket that is not valid, has expired or was spent is refused with status 401
// and the action "refresh": the client refreshes its access token if necessary,
// gets another ticket, and connects again. If the session has ended, the action is
// "login". A ticket for another path is status 400. A ticket is spent last, after
// all guards. So a refusal by one of them, and an [ErrUnavailable], spend nothing,
// unless the store has spent the ticket and its response was lost. A source that
// sends many tickets without a valid signature gets [ErrThrottled] for further ones.
//
// The request that the handler or Config.OnError gets has no ticket in its URL. A proxy, and
// middleware around this one, may have logged it. It cannot be used again, and what
// it says of the user is encrypted, except Subject.
//
// A [Verifier] without an Authenticator has no store in which it could spend a
// ticket, so it has no RequireStream. Each Authenticator accepts only its own
// tickets and access tokens, even if its Verifier is part of an [AnyOf].
//
// RequireStream panics as Require does, and if Config.Extractors contains
// FromQuery("ticket").
func (a *Authenticator) RequireStream(guards ...Guard) func(http.Handler) http.Handler {
	entries := guardEntries("RequireStream", guards)
	if slices.Contains(a.extractors, FromQuery(ticketParameter)) {
		panic(`auth: RequireStream: Config.Extractors contains FromQuery("ticket"), but this parameter is for tickets; choose another name`)
	}
	return func(next http.Handler) http.Handler {
		checkHandler("RequireStream", next)
		byToken := a.require(entries, next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ticket, err := FromQuery(ticketParameter).find(r)
			if err == nil && ticket == "" {
				byToken.ServeHTTP(w, r)
				return
			}
			a.setVary(w.Header())
			a.setNoStore(w.Header())
			w.Header().Set("Referrer-Policy", "no-referrer")
			var ctx *requestContext
			var by guardRefusal
			if err == nil {
				ctx, by, err = a.useTicket(r, ticket, entries)
			}
			if err != nil {
				a.writeRefusal(w, withoutTicket(r.Context(), r), err, by) // the ticket may not be spent, and OnError may log the URL
				return
			}
			next.ServeHTTP(w, withoutTicket(ctx, r))
		})
	}
}

// useTicket verifies the ticket of a request and spends it. It returns the
// request's context together with the claims. What can refuse the request without
// spending the ticket comes first.
func (a *Authenticator) useTicket(r *http.Request, ticket string, guards []guardEntry) (ctx *requestContext, by guardRefusal, err error) {
	if !isHandshake(r) {
		return nil, by, requestError("a ticket is only for the handshake of a stream: a GET with Accept: text/event-stream, or a WebSocket handshake")
	}
	ctx = &requestContext{Context: r.Context()}
	c, _, err := a.openOneTime(ctx.Context, purposeTicket, ticket)
	if err != nil {
		if err := a.throttleForged(ctx.Context, a.Device(r), &c, err); err != nil {
			return nil, by, err
		}
		return nil, by, ticketError{err}
	}
	if c.ticket.path != canonicalPath(requestURL(r)) {
		return nil, by, requestError("the ticket is for another path")
	}
	c.ticket.claims.copyTo(&ctx.parsedClaims)
	ctx.verifiedAt = a.now()
	by.claims = &ctx.Claims
	if by.position, err = a.checkGuards(r, &ctx.Claims, guards); err != nil {
		return nil, by, err
	}
	if err := a.spendToken(ctx.Context, &c); err != nil {
		return nil, by, ticketError{err}
	}
	return ctx, by, nil
}

// isHandshake reports whether a request opens a stream.
func isHandshake(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet:
		return acceptsEvents(r) || isWebSocket(r)
	case http.MethodConnect: // RFC 8441; net/http adds this pseudo-header, which no client can send as a header
		return r.ProtoMajor >= 2 && r.Header.Get(":protocol") == "websocket"
	}
	return false
}

// acceptsEvents reports whether a request is for server-sent events.
func acceptsEvents(r *http.Request) bool {
	return hasElement(r.Header["Accept"], "text/event-stream")
}

// isWebSocket reports whether a GET is the opening handshake of a WebSocket (RFC
// 6455 section 4.2.1).
func isWebSocket(r *http.Request) bool {
	return r.ProtoAtLeast(1, 1) && hasElement(r.Header["Connection"], "upgrade") && hasElement(r.Header["Upgrade"], "websocket") &&
		r.Header.Get("Sec-Websocket-Key") != "" && r.Header.Get("Sec-Websocket-Version") == "13"
}

// hasElement reports whether a header whose value is a list (RFC 9110 section 5.6.1)
// contains an element, without its parameters and case.
func hasElement(values []string, want string) bool {
	for _, list := range values {
		for element := range strings.SplitSeq(list, ",") {
			name, _, _ := strings.Cut(element, ";")
			if strings.EqualFold(strings.Trim(name, " \t"), want) {
				return true
			}
		}
	}
	return false
}

// canonicalPath returns the path of a URL, with its segments encoded in one way. An
// encoded slash in a segment remains distinct from one between segments.
func canonicalPath(u *url.URL) string {
	segments := strings.Split(u.EscapedPath(), "/")
	for i, s := range segments {
		if text, err := url.PathUnescape(s); err == nil {
			segments[i] = url.PathEscape(text)
		}
	}
	return strings.Join(segments, "/")
}

// withoutTicket returns r with the context ctx and without the ticket.
func withoutTicket(ctx context.Context, r *http.Request) *http.Request {
	r = r.WithContext(ctx)
	u := *r.URL
	u.RawQuery = queryWithoutTicket(u.RawQuery)
	r.URL = &u
	if path, query, ok := strings.Cut(r.RequestURI, "?"); ok {
		if query = queryWithoutTicket(query); query != "" {
			query = "?" + query
		}
		r.RequestURI = path + query
	}
	r.Form = nil // middleware may have parsed the query; it is parsed again
	return r
}

func queryWithoutTicket(raw string) string {
	fields := strings.Split(raw, "&")
	return strings.Join(slices.DeleteFunc(fields, func(field string) bool {
		name, _, _ := strings.Cut(field, "=")
		name, err := url.QueryUnescape(name)
		return err == nil && name == ticketParameter
	}), "&")
}
