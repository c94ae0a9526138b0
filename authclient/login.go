package authclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// Error is a response of an endpoint that is an error.
type Error struct {
	Status      int    // of the response
	Code        string // "error", such as "invalid_credentials"; "" if the body is not that of package auth
	Description string // "error_description", a text for users
	Action      string // "login", "factor" or ""
	Reason      string // why a session has ended, such as "reuse"; "" if that is not known

	// Methods are the methods of the second factor, if Action is "factor".
	Methods []string

	// RetryAfter is how long the client must wait. It is 0 without the header
	// Retry-After.
	RetryAfter time.Duration
}

// Error returns the status, the code and the description.
func (e *Error) Error() string {
	text := fmt.Sprintf("authclient: the server responded with status %d", e.Status)
	for _, detail := range []string{e.Code, e.Description} {
		if detail != "" {
			text += ": " + detail
		}
	}
	return text
}

// Login signs in: it posts fields to the endpoint /login and saves the tokens of
// the response. They replace those that the Store has, whose session goes on; call
// [Transport.Logout] first to end it. The fields are "login" and "password", and
// optionally "device", the name of the device in the user's list of sessions.
//
// If the server refuses the login, the error is an [*Error]. Its Action is "factor"
// if a second factor is required: call [Transport.LoginFactor] with one of its
// Methods. If its Status is 429, nothing was checked; show its Description, and let
// the user try again after RetryAfter. Login repeats nothing. If the Store does not
// respond, Login sends nothing.
func (t *Transport) Login(ctx context.Context, fields map[string]string) error {
	t.mu.Lock()
	t.challenge = nil // it may be that of another user
	t.mu.Unlock()
	return t.login(ctx, "/login", fields)
}

// LoginFactor completes a login that needs a second factor, with the user's
// response to a method. The last Login of this Transport has the challenge, which
// is never saved.
//
// The error is an [*Error] if the server refuses the response. If its Action is
// "factor", the response is wrong: ask again. If it is "login", the challenge
// has expired or was used, or too many responses were wrong: call Login again. If
// its Status is 429 or 503, call LoginFactor again after RetryAfter.
func (t *Transport) LoginFactor(ctx context.Context, method, response string) error {
	t.mu.Lock()
	challenge := t.challenge
	t.mu.Unlock()
	if challenge == nil {
		return errors.New("authclient: LoginFactor was called without a Login that needs a second factor")
	}
	return t.login(ctx, "/login/factor", map[string]string{"challenge": challenge(), "method": method, "response": response})
}

func (t *Transport) login(ctx context.Context, endpoint string, fields map[string]string) error {
	// A login whose tokens cannot be saved would leave a session that nobody can end.
	if err := t.store.Update(ctx, func(old []byte) ([]byte, error) { return old, nil }); err != nil {
		return fmt.Errorf("authclient: before the login: %w", err)
	}
	form := url.Values{"delivery": {"body"}} // not cookies
	for name, value := range fields {
		form.Set(name, value)
	}
	asked := t.now()
	body, err := t.post(ctx, endpoint, http.StatusOK, nil, form)
	if err != nil {
		return err
	}
	answer, err := readAnswer(body)
	if err != nil {
		return fmt.Errorf("authclient: %w", err)
	}
	text, err := json.Marshal(t.stateOf(answer, asked))
	if err != nil {
		return err
	}
	if err := t.store.Update(ctx, func([]byte) ([]byte, error) { return text, nil }); err != nil {
		return fmt.Errorf("authclient: saving the tokens: %w", err)
	}
	t.mu.Lock()
	t.challenge = nil
	t.mu.Unlock()
	return nil
}

// Logout ends the session, and removes its tokens. If there are none, it does
// nothing. If the server does not confirm the end, Logout returns an error and keeps
// the tokens, so that it can be called again.
func (t *Transport) Logout(ctx context.Context) error {
	s, err := t.load(ctx)
	if errors.Is(err, ErrSignedOut) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := t.post(ctx, "/logout", http.StatusNoContent, http.Header{"Refresh-Token": {s.Refresh}}, nil); err != nil {
		return err
	}
	err = t.update(ctx, func(now *state) {
		if now.Session == s.Session { // not a login of another process
			*now = state{}
		}
	})
	if err != nil {
		return fmt.Errorf("authclient: the session has ended, but its tokens could not be removed: %w", err)
	}
	return nil
}

// post sends a request to an endpoint, and returns the body of its response. Redirects
// are not followed. The error is an Error if the response has another status than
// want.
func (t *Transport) post(ctx context.Context, endpoint string, want int, header http.Header, form url.Values) ([]byte, error) {
	body := io.Reader(http.NoBody)
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url.String()+endpoint, body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Accept", "application/json")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		return nil, t.refusal(resp)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
}

// refusal returns the Error of a response, and keeps the challenge of a login that
// needs a second factor.
func (t *Transport) refusal(resp *http.Response) error {
	var body struct {
		Error       string
		Description string `json:"error_description"`
		Action      string
		Reason      string
		Challenge   string
		Methods     []string
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if json.Unmarshal(text, &body) != nil { // of a proxy
		body.Error, body.Description = "", http.StatusText(resp.StatusCode)
	}
	if body.Action == "factor" && body.Challenge != "" {
		challenge := body.Challenge
		t.mu.Lock()
		t.challenge = func() string { return challenge }
		t.mu.Unlock()
	}
	for i, method := range body.Methods {
		body.Methods[i] = printable(method)
	}
	return &Error{
		Status: resp.StatusCode, Code: printable(body.Error), Description: printable(body.Description), Action: printable(body.Action), Reason: printable(body.Reason),
		Methods: body.Methods, RetryAfter: retryAfter(resp.Header),
	}
}

// printable returns text without control characters, which a terminal would obey,
// and cut to 200 characters.
func printable(text string) string {
	n := 0
	return strings.Map(func(r rune) rune {
		if n++; n > 200 || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
}
