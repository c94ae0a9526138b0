// Command cli is a client that is not a browser: it signs in, keeps its tokens in
// a file, and refreshes them with golang.org/x/oauth2. An app on a phone does the
// same, with the key store of its system in place of the file.
//
//	go run ./examples/quickstart                 (in another terminal)
//	go run ./examples/recipes/cli login ada      (reads the password from the standard input)
//	go run ./examples/recipes/cli get /api/me
//	go run ./examples/recipes/cli logout
//
// The server needs no setting, except Cookies.AllowBody if it sets Config.Cookies.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

func main() {
	server := flag.String("server", "http://127.0.0.1:8080", "`URL` of the server; with https, except on a loopback address")
	file := flag.String("tokens", "tokens.json", "`file` for the tokens")
	flag.Parse()
	s := &source{file: *file, server: *server, config: oauth2.Config{Endpoint: oauth2.Endpoint{
		TokenURL:  *server + "/auth/refresh",
		AuthStyle: oauth2.AuthStyleInParams, // there is no client secret, so there is no header Authorization
	}}}
	err := checkServer(*server)
	switch ctx := context.Background(); {
	case err != nil:
	case flag.Arg(0) == "login":
		err = s.login(ctx, flag.Arg(1), os.Stdin)
	case flag.Arg(0) == "get":
		err = s.get(ctx, flag.Arg(1), os.Stdout)
	case flag.Arg(0) == "logout":
		err = s.logout(ctx)
	default:
		err = errors.New("want login NAME, get PATH or logout")
	}
	if errors.Is(err, errSignIn) {
		err = errSignIn // without the URL that http.Client adds
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cli:", err)
		os.Exit(1)
	}
}

// login signs in and stores the tokens.
func (s *source) login(ctx context.Context, name string, in io.Reader) error {
	fmt.Fprint(os.Stderr, "Password: ")
	password, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && password == "" {
		return err
	}
	device, _ := os.Hostname() // for the user's list of devices
	resp, err := post(ctx, s.server+"/auth/login", url.Values{
		"login": {name}, "password": {strings.TrimRight(password, "\r\n")}, "device": {cmp.Or(device, "cli")},
		"delivery": {"body"}, // the tokens, not cookies
	})
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return errors.New(describe(resp).Description)
	}
	t := new(oauth2.Token)
	if err := json.NewDecoder(resp.Body).Decode(t); err != nil {
		return err
	}
	t.Expiry = time.Now().Add(time.Duration(t.ExpiresIn) * time.Second) // Decode does not set it
	return s.save(t)
}

// get prints the response to a GET request.
func (s *source) get(ctx context.Context, path string, out io.Writer) error {
	// Transport would also send the token to a host to which a redirect leads.
	client := &http.Client{Transport: &oauth2.Transport{Source: s}, Timeout: 30 * time.Second, CheckRedirect: noRedirect}
	for repeated := false; ; repeated = true {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.server+path, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode == http.StatusOK {
			_, err = io.Copy(out, resp.Body)
			return err
		}
		switch refusal := describe(resp); {
		case refusal.Action == "refresh" && !repeated:
			if err := s.expire(); err != nil { // the server has ended the access token early
				return err
			}
		case refusal.Action == "login":
			return errSignIn
		default:
			return fmt.Errorf("GET %s: %s", path, refusal.Description)
		}
	}
}

// logout ends the session and removes the tokens.
func (s *source) logout(ctx context.Context) error {
	t, err := s.load()
	if err != nil {
		return err
	}
	resp, err := post(ctx, s.server+"/auth/logout", url.Values{"refresh_token": {t.RefreshToken}})
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("%s: the session goes on; try again", resp.Status)
	}
	return os.Remove(s.file)
}

func post(ctx context.Context, to string, form url.Values) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return (&http.Client{Timeout: 30 * time.Second, CheckRedirect: noRedirect}).Do(req)
}

// noRedirect is for http.Client.CheckRedirect. The program sends passwords and tokens
// to its server only.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// checkServer returns an error for a server to which passwords and tokens would be
// sent without TLS.
func checkServer(server string) error {
	u, err := url.Parse(server)
	if err != nil {
		return err
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("-server %s: want https, or http on a loopback address", server)
}

// refusal is the body of an error response.
type refusal struct {
	Description string `json:"error_description"`
	Action      string `json:"action"`
}

func describe(resp *http.Response) refusal {
	var r refusal
	_ = json.NewDecoder(io.LimitReader(resp.Body, 16<<10)).Decode(&r) // a proxy may have sent another body
	r.Description = cmp.Or(r.Description, resp.Status)
	return r
}
