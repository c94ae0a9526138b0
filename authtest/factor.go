package authtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/ratchet-go/auth"
)

// Factors is a Config.SecondFactor for tests of an application's login. Its keys are
// methods, and its values are their right responses, which do not change:
//
//	authtest.Factors{"otp": "123456", "recovery": "abcd-efgh"}
//
// Every user can take the second step with each of the methods. If Factors is empty,
// nobody needs a second step.
type Factors map[string]string

// Methods returns the methods in alphabetical order.
func (f Factors) Methods(context.Context, auth.User, auth.Device) ([]string, error) {
	return slices.Sorted(maps.Keys(f)), nil
}

// Verify returns [auth.ErrInvalidCredentials] unless the response is that of the method.
func (f Factors) Verify(_ context.Context, _ auth.User, method, response string) error {
	if want, ok := f[method]; !ok || response != want {
		return auth.ErrInvalidCredentials
	}
	return nil
}

// FactorRequired returns the challenge of resp, the response to a login that needs a
// second step, or to a wrong response to the second factor. With the challenge, the test
// sends the next request to /login/factor. FactorRequired reports with t.Fatal if resp is
// not such a response, or if it sets or clears a token cookie. The body can be read again.
//
// It is for the responses of [auth.DefaultOnError]. A page has the challenge where the
// application has put it.
func FactorRequired(t testing.TB, a *Authenticator, resp *http.Response) (challenge string) {
	t.Helper()
	challenge, err := factorRequired(resp)
	if err != nil {
		t.Fatalf("authtest.FactorRequired: the response with status %d: %v", resp.StatusCode, err)
	}
	if a.access.Name != "" {
		CookiesUnchanged(t, a, resp)
	}
	return challenge
}

func factorRequired(resp *http.Response) (challenge string, err error) {
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", fmt.Errorf("reading its body: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(text))
	var body struct {
		Action    string   `json:"action"`
		Challenge string   `json:"challenge"`
		Methods   []string `json:"methods"`
	}
	_ = json.Unmarshal(text, &body) // an error leaves the fields empty
	switch {
	case body.Action != "factor":
		return "", fmt.Errorf(`the action in its body is %q, want "factor"`, body.Action)
	case resp.StatusCode != http.StatusUnauthorized:
		return "", errors.New("the status is not 401")
	case body.Challenge == "" || len(body.Methods) == 0:
		return "", errors.New("its body has no challenge, or no methods")
	}
	return body.Challenge, nil
}
