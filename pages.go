package auth

import (
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// RedirectToLogin returns a function for Config.OnError of a site whose pages the
// server renders. path is the path of the login page, which may have a query:
//
//	auth.Config{AutoRefresh: true, OnError: auth.RedirectToLogin("/login"), …}
//
// If a login would help, the function redirects a page load to the login page,
// with the requested URL in the query parameter next. After the login, redirect
// to [LocalPath] of that parameter, which accepts only paths of this site. The
// login page must not redirect users who are signed in to next: [Fresh] sends them
// to the login page to sign in again, so the redirects would not end.
//
// A form cannot be redirected without losing what the user typed. It gets a page
// with a link that opens the login page in a new tab, and the user can then reload
// the page, so that the browser sends the form again. A form that a page of another
// site has sent gets an error page without this advice.
//
// A page load gets all other errors as a short page in English. A site with an
// error page of its own handles those errors itself, and calls the function only
// for errors whose [ErrorResponse].Action is not empty. A request by a script gets
// [DefaultOnError]. Browsers say with the header Sec-Fetch-Mode whether they load
// a page. Without that header, a request for text/html is a page load, unless it
// has a bearer token.
//
// RedirectToLogin panics if path is not a path that [LocalPath] accepts.
func RedirectToLogin(path string) func(http.ResponseWriter, *http.Request, error) {
	if LocalPath(path) != path || strings.Contains(path, "#") {
		panic(fmt.Sprintf("auth: RedirectToLogin: %q must be the path of a page of this site, such as /login", path))
	}
	page, query, _ := strings.Cut(path, "?")
	login, _ := url.Parse(page) // LocalPath has parsed it
	return func(w http.ResponseWriter, r *http.Request, err error) {
		e := ResponseFor(err)
		asked := requestURL(r)
		load := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case !isPageLoad(r):
			DefaultOnError(w, r, err)
		case e.Action == "" || asked.Path == login.Path || !load && (e.Code == "invalid_credentials" || e.Factor != nil): // a redirect would not help
			first, size := utf8.DecodeRuneInString(e.Description)
			writePage(w, e, http.StatusText(e.Status), html.EscapeString(string(unicode.ToUpper(first))+e.Description[size:])+".")
		case load:
			to := path
			if next := LocalPath(asked.RequestURI()); next != "/" {
				to = page + "?" + strings.TrimPrefix(query+"&next="+url.QueryEscape(next), "&")
			}
			w.Header().Set("Cache-Control", "no-store")
			http.Redirect(w, r, to, http.StatusSeeOther)
		case r.Header.Get("Sec-Fetch-Site") == "cross-site": // browsers send it without the cookies, even again
			writePage(w, e, http.StatusText(e.Status), "A page of another site sent this form.")
		default:
			writePage(w, e, "You must sign in again", `Nothing was saved yet. <a href="`+html.EscapeString(path)+
				`" target="_blank">Sign in</a> in a new tab, then reload this page to send the form again.`)
		}
	}
}

// isPageLoad reports whether a browser loads a page, or sends a form and shows
// the response as a page. No page load has a bearer token; some HTTP libraries
// send Accept: text/html by default.
func isPageLoad(r *http.Request) bool {
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" {
		return mode == "navigate"
	}
	token, err := bearer(r.Header["Authorization"])
	return token == "" && err == nil && strings.Contains(r.Header.Get("Accept"), "text/html")
}

// writePage writes a page with the status and headers of e. body is HTML.
func writePage(w http.ResponseWriter, e ErrorResponse, title, body string) {
	e.SetHeaders(w.Header())
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(e.Status)
	_, _ = fmt.Fprintf(w, `<!doctype html><html lang="en"><meta name="color-scheme" content="light dark"><meta name="viewport" content="width=device-width"><title>%s</title><h1>%[1]s</h1><p>%s</p></html>`+"\n", title, body)
}

// LoginForm logs a user in with the fields of a form, as [Authenticator.LoginHandler]
// does, and sets the token cookies: it checks the origin of the request, and the
// login replaces the session that the browser had. It writes no status and no
// body, so that the caller can redirect. The form may have a checkbox "remember", as
// for LoginHandler.
//
//	switch err := a.LoginForm(w, r); {
//	case errors.Is(err, auth.ErrInvalidCredentials):
//		showLogin(w, r, http.StatusUnauthorized, "Name or password is wrong.") // your page
//	case errors.Is(err, auth.ErrThrottled):
//		showLogin(w, r, http.StatusTooManyRequests, auth.ResponseFor(err).Description) // says how long to wait
//	case err != nil:
//		a.WriteError(w, r, err)
//	default:
//		http.Redirect(w, r, auth.LocalPath(r.FormValue("next")), http.StatusSeeOther)
//	}
//
// With Config.SecondFactor, LoginForm also handles the second form, which has the
// fields "challenge", "method" and "response" instead. The case that shows this form,
// at first and after a wrong response, must then be the first one of the switch:
//
//	case errors.As(err, &factor): // var factor *auth.FactorError
//		showFactor(w, r, http.StatusUnauthorized, factor.Challenge, factor.Methods, errors.Is(err, auth.ErrInvalidCredentials))
//
// If the error is [ErrInvalidToken], [ErrTokenExpired] or [ErrSpent], the challenge is
// no longer valid: show the first form.
//
// If it returns an error, it has written nothing. The fields are read from the
// body, never from the URL. The body can be read before and again afterward, as by
// FormValue. A field that the user has left empty is [ErrInvalidCredentials], and a
// form without the field is [ErrInvalidRequest]. The other errors are those of
// [ReadFields], [Verifier.CheckOrigin] and [Authenticator.Login]. Without
// Config.Cookies, LoginForm returns an error.
func (a *Authenticator) LoginForm(w http.ResponseWriter, r *http.Request) error {
	if a.cookies == nil {
		return errors.New("auth: LoginForm requires Config.Cookies")
	}
	if a.factor != nil {
		f, err := readFactor(r)
		_, method := f["method"]
		_, response := f["response"]
		if f["challenge"] != "" && f["password"] == "" && (method || response) {
			if err != nil {
				return err
			}
			t, err := a.loginFactorWith(r, f, true)
			if err == nil {
				a.SetCookies(w, t)
			}
			return err
		}
	}
	f, err := readLogin(r)
	if f.empty {
		return ErrInvalidCredentials // so that the form is shown again
	}
	if err != nil {
		return err
	}
	t, err := a.loginWith(r, f, true)
	if err != nil {
		return err
	}
	a.SetCookies(w, t)
	return nil
}

// writeDone writes the response to a request that succeeded and has no result:
// 204, with which a browser stays on the page that sent the form, or for such a
// form a redirect to the page that its field next names.
func writeDone(w http.ResponseWriter, r *http.Request) {
	if !isPageLoad(r) {
		writeNoContent(w)
		return
	}
	f, _ := ReadFields(r, "next") // a field that cannot be read counts as absent
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, LocalPath(f["next"]), http.StatusSeeOther)
}
