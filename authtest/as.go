package authtest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/ratchet-go/auth"
)

// Option is an option of [As] and [Tokens].
type Option func(*options)

type options struct {
	session          auth.SessionOptions
	expired, revoked bool
	age              time.Duration
}

// Expired says that the access token has expired, and that the session has not:
// the client has not sent a request for a while, and can refresh its tokens. The
// login was AccessTTL and a second ago, or as long ago as [LoginAge] says if that
// is longer.
func Expired() Option { return func(o *options) { o.expired = true } }

// Revoked says that the session has been revoked since the login.
func Revoked() Option { return func(o *options) { o.revoked = true } }

// LoginAge says that the login was d ago, for handlers that require a recent login
// ([auth.Fresh]). The client has refreshed its tokens since. d must be less than
// SessionTTL.
func LoginAge(d time.Duration) Option { return func(o *options) { o.age = d } }

// Session sets the options of the session, such as its device, the authentication
// methods of the login (AMR), its lifetimes, and the user who acts for this one
// (Actor). Without it, the user has signed in with a password.
//
// AMR says how the user has signed in, for example with "pwd", "otp" and "mfa": there
// is no second step, even if Config.SecondFactor is set. Config.Users need not know
// the Actor either.
func Session(s auth.SessionOptions) Option {
	return func(o *options) {
		if len(s.AMR) == 0 {
			s.AMR = o.session.AMR
		}
		o.session = s
	}
}

// As signs r in as the user u, and returns r. It starts a session and adds its
// tokens to r: as cookies if Config.Cookies is set, or else the access token as a
// bearer token. They replace the tokens that r had. With cookies, r also
// gets the header Sec-Fetch-Site of a request by a page of the same origin,
// unless r has this header or an Origin. For a client that keeps cookies, put
// r.Cookies in its jar; see the example of [Clock.Advance].
//
// As does not say whether a browser loads a page or a script sends r, which
// matters to [auth.RedirectToLogin] and to a logout. A request with cookies loads a
// page if the test sets the header Accept to text/html, or Sec-Fetch-Mode to
// navigate.
//
// The access token has the Username, Roles, Scopes and Extra of u. Config.Users
// need not know u: As then adds u, so that its tokens can be refreshed. If u is
// Disabled, the user was disabled after the login. A refresh of a user whom
// Config.Users knows gets what Config.Users returns, as in production.
//
// As reports an error with t.Fatal.
func As(t testing.TB, a *Authenticator, r *http.Request, u auth.User, opts ...Option) *http.Request {
	t.Helper()
	tokens := Tokens(t, a, u, opts...)
	if a.access.Name == "" {
		r.Header.Set("Authorization", "Bearer "+tokens.Access)
	} else {
		a.setCookies(r, tokens)
	}
	if found, _, err := a.AccessToken(r); errors.Is(err, auth.ErrNoToken) || err == nil && found != tokens.Access {
		t.Fatalf("authtest.As: Config.Extractors do not find the access token, which As sends as a cookie if Config.Cookies is set, or else in the header Authorization; put the result of Tokens where they look")
	}
	return r
}

// setCookies replaces the tokens of r by cookies.
func (a *Authenticator) setCookies(r *http.Request, tokens auth.Tokens) {
	r.Header.Del("Authorization")
	others := r.Cookies()
	r.Header.Del("Cookie")
	for _, c := range others {
		if c.Name != a.access.Name && c.Name != a.refresh.Name {
			r.AddCookie(c)
		}
	}
	r.AddCookie(&http.Cookie{Name: a.access.Name, Value: tokens.Access})
	r.AddCookie(&http.Cookie{Name: a.refresh.Name, Value: tokens.Refresh})
	if r.Header.Get("Origin") == "" && r.Header.Get("Sec-Fetch-Site") == "" {
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
}

// Tokens starts a session of the user u as [As] does, and returns its tokens. It
// is for requests that As cannot sign in, such as a refresh with the token in the
// body.
func Tokens(t testing.TB, a *Authenticator, u auth.User, opts ...Option) auth.Tokens {
	t.Helper()
	o := options{session: auth.SessionOptions{AMR: []string{"pwd"}}}
	for _, opt := range opts {
		opt(&o)
	}
	tokens, err := a.signIn(u, &o)
	if err != nil {
		t.Fatalf("authtest: signing in the user %q: %v", u.ID, err)
	}
	return tokens
}

func (a *Authenticator) signIn(u auth.User, o *options) (auth.Tokens, error) {
	enabled := u
	enabled.Disabled = false
	ctx := context.Background()
	as := context.WithValue(ctx, signingKey{}, signing{enabled, o.session.Actor})
	start := a.StartSession
	if o.expired || o.age != 0 {
		start = func(ctx context.Context, id string, _ auth.SessionOptions) (auth.Tokens, error) {
			return a.startEarlier(ctx, id, o)
		}
	}
	tokens, err := start(as, u.ID, o.session)
	if err != nil {
		return auth.Tokens{}, err
	}
	a.users.add(ctx, u)
	if o.session.Actor != "" {
		a.users.addActor(ctx, o.session.Actor)
	}
	if o.revoked {
		err = a.Revoke(ctx, u.ID, tokens.SessionID)
	}
	return tokens, err
}

// startEarlier starts a session in the past. It does so with an Authenticator
// of the same configuration and store whose clock has another time, because
// other tests may be using the clock of a.
func (a *Authenticator) startEarlier(ctx context.Context, id string, o *options) (auth.Tokens, error) {
	if o.age < 0 {
		return auth.Tokens{}, fmt.Errorf("LoginAge (%s) is negative", o.age)
	}
	access, err := a.accessTTL()
	if err != nil {
		return auth.Tokens{}, err
	}
	now := a.Clock.Now()
	issued, at := now, now.Add(-o.age)
	if o.expired {
		issued = now.Add(-access - time.Second)
		at = earlier(at, issued)
	}
	c := a.config
	c.Now = func() time.Time { return at }
	past, err := auth.New(c)
	if err != nil {
		return auth.Tokens{}, err
	}
	tokens, err := past.StartSession(ctx, id, o.session)
	for err == nil && at.Before(issued) {
		next := earlier(tokens.RefreshExpiresAt.Add(-time.Millisecond), issued) // after the cooldown
		if !next.After(at) {
			err = auth.ErrTokenExpired
			break
		}
		at = next
		tokens, err = past.Refresh(ctx, tokens.Refresh, auth.RefreshOptions{Device: o.session.Device})
	}
	if errors.Is(err, auth.ErrTokenExpired) {
		err = fmt.Errorf("LoginAge (%s) is longer than a session can live: %w", o.age, err)
	}
	if err != nil {
		return auth.Tokens{}, err
	}
	// The keys may have changed since New, and revocations may have moved the
	// times of the token.
	claims, err := a.Verify(ctx, tokens.Access)
	switch {
	case errors.Is(err, auth.ErrInvalidToken):
		err = fmt.Errorf("Expired and LoginAge use the keys that New was called with: %w", err)
	case o.expired && errors.Is(err, auth.ErrTokenExpired):
		err = nil
	case err == nil && claims.AuthTime.Unix() != now.Add(-o.age).Unix():
		err = fmt.Errorf("the login was at %s, and not %s ago", claims.AuthTime, o.age)
	}
	if err == nil && !tokens.RefreshExpiresAt.After(now) {
		err = fmt.Errorf("the session ended at %s, because LoginAge is too long or its lifetimes are too short", tokens.RefreshExpiresAt)
	}
	return tokens, err
}

// accessTTL returns AccessTTL with its default.
func (a *Authenticator) accessTTL() (time.Duration, error) {
	now := a.Clock.Now().Truncate(time.Second)
	c := a.config
	c.Now = func() time.Time { return now }
	c.Store, c.OnEvent = auth.NewMemoryStore(), func(context.Context, auth.Event) {}
	c.OnLogin, c.Claims = nil, nil // do not call them for a user of whom the application knows nothing
	probe, err := auth.New(c)
	if err != nil {
		return 0, err
	}
	const id = "authtest"
	ctx := context.WithValue(context.Background(), signingKey{}, signing{user: auth.User{ID: id}})
	tokens, err := probe.StartSession(ctx, id, auth.SessionOptions{})
	return tokens.AccessExpiresAt.Sub(now), err
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
