package auth

import (
	"net/http"
	"strconv"
	"time"

	"github.com/ratchet-go/auth/internal/strictjson"
	"github.com/ratchet-go/auth/password"
)

// responseRow is one row of the table from errors to HTTP.
type responseRow struct {
	err       error
	status    int
	code      string // the error member of the body
	challenge string // the error attribute of WWW-Authenticate; "-": a challenge without it; "": no challenge
	action    string // what the client should do: "refresh", "login" or ""; see also errorParts.factor
	text      string // error_description
}

const codeMissing = "missing_token"

// responses maps errors to responses. If an error wraps several of these, the
// first row applies.
var responses = [...]responseRow{
	{password.ErrBusy, 503, "temporarily_unavailable", "", "", "too many logins at once; try again"},
	{errNotRunning, 503, "temporarily_unavailable", "", "", "the server does not read revocations yet: it must call Run"},
	{ErrUnavailable, 503, "temporarily_unavailable", "", "", "try again"},
	{errCookieTooLarge, 500, "token_too_large", "", "", "the token is too large for a cookie; the request cannot succeed until the server is changed"},
	{ErrCrossOrigin, 403, "cross_origin", "", "", "the request comes from an origin that is not trusted; the server must list it in Cookies.TrustedOrigins"},
	{errTooLarge, 413, "invalid_request", "", "", "the request body is too large"},
	{errContentType, 415, "invalid_request", "", "", "the body must be application/json or application/x-www-form-urlencoded, in UTF-8"},
	{errMethod, 405, "invalid_request", "", "", "the method is not allowed here"},
	{errEndpoint, 404, "not_found", "", "", "there is no such endpoint"},
	{errTwoSessions, 400, "invalid_request", "", "login", "the credentials are of two sessions"},
	{ErrInvalidRequest, 400, "invalid_request", "", "", "the request is malformed"},
	{ErrSessionNotFound, 404, "not_found", "", "", "no such session"},
	{errCurrentPassword, 403, "invalid_credentials", "", "", "the current password is wrong"},
	{ErrThrottled, 429, "too_many_attempts", "", "", "too many failed attempts; try again later"},
	{ErrInvalidCredentials, 401, "invalid_credentials", "", "login", "login or password is wrong"},
	{ErrFactorRequired, 401, "factor_required", "", "login", "a second factor is required"}, // a FactorError sets the action
	{ErrSpent, 400, "used_token", "", "", "it was used before, and can be used only once"},
	{ErrNoToken, 401, codeMissing, "-", "login", "a token is required"},
	{ErrTokenReused, 401, "invalid_token", "invalid_token", "login", "the session has ended"},
	{ErrSessionRevoked, 401, "invalid_token", "invalid_token", "login", "the session has ended"},
	{ErrTokenExpired, 401, "invalid_token", "invalid_token", "refresh", "the token has expired"},
	{ErrInvalidToken, 401, "invalid_token", "invalid_token", "login", "the token is not valid"},
	{ErrReauthenticate, 401, "insufficient_user_authentication", "insufficient_user_authentication", "login", "a more recent login is required"},
	{ErrTooManySessions, 409, "too_many_sessions", "", "", "the user has too many sessions; sign out elsewhere first"},
	{ErrForbidden, 403, "insufficient_scope", "insufficient_scope", "", "the token does not permit this"},
	{password.ErrMismatch, 401, "invalid_credentials", "", "login", "login or password is wrong"},
	{ErrUserNotFound, 401, "invalid_credentials", "", "login", "login or password is wrong"}, // the same text, so that it does not say which
	{password.ErrRefused, 422, "password_refused", "", "", "the new password is not accepted; choose another one"},
	{password.ErrTooLong, 400, "invalid_request", "", "", "the password is longer than 1024 bytes"},
	{password.ErrEmpty, 400, "invalid_request", "", "", "the password is empty"},
}

var internalResponse = responseRow{nil, 500, "server_error", "", "", "the server could not do this"}

// errorParts has what scan finds in the tree of an error.
type errorParts struct {
	row     int // index in responses of the first row whose error is in the tree
	grant   bool
	oneTime bool
	ticket  bool
	factor  *FactorError
	wait    time.Duration // of a throttledError
	request requestError
	fresh   *freshError
	scope   *scopeError
	amr     *amrError

	description string // replaces the text of the row; "" if there is none
	cause       string // the cause of a tokenError or malformed
	reported    bool   // an event was emitted for the error
	revoked     *revokedError
	resource    string // of a resourceError
}

// scan walks the tree of an error once. errors.Is and errors.As would walk it for
// each row and type, which takes longer than the rest of refusing a request.
func (f *errorParts) scan(err error) {
	switch e := err.(type) { //nolint:errorlint // scan replaces errors.As
	case grantError:
		f.grant = true
	case *FactorError:
		if f.factor == nil {
			f.factor = e
		}
	case *throttledError:
		f.wait = max(f.wait, e.wait)
	case oneTimeError:
		f.oneTime = true
	case ticketError:
		f.ticket = true
	case requestError:
		if f.request == "" {
			f.request = e
		}
	case *resourceError:
		if f.resource == "" {
			f.resource = e.metadata
		}
	case *describedError:
		f.describe(e.description)
	case *tokenError:
		f.describe(e.description)
		f.cause = e.cause
	case malformed:
		f.cause = string(e)
		f.describe(e.description())
	case reportedError:
		f.reported = true
	case *freshError:
		if f.fresh == nil {
			f.fresh = e
		}
	case *amrError:
		if f.amr == nil {
			f.amr = e
		}
	case *scopeError:
		if f.scope == nil {
			f.scope = e
		}
	case *revokedError:
		if f.revoked == nil {
			f.revoked = e
		}
	}
	is, hasIs := err.(interface{ Is(error) bool })
	for i := range responses[:f.row] {
		if err == responses[i].err || hasIs && is.Is(responses[i].err) { //nolint:errorlint // scan replaces errors.Is
			f.row = i
			break
		}
	}
	switch e := err.(type) { //nolint:errorlint // scan replaces errors.As
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			f.scan(inner)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			if inner != nil {
				f.scan(inner)
			}
		}
	}
}

func (f *errorParts) describe(text string) {
	if f.description == "" {
		f.description = text
	}
}

// retryAfter is the value of Retry-After with status 503.
const retryAfter = time.Second

// ErrorResponse is the HTTP response to an error.
type ErrorResponse struct {
	Status      int
	Code        string // "error" in the body
	Description string // "error_description" in the body; contains no internal details
	Action      string // what the client should do: "refresh", "login", "factor" or ""
	Challenge   string // WWW-Authenticate (RFC 6750 section 3, RFC 9470 section 3, RFC 9728 section 5.1), or ""

	// Reason is "reason" in the body: for a token that was revoked, why; see
	// [Revocation].Reason. It is "" if that is not known, or no longer, and for
	// all other errors.
	Reason string

	// RetryAfter is the header Retry-After, in whole seconds: a second with status
	// 503, and the wait with status 429, from a second to 15 minutes. It is 0 for
	// all other errors.
	RetryAfter time.Duration

	// Factor is set if Action is "factor": the client sends a response to the
	// challenge in Factor.Challenge, which is not the Challenge above. The body has
	// "challenge", "methods" and "expires_in" (in seconds) of Factor.
	Factor *FactorError
}

// ResponseFor returns the response to an error of this package. For any other
// error it returns status 500 without details. Use it in a Config.OnError that
// writes its own bodies. It also accepts the cause of a context that
// [Verifier.SessionContext] has canceled.
func ResponseFor(err error) ErrorResponse {
	f := errorParts{row: len(responses)}
	if err != nil {
		f.scan(err)
	}
	return f.response()
}

func (f *errorParts) response() ErrorResponse {
	row := internalResponse
	if f.row < len(responses) {
		row = responses[f.row]
	}
	if f.ticket && (f.is(ErrSpent) || f.is(ErrInvalidToken)) {
		row.status, row.challenge, row.action = http.StatusUnauthorized, "invalid_token", "refresh"
	}
	a := ErrorResponse{Status: row.status, Code: row.code, Description: row.text, Action: row.action}
	if f.amr != nil && row.err == ErrReauthenticate { //nolint:errorlint // of this table
		row.text = f.amr.text
		a.Description = row.text
	}
	if f.description != "" {
		a.Description = f.description
	}
	switch row.status {
	case http.StatusServiceUnavailable:
		a.RetryAfter = retryAfter
	case http.StatusTooManyRequests:
		a.RetryAfter = max(retryAfter, (f.wait + time.Second - 1).Truncate(time.Second))
		if f.wait > 0 {
			a.Description = "too many failed attempts; try again in " + waitText(a.RetryAfter)
		}
	}
	switch {
	case row.err == ErrTokenReused: //nolint:errorlint // of this table
		a.Reason = reasonReuse.String()
	case f.revoked != nil && row.status == http.StatusUnauthorized:
		a.Reason = f.revoked.reason.String()
	}
	if f.factor != nil && row.status == http.StatusUnauthorized {
		a.Action, a.Factor = "factor", f.factor
		if f.factor.wrong {
			a.Description = "the response to the second factor is wrong"
		}
		return a
	}
	if f.oneTime && row.status == http.StatusUnauthorized {
		a.Status, a.Action = http.StatusBadRequest, ""
		if row.err == ErrTokenExpired { //nolint:errorlint // of this table
			a.Code = "expired_token" // as in RFC 8628 section 3.5
		}
		return a
	}
	if f.request != "" {
		a.Description = string(f.request)
	} else if f.grant && (row.status == http.StatusUnauthorized || f.is(ErrSpent)) {
		a.Status, a.Code, a.Action = http.StatusUnauthorized, "invalid_grant", "login"
		if row.code == codeMissing {
			a.Status, a.Code = http.StatusBadRequest, "invalid_request"
		}
		return a
	}
	switch row.challenge {
	case "":
		return a
	case "-":
		a.Challenge = "Bearer"
		if f.resource != "" {
			a.Challenge += ` resource_metadata="` + f.resource + `"`
		}
		return a
	}
	a.Challenge = `Bearer error="` + row.challenge + `", error_description="` + row.text + `"`
	if f.resource != "" {
		a.Challenge += `, resource_metadata="` + f.resource + `"`
	}
	if f.fresh != nil {
		a.Challenge += `, max_age="` + strconv.FormatInt(max(0, int64(f.fresh.maxAge/time.Second)), 10) + `"`
	}
	if f.scope != nil && f.scope.scope != "" {
		a.Challenge += `, scope="` + f.scope.scope + `"`
	}
	return a
}

// waitText returns d, in whole seconds, as a user reads it: in seconds up to a minute,
// or else in minutes, rounded up.
func waitText(d time.Duration) string {
	n, unit := int64(d/time.Second), "second"
	if d > time.Minute {
		n, unit = int64((d+time.Minute-1)/time.Minute), "minute"
	}
	if n != 1 {
		unit += "s"
	}
	return strconv.FormatInt(n, 10) + " " + unit
}

// SetHeaders sets Cache-Control: no-store and, where they apply, WWW-Authenticate
// and Retry-After. It does not set the status.
func (a ErrorResponse) SetHeaders(h http.Header) {
	set := headerSetter{h: h}
	a.setHeaders(&set)
}

func (a ErrorResponse) setHeaders(set *headerSetter) {
	set.to("Cache-Control", "no-store")
	if a.Challenge != "" {
		set.to("Www-Authenticate", a.Challenge)
	}
	if a.RetryAfter > 0 {
		set.to("Retry-After", strconv.FormatInt(int64(a.RetryAfter/time.Second), 10))
	}
}

// headerSetter sets headers with one allocation for all values.
type headerSetter struct {
	h      http.Header
	values []string
}

// to sets a header. The name must be in canonical form.
func (s *headerSetter) to(name, value string) {
	if len(s.values) == cap(s.values) {
		s.values = make([]string, 0, 5)
	}
	s.values = append(s.values, value)
	n := len(s.values)
	s.h[name] = s.values[n-1 : n : n]
}

// DefaultOnError responds to a request with the status and headers of
// [ResponseFor] and a JSON body {"error","error_description","action","reason"},
// without the members that are empty. For a second factor it has "challenge",
// "methods" and "expires_in" too. It does not set or clear cookies.
func DefaultOnError(w http.ResponseWriter, _ *http.Request, err error) {
	ResponseFor(err).write(w)
}

func (a ErrorResponse) write(w http.ResponseWriter) {
	body := strictjson.NewWriter(make([]byte, 0, 160))
	body.String("error", a.Code)
	body.String("error_description", a.Description)
	if a.Action != "" {
		body.String("action", a.Action)
	}
	if a.Reason != "" {
		body.String("reason", a.Reason)
	}
	if a.Factor != nil {
		body.String("challenge", a.Factor.Challenge)
		body.Strings("methods", a.Factor.Methods)
		body.Int("expires_in", a.Factor.expiresIn)
	}
	set := headerSetter{h: w.Header()}
	a.setHeaders(&set)
	writeBody(w, &set, a.Status, body.Close())
}

// writeBody writes a response with a JSON body that must not be cached.
func writeBody(w http.ResponseWriter, set *headerSetter, status int, body []byte) {
	set.to("Content-Type", "application/json; charset=utf-8")
	set.to("Cache-Control", "no-store")
	set.to("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // fails only if the client has gone
}
