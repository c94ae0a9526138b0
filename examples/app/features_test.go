package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/hotp"
	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// features are the tests that also run on PostgreSQL. Each gets the browser of the
// owner and the names of users of its own, who have not signed up yet.
var features = map[string]func(t *testing.T, a *app, owner *browser, name string){
	"codes are accepted once":                codesAreAcceptedOnce,
	"contenders for one code":                contendersForOneCode,
	"recovery codes are accepted once":       recoveryCodesAreAcceptedOnce,
	"five wrong codes":                       fiveWrongCodes,
	"enrollment is forced":                   enrollmentIsForced,
	"verification by a link":                 verificationByALink,
	"reset by a link":                        resetByALink,
	"reset links end":                        resetLinksEnd,
	"acting":                                 acting,
	"acting ends with the administrator":     actingEndsWithTheAdministrator,
	"remember me":                            rememberMe,
	"key of a user who sets it up elsewhere": keyIsShownOnce,
}

func TestApp_Features(t *testing.T) {
	t.Parallel()
	for name, f := range features {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newApp(t)
			owner := a.signUp(t, "ada")
			a.dropMails(t)
			f(t, a, owner, "bob")
		})
	}
}

func TestApp_FeaturesOnPostgreSQL(t *testing.T) {
	database := postgres(t)
	t.Setenv("AUTH_SECRET", strings.TrimPrefix(secret, "AUTH_SECRET="))
	db, err := open(t.Context(), database)
	require.NoError(t, err)
	a := appOn(t, db)
	owner := a.signUp(t, "ada")
	i := 0
	for name, f := range features {
		i++
		t.Run(name, func(t *testing.T) {
			a.Clock.Advance(5 * time.Second)
			if owner.get("/admin").status != http.StatusOK {
				owner = a.signIn(t, "ada")
			}
			a.dropMails(t)
			f(t, a, owner, fmt.Sprint("user", i))
		})
	}
}

func (a *app) dropMails(t *testing.T) {
	t.Helper()
	require.NoError(t, os.RemoveAll(a.site.mails))
	require.NoError(t, os.Mkdir(a.site.mails, 0o700))
}

// mail returns the mail that was sent since the last call.
func (a *app) mail(t *testing.T) string {
	t.Helper()
	files, err := os.ReadDir(a.site.mails)
	require.NoError(t, err)
	require.Len(t, files, 1, "one mail was sent")
	file := filepath.Join(a.site.mails, files[0].Name())
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.Remove(file))
	return string(text)
}

func (a *app) noMail(t *testing.T) {
	t.Helper()
	files, err := os.ReadDir(a.site.mails)
	require.NoError(t, err)
	require.Empty(t, files)
}

// link returns the path, with the query, of the link in the mail that was sent, and the
// token.
func (a *app) link(t *testing.T) (path, token string) {
	t.Helper()
	m := regexp.MustCompile(`\nhttp://app\.localhost(/\w+\?token=(\S+))\n`).FindStringSubmatch(a.mail(t))
	require.NotNil(t, m)
	return m[1], m[2]
}

// verified signs a user up who verifies the address.
func (a *app) verified(t *testing.T, login string) *browser {
	t.Helper()
	b := a.signUp(t, login)
	_, token := a.link(t)
	require.Equal(t, "/?verified", b.post("/verify", "token", token).location)
	return b
}

var (
	secretOnPage    = regexp.MustCompile(`<code>([A-Z2-7]{32})</code>`)
	challengeOnPage = regexp.MustCompile(`name="challenge" value="([^"]+)"`)
	codeOnPage      = regexp.MustCompile(`<code>([A-Z2-7]{4}(?:-[A-Z2-7]{4}){3})</code>`)
)

func find(t *testing.T, re *regexp.Regexp, r response) string {
	t.Helper()
	m := re.FindStringSubmatch(r.body)
	require.NotNil(t, m, r.body)
	return m[1]
}

// code returns the code that an app shows, or will show after some steps of 30 seconds.
// The application uses the clock of the machine for it.
func code(t *testing.T, secret string, later int64) string {
	t.Helper()
	c, err := hotp.GenerateCode(secret, uint64(time.Now().Unix()/30+later))
	require.NoError(t, err)
	return c
}

// wrong returns a code that is wrong for a while.
func wrong(t *testing.T, secret string) string {
	t.Helper()
	for i := 0; ; i++ {
		c := fmt.Sprintf("%06d", i)
		good := false
		for later := int64(-3); later < 10; later++ {
			good = good || c == code(t, secret, later)
		}
		if !good {
			return c
		}
	}
}

// enroll signs a user up who sets up a second factor.
func (a *app) enroll(t *testing.T, login string) (b *browser, secret string, recovery []string) {
	t.Helper()
	b = a.verified(t, login)
	secret = find(t, secretOnPage, b.get("/factor"))
	r := b.post("/factor", "do", "enroll", "secret", secret, "response", code(t, secret, 0))
	require.Equal(t, http.StatusOK, r.status, r.body)
	for _, m := range codeOnPage.FindAllStringSubmatch(r.body, -1) {
		recovery = append(recovery, m[1])
	}
	require.Len(t, recovery, 10)
	return b, secret, recovery
}

// challenge signs a user in up to the second step.
func (b *browser) challenge(login string, fields ...string) string {
	b.t.Helper()
	r := b.post("/login", append(fields, "login", login, "password", pass, "next", "/profile")...)
	require.Equal(b.t, http.StatusUnauthorized, r.status)
	require.Contains(b.t, r.body, "Enter a code")
	require.NotContains(b.t, r.body, `id="error"`)
	require.NotContains(b.t, r.header, "Set-Cookie")
	require.Contains(b.t, r.body, `name="next" value="/profile"`)
	return find(b.t, challengeOnPage, r)
}

func (b *browser) answer(challenge, method, response string) response {
	return b.post("/login", "challenge", challenge, "method", method, "response", response, "next", "/profile")
}

func (a *app) claims(t *testing.T, b *browser) *auth.Claims {
	t.Helper()
	c, err := a.Verify(t.Context(), b.cookies["access"])
	require.NoError(t, err)
	return c
}

func codesAreAcceptedOnce(t *testing.T, a *app, _ *browser, name string) {
	b := a.verified(t, name)
	first := find(t, secretOnPage, b.get("/factor"))
	secret := find(t, secretOnPage, b.get("/factor"))
	require.NotEqual(t, first, secret, "each display has a new secret")
	r := b.post("/factor", "do", "enroll", "secret", secret, "response", wrong(t, secret))
	require.Equal(t, http.StatusUnprocessableEntity, r.status)
	require.Contains(t, r.body, "the code is wrong, or was used before.")
	require.Equal(t, secret, find(t, secretOnPage, r), "the app has this one already")
	require.Contains(t, r.body, "data:image/png;base64,")
	a.signIn(t, name) // it is not on yet
	used := code(t, secret, 0)
	r = b.post("/factor", "do", "enroll", "secret", secret, "response", used)
	require.Equal(t, http.StatusOK, r.status)
	recovery := find(t, codeOnPage, r)
	require.Contains(t, b.get("/factor").body, "10 recovery codes left")
	a.Clock.Advance(16 * time.Minute)
	require.Equal(t, http.StatusTemporaryRedirect, b.get("/factor").status, "with new tokens")
	require.Equal(t, "/login?next=%2Ffactor", b.get("/factor").location, "the page needs a recent login")
	r = b.post("/factor", "do", "remove")
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Contains(t, r.body, "reload this page to send the form again")

	b = a.browser(t)
	challenge := b.challenge(name)
	r = b.answer(challenge, "otp", used)
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Contains(t, r.body, "The code is wrong, or was used before.")
	require.Equal(t, challenge, find(t, challengeOnPage, r))
	require.Equal(t, "/login?next=%2Fprofile", b.get("/profile").location)
	next := code(t, secret, 1) // of a clock that is fast
	require.Equal(t, "/profile", b.answer(challenge, "otp", next).location)
	require.Equal(t, []string{"pwd", "otp", "mfa"}, a.claims(t, b).AMR)
	again := a.browser(t)
	r = again.answer(challenge, "recovery", recovery)
	require.Equal(t, http.StatusUnauthorized, r.status)
	require.Contains(t, r.body, "Please sign in again.", "the challenge is spent")
	require.NotContains(t, r.header, "Set-Cookie")
	r = again.answer(again.challenge(name), "otp", next)
	require.Contains(t, r.body, "The code is wrong, or was used before.", "with another challenge too")
}

// contendersForOneCode sends each code in several logins at the same time.
func contendersForOneCode(t *testing.T, a *app, _ *browser, name string) {
	_, secret, recovery := a.enroll(t, name)
	for method, response := range map[string]string{"otp": code(t, secret, 1), "recovery": recovery[3]} {
		var mu sync.Mutex
		var wg sync.WaitGroup
		status := map[int]int{}
		for range 3 { // five wrong codes in both rounds would be too many
			b := a.browser(t)
			challenge := b.challenge(name)
			wg.Go(func() {
				r := b.answer(challenge, method, response)
				mu.Lock()
				defer mu.Unlock()
				status[r.status]++
			})
		}
		wg.Wait()
		require.Equal(t, map[int]int{http.StatusSeeOther: 1, http.StatusUnauthorized: 2}, status, method)
	}
}

func recoveryCodesAreAcceptedOnce(t *testing.T, a *app, _ *browser, name string) {
	b, _, codes := a.enroll(t, name)
	var stored string
	require.NoError(t, a.users.db.QueryRowContext(t.Context(), "SELECT recovery FROM users WHERE login = $1", name).Scan(&stored))
	require.Len(t, strings.Fields(stored), 10)
	for _, c := range codes {
		require.NotContains(t, strings.ToUpper(stored), strings.ReplaceAll(c, "-", ""), "only hashes are stored")
	}
	other := a.browser(t)
	require.Equal(t, http.StatusUnauthorized, other.answer(other.challenge(name), "recovery", codes[0][:18]).status)
	require.Equal(t, "/profile", other.answer(other.challenge(name), "recovery", " "+strings.ToLower(strings.ReplaceAll(codes[0], "-", " "))).location)
	require.Equal(t, []string{"pwd", "recovery", "mfa"}, a.claims(t, other).AMR)
	require.Contains(t, other.get("/factor").body, "9 recovery codes left")
	third := a.browser(t)
	require.Equal(t, http.StatusUnauthorized, third.answer(third.challenge(name), "recovery", codes[0]).status)

	r := b.post("/factor", "do", "codes")
	require.Equal(t, http.StatusOK, r.status)
	require.Len(t, codeOnPage.FindAllString(r.body, -1), 10)
	require.Equal(t, "no-store", r.header.Get("Cache-Control"))
	require.Equal(t, http.StatusUnauthorized, third.answer(third.challenge(name), "recovery", codes[1]).status, "it was replaced")
	require.Equal(t, "/profile", third.answer(third.challenge(name), "recovery", find(t, codeOnPage, r)).location)

	require.Equal(t, "/factor", b.post("/factor", "do", "remove").location)
	require.NoError(t, a.users.db.QueryRowContext(t.Context(), "SELECT recovery || totp FROM users WHERE login = $1", name).Scan(&stored))
	require.Empty(t, stored)
	a.signIn(t, name)
	require.Equal(t, http.StatusUnprocessableEntity, b.post("/factor", "do", "codes").status, "without an app, there are none")
	require.Equal(t, http.StatusUnprocessableEntity, b.post("/factor", "do", "enroll", "response", code(t, "", 0)).status, "there is no secret")
}

func fiveWrongCodes(t *testing.T, a *app, _ *browser, name string) {
	_, secret, recovery := a.enroll(t, name)
	b := a.browser(t)
	challenge, bad := b.challenge(name), wrong(t, secret)
	for i := range 5 {
		r := b.answer(challenge, []string{"otp", "recovery"}[i%2], bad)
		require.Equal(t, http.StatusUnauthorized, r.status)
		require.Equal(t, i < 4, strings.Contains(r.body, "Enter a code"), i)
		require.Equal(t, i == 4, strings.Contains(r.body, "too many codes were wrong"), i)
	}
	for method, response := range map[string]string{"otp": code(t, secret, 1), "recovery": recovery[0]} {
		require.Equal(t, http.StatusTooManyRequests, b.answer(challenge, method, response).status)
		a.Clock.Advance(time.Second)
		r := b.answer(challenge, method, response)
		require.Equal(t, http.StatusUnauthorized, r.status)
		require.Contains(t, r.body, "too many codes were wrong")
		require.NotContains(t, r.header, "Set-Cookie")
	}
	a.Clock.Advance(time.Second)
	require.Equal(t, "/profile", b.answer(b.challenge(name), "otp", code(t, secret, 1)).location, "the attempts were not verified")
	a.Clock.Advance(time.Second)
	challenge = b.challenge(name)
	a.Clock.Advance(6 * time.Minute)
	require.Contains(t, b.answer(challenge, "recovery", recovery[0]).body, "It took too long")
}

func enrollmentIsForced(t *testing.T, a *app, owner *browser, name string) {
	b := a.verified(t, name)
	a.Clock.Advance(5 * time.Second)
	require.Equal(t, "/admin", owner.post("/admin", "id", a.id(t, name), "role", "member", "status", "enabled", "factor", "required").location)
	require.Equal(t, "/login?next=%2Fprofile", b.get("/profile").location, "a session without a second factor ends")
	a.Clock.Advance(5 * time.Second)
	signIn := func() (challenge, secret string) {
		t.Helper()
		r := b.post("/login", "login", name, "password", pass)
		require.Equal(t, http.StatusUnauthorized, r.status)
		require.Contains(t, r.body, "Set up a second factor")
		require.NotContains(t, r.body, `id="error"`)
		require.NotContains(t, r.header, "Set-Cookie")
		return find(t, challengeOnPage, r), find(t, secretOnPage, r)
	}
	answer := func(challenge, secret, code string) response {
		t.Helper()
		return b.post("/login", "challenge", challenge, "method", "enroll", "secret", secret, "response", code, "next", "/factor")
	}
	_, first := signIn()
	challenge, secret := signIn()
	require.NotEqual(t, first, secret)
	require.NotContains(t, b.answer(challenge, "otp", code(t, secret, 0)).header, "Set-Cookie", "the method is not offered")
	r := answer(challenge, secret, wrong(t, secret))
	require.Contains(t, r.body, "The code is wrong, or was used before.")
	require.Equal(t, secret, find(t, secretOnPage, r))
	r = answer(challenge, secret, code(t, secret, 0))
	require.Equal(t, "/factor", r.location)
	require.Equal(t, []string{"pwd", "enroll", "mfa"}, a.claims(t, b).AMR)
	require.Contains(t, b.get("/factor").body, "Create new recovery codes")
	require.NotContains(t, b.get("/factor").body, "Remove the second factor")
	r = b.post("/factor", "do", "remove")
	require.Equal(t, http.StatusUnprocessableEntity, r.status)
	require.Contains(t, r.body, "an administrator requires a second factor of you.")
	b.challenge(name)
}

// keyIsShownOnce has somebody who knows the password of a user at a time at which the
// user sets up the second factor. They must not see the secret that the user confirms.
func keyIsShownOnce(t *testing.T, a *app, owner *browser, name string) {
	b := a.verified(t, name)
	var secret string
	for _, fields := range [][]string{nil, {"secret", ""}, {"secret", strings.Repeat("A", 32)}} {
		secret = find(t, secretOnPage, b.get("/factor"))
		r := a.signIn(t, name).post("/factor", append(fields, "do", "enroll", "response", "000000")...)
		require.Equal(t, http.StatusUnprocessableEntity, r.status)
		require.NotContains(t, r.body, secret)
	}
	r := b.post("/factor", "do", "enroll", "secret", secret, "response", code(t, secret, 0))
	require.Equal(t, http.StatusUnprocessableEntity, r.status, "the secret was replaced")
	next := find(t, secretOnPage, r)
	require.NotEqual(t, secret, next)
	require.Equal(t, http.StatusOK, b.post("/factor", "do", "enroll", "secret", next, "response", code(t, next, 0)).status)
	r = b.post("/factor", "do", "enroll", "secret", next, "response", code(t, next, 1))
	require.Equal(t, http.StatusUnprocessableEntity, r.status, "it is on already")
	require.NotContains(t, r.body, next)
	stored, err := a.users.find(t.Context(), "login", name)
	require.NoError(t, err)
	_, err = view{site: a.site, Request: httptest.NewRequest(http.MethodGet, "/factor", nil)}.NewKey(stored.ID) // a page that was asked for before
	require.ErrorAs(t, err, new(invalid))
	after, err := a.users.find(t.Context(), "login", name)
	require.NoError(t, err)
	require.Equal(t, stored, after)
}

// scan plays a program that examines the links of mails.
func (a *app) scan(t *testing.T, path string) {
	t.Helper()
	for _, method := range []string{http.MethodHead, http.MethodGet, http.MethodGet, http.MethodGet} {
		for _, header := range []string{"", "Sec-Purpose", "Purpose", "X-Moz"} {
			r := httptest.NewRequest(method, path, nil)
			if header != "" {
				r.Header.Set(header, "prefetch")
			}
			got := a.browser(t).do(r)
			require.Equal(t, http.StatusOK, got.status)
			require.Equal(t, "no-store", got.header.Get("Cache-Control"))
			require.Equal(t, "no-referrer", got.header.Get("Referrer-Policy"))
			require.NotContains(t, got.header, "Set-Cookie")
		}
	}
}

// verificationByALink verifies the address with a link that a scanner has fetched.
func verificationByALink(t *testing.T, a *app, _ *browser, name string) {
	r := form("/signup", "login", name, "address", "someone@example.com", "password", pass)
	r.Host = "evil.localhost"
	b := a.browser(t)
	require.Equal(t, http.StatusSeeOther, b.do(r).status)
	mail := a.mail(t)
	require.Regexp(t, "^To: someone@example.com\nSubject: Verify your address\n\nHello "+name, mail)
	require.NotContains(t, mail, "evil")
	b = a.signIn(t, name)
	require.Contains(t, b.get("/profile").body, "not verified")
	require.Equal(t, "/profile?sent", b.post("/verify").location)
	require.Contains(t, b.get("/profile?sent").body, `href="/mail/"`)
	path, token := a.link(t)
	a.scan(t, path)
	require.Contains(t, b.get("/profile").body, "not verified")

	person := a.browser(t) // need not be signed in
	page := person.get(path)
	require.Equal(t, token, find(t, regexp.MustCompile(`name="token" value="([^"]+)"`), page))
	require.Equal(t, http.StatusBadRequest, person.post(path).status, "the token is in the body only")
	require.Equal(t, "/?verified", person.post("/verify", "token", token).location)
	require.NotContains(t, b.get("/profile").body, "not verified")
	got := person.post("/verify", "token", token)
	require.Equal(t, http.StatusBadRequest, got.status)
	require.Contains(t, got.body, "was used before")
	require.Equal(t, http.StatusBadRequest, person.post("/verify", "token", token+"x").status)
	require.Equal(t, http.StatusBadRequest, person.post("/reset", "token", token, "password", "a new password of bob").status, "a token of another purpose")

	b.post("/verify")
	_, token = a.link(t)
	require.NoError(t, a.users.exec(t.Context(), auth.ErrUserNotFound, "UPDATE users SET email = 'new@example.com', verified = FALSE WHERE login = $1", name))
	got = person.post("/verify", "token", token)
	require.Equal(t, http.StatusUnprocessableEntity, got.status)
	require.Contains(t, got.body, "your address has changed.")
	require.Contains(t, b.get("/profile").body, "new@example.com, not verified")
}

func resetByALink(t *testing.T, a *app, owner *browser, name string) {
	b := a.signUp(t, name)
	_, verify := a.link(t)
	sent := a.browser(t).post("/forgot", "login", name)
	require.Equal(t, "/forgot?sent", sent.location)
	require.Equal(t, sent, a.browser(t).post("/forgot", "login", "nobody"), "the response does not tell who has an account")
	a.noMail(t) // the address is not verified
	require.Equal(t, "/?verified", b.post("/verify", "token", verify).location)
	require.Equal(t, sent, a.browser(t).post("/forgot", "login", " "+strings.ToUpper(name)))
	path, token := a.link(t)
	require.Contains(t, path, "/reset?")
	a.scan(t, path)

	person := a.browser(t)
	require.Contains(t, person.get(path).body, `name="token" value="`+token+`"`)
	r := person.post("/reset", "token", token, "password", "short")
	require.Equal(t, http.StatusUnprocessableEntity, r.status)
	require.Contains(t, r.body, "choose another one.")
	require.Contains(t, r.body, `name="token" value="`+token+`"`)
	require.Equal(t, http.StatusBadRequest, person.post("/verify", "token", token).status, "a token of another purpose")
	require.Equal(t, 200, b.get("/profile").status)
	require.Equal(t, "/login?reset", person.post("/reset", "token", token, "password", "a new password of bob").location)
	require.Equal(t, "/login?next=%2Fprofile", b.get("/profile").location, "all sessions have ended")
	require.Equal(t, http.StatusUnauthorized, person.post("/login", "login", name, "password", pass).status)
	a.Clock.Advance(5 * time.Second)
	require.Equal(t, "/", person.post("/login", "login", name, "password", "a new password of bob").location)
	require.Equal(t, http.StatusBadRequest, person.post("/reset", "token", token, "password", "another new password").status)
	require.Equal(t, 200, person.get("/profile").status)

	// The page does not depend on who is signed in: here, somebody who may not change
	// the password.
	require.Equal(t, "/", owner.post("/admin/as", "id", a.id(t, name)).location)
	person.post("/forgot", "login", name)
	_, token = a.link(t)
	require.Equal(t, "/login?reset", owner.post("/reset", "token", token, "password", pass).location)
}

func resetLinksEnd(t *testing.T, a *app, _ *browser, name string) {
	b := a.verified(t, name)
	link := func() string {
		t.Helper()
		require.Equal(t, "/forgot?sent", a.browser(t).post("/forgot", "login", name).location)
		_, token := a.link(t)
		return token
	}
	dead := func(token, why string) {
		t.Helper()
		r := a.browser(t).post("/reset", "token", token, "password", "a password of somebody else")
		require.Equal(t, http.StatusBadRequest, r.status, why)
		require.Contains(t, r.body, "Ask for another link")
	}
	first, second := link(), link()
	require.Equal(t, "/login?reset", a.browser(t).post("/reset", "token", second, "password", "a new password of bob").location)
	dead(first, "another link was used")
	dead(second, "it was used")
	a.Clock.Advance(5 * time.Second)
	require.Equal(t, "/", b.post("/login", "login", name, "password", "a new password of bob").location)
	token := link()
	require.Equal(t, "/devices?done", b.post("/profile", "current", "a new password of bob", "password", pass).location)
	dead(token, "the password was changed")
	token = link()
	require.NoError(t, a.users.exec(t.Context(), nil, "UPDATE users SET password_hash = password_hash || 'x' WHERE login = $1", name))
	dead(token, "the password was changed by another program")
	token = link()
	a.Clock.Advance(31 * time.Minute)
	dead(token, "it has expired")
	owner := a.signIn(t, "ada")
	token = link()
	require.Equal(t, "/admin", owner.post("/admin", "id", a.id(t, name), "role", "member", "status", "disabled").location)
	dead(token, "the user is disabled")
	require.Equal(t, "/forgot?sent", a.browser(t).post("/forgot", "login", name).location)
	a.noMail(t)
}

// rememberMe checks the cookies after the login and after a refresh.
func rememberMe(t *testing.T, a *app, _ *browser, name string) {
	check := func(b *browser, lasting bool) {
		t.Helper()
		for range 2 {
			delete(b.lasting, "device") // not of the session
			require.Equal(t, map[string]bool{"access": lasting, "refresh": lasting}, b.lasting)
			b.lasting = map[string]bool{}
			a.Clock.Advance(20 * time.Minute)
			require.Equal(t, http.StatusTemporaryRedirect, b.get("/profile").status, "with new tokens")
		}
		require.Equal(t, 200, b.get("/profile").status)
	}
	not, ticked := []string{"remember", "false"}, []string{"remember", "false", "remember", "true"}
	b := a.browser(t)
	require.Equal(t, "/", b.post("/signup", append(not, "login", name, "address", "someone@example.com", "password", pass)...).location)
	check(b, false)
	b = a.browser(t)
	require.Equal(t, "/", b.post("/login", append(not, "login", name, "password", pass)...).location)
	check(b, false)
	b = a.browser(t)
	require.Equal(t, "/", b.post("/login", append(ticked, "login", name, "password", pass)...).location)
	check(b, true)

	key := a.signIn(t, name)
	secret := find(t, secretOnPage, key.get("/factor"))
	require.Equal(t, http.StatusOK, key.post("/factor", "do", "enroll", "secret", secret, "response", code(t, secret, 0)).status)
	b = a.browser(t)
	require.Equal(t, "/profile", b.answer(b.challenge(name, not...), "recovery", find(t, codeOnPage, key.post("/factor", "do", "codes"))).location)
	check(b, false)
}

func acting(t *testing.T, a *app, owner *browser, name string) {
	b := a.signUp(t, name)
	before := owner.cookies["access"]
	for id, status := range map[string]int{a.id(t, "ada"): 422, "nobody": 401} {
		require.Equal(t, status, owner.post("/admin/as", "id", id).status)
	}
	r := b.post("/admin/as", "id", a.id(t, "ada"))
	require.Equal(t, http.StatusForbidden, r.status)
	other := form("/admin/as", "id", a.id(t, name))
	other.Header.Set("Sec-Fetch-Site", "cross-site")
	require.Equal(t, http.StatusForbidden, owner.do(other).status)
	require.Equal(t, http.StatusMethodNotAllowed, owner.get("/admin/as?id="+a.id(t, name)).status)
	require.Equal(t, before, owner.cookies["access"])

	require.Equal(t, "/", owner.post("/admin/as", "id", a.id(t, name)).location)
	require.Contains(t, owner.get("/").body, "You act for "+name+". Sign out to stop.")
	require.Equal(t, a.id(t, "ada"), a.claims(t, owner).Actor)
	_, err := a.Verify(t.Context(), before)
	require.ErrorIs(t, err, auth.ErrSessionRevoked, "the administrator's own session is replaced")
	r = owner.get("/profile")
	require.Equal(t, 200, r.status)
	require.NotContains(t, r.body, "Change the password")
	for _, path := range []string{"/devices", "/factor", "/admin"} {
		require.Equal(t, http.StatusForbidden, owner.get(path).status, path)
		require.NotContains(t, r.body, `href="`+path+`"`)
	}
	for path, fields := range map[string][]string{
		"/profile": {"current", pass, "password", "a password of the owner"}, "/devices": {"id", "x"}, "/factor": {"do", "codes"},
		"/admin": {"id", a.id(t, name), "role", "admin"}, "/admin/as": {"id", a.id(t, name)},
	} {
		require.Equal(t, http.StatusForbidden, owner.post(path, fields...).status, path)
	}
	require.Contains(t, b.get("/devices").body, "An administrator, for you")
	require.Equal(t, "/devices", b.post("/devices", "id", a.claims(t, owner).SessionID).location, "the user can end it")
	require.Equal(t, "/login?next=%2Fprofile", owner.get("/profile").location)
	a.signIn(t, name) // with the same password
}

func actingEndsWithTheAdministrator(t *testing.T, a *app, owner *browser, name string) {
	a.signUp(t, name)
	a.signUp(t, name+"-admin")
	id := a.id(t, name+"-admin")
	set := func(id, role, status string) {
		t.Helper()
		a.Clock.Advance(5 * time.Second)
		require.Equal(t, "/admin", owner.post("/admin", "id", id, "role", role, "status", status).location)
		a.Clock.Advance(5 * time.Second)
	}
	act := func() *browser {
		t.Helper()
		set(id, "admin", "enabled")
		b := a.signIn(t, name+"-admin")
		require.Equal(t, "/", b.post("/admin/as", "id", a.id(t, name)).location)
		require.Equal(t, 200, b.get("/profile").status)
		return b
	}
	for _, change := range [][2]string{{"admin", "disabled"}, {"member", "enabled"}} {
		b := act()
		set(id, change[0], change[1])
		require.Equal(t, "/login?next=%2Fprofile", b.get("/profile").location, change)
	}
	b := act()
	set(a.id(t, name), "admin", "enabled") // the user becomes an administrator
	require.Equal(t, http.StatusTemporaryRedirect, b.get("/profile").status, "with new tokens")
	require.Contains(t, a.claims(t, b).Roles, "admin")
	require.Equal(t, http.StatusForbidden, b.get("/admin").status, "for somebody who acts for them")
	set(a.id(t, name), "member", "enabled")
	b = act()
	_, err := a.users.db.ExecContext(t.Context(), "DELETE FROM users WHERE id = $1", id)
	require.NoError(t, err)
	a.Clock.Advance(20 * time.Minute)
	require.Equal(t, "/login?next=%2Fprofile", b.get("/profile").location, "the access token has expired")

	owner = a.signIn(t, "ada")
	set(a.id(t, name), "member", "disabled")
	require.Equal(t, http.StatusUnprocessableEntity, owner.post("/admin/as", "id", a.id(t, name)).status)
	set(a.id(t, name), "admin", "enabled")
	require.Equal(t, http.StatusUnprocessableEntity, owner.post("/admin/as", "id", a.id(t, name)).status, "for members only")
}

// TestApp_AddressesAreChecked sends addresses that would add lines to a mail, and others
// that are none.
func TestApp_AddressesAreChecked(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	for _, address := range []string{
		"", "ada", "ada@", "Ada <ada@example.com>", "ada@example.com,bob@example.com", "ada@example.com\r\nBcc: bob@example.com",
		"ada@example.com\nx", "ada\n@example.com", "\"ada\\\r\nBcc: x\"@example.com", "ada@example.com ", strings.Repeat("a", 200) + "@example.com",
	} {
		r := a.browser(t).post("/signup", "login", "ada", "address", address, "password", pass)
		require.Equal(t, http.StatusUnprocessableEntity, r.status, address)
		require.Contains(t, r.body, "this is not an e-mail address.")
		a.noMail(t)
	}
	list, err := a.users.list(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestApp_MailsAreShownOnlyDuringDevelopment(t *testing.T) {
	t.Parallel()
	a := newApp(t)
	b := a.signUp(t, "ada")
	r := b.get("/mail/")
	require.Equal(t, 200, r.status)
	file := find(t, regexp.MustCompile(`href="([^"]+\.txt)"`), r)
	require.Contains(t, b.get("/mail/"+file).body, "/verify?token=")
	a.site.Development = false
	b.handler = a.site.routes()
	for _, path := range []string{"/mail/", "/mail/" + file, "/mail"} {
		require.Equal(t, 404, b.get(path).status, path)
	}
	require.NotContains(t, b.get("/profile?sent").body, "/mail/")
}
