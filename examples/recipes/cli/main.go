// Command cli is a client that is not a browser: it signs in, and keeps its tokens in
// a file. Package authclient refreshes them, and saves them before they are used. An
// app on a phone does the same, with the key store of its system in place of the
// file.
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
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/ratchet-go/auth/authclient"
)

func main() {
	server := flag.String("server", "http://127.0.0.1:8080", "`URL` of the server; with https, except on a loopback address")
	file := flag.String("tokens", "tokens.json", "`file` for the tokens")
	timeout := flag.Duration("timeout", 30*time.Second, "how long to wait for a response")
	flag.Parse()
	t, err := authclient.New(authclient.Config{BaseURL: *server + "/auth", Store: authclient.FileStore(*file)})
	if err == nil {
		c := &program{transport: t, server: *server, timeout: *timeout}
		err = c.run(context.Background(), flag.Arg(0), flag.Arg(1))
	}
	if errors.Is(err, authclient.ErrSignedOut) {
		err = errSignIn
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cli:", err)
		os.Exit(1)
	}
}

var errSignIn = errors.New("sign in: cli login NAME")

type program struct {
	transport *authclient.Transport
	server    string
	timeout   time.Duration
}

func (c *program) run(ctx context.Context, command, arg string) error {
	switch command {
	case "login":
		return c.login(ctx, arg, bufio.NewReader(os.Stdin))
	case "get":
		return c.get(ctx, arg, os.Stdout)
	case "logout":
		ctx, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		return c.transport.Logout(ctx)
	}
	return errors.New("want login NAME, get PATH or logout")
}

// login signs in. It asks for a second factor if the server requires one.
func (c *program) login(ctx context.Context, name string, in *bufio.Reader) error {
	password, err := ask(in, "Password")
	if err != nil {
		return err
	}
	device, _ := os.Hostname() // for the user's list of devices
	fields := map[string]string{"login": name, "password": password, "device": cmp.Or(device, "cli")}
	limited := func(f func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, c.timeout)
		defer cancel()
		return f(ctx)
	}
	err = limited(func(ctx context.Context) error { return c.transport.Login(ctx, fields) })
	for {
		refusal, ok := errors.AsType[*authclient.Error](err)
		if !ok {
			return err
		}
		if refusal.Action != "factor" || len(refusal.Methods) == 0 {
			return errors.New(refusal.Description)
		}
		method := refusal.Methods[0]
		response, err2 := ask(in, method)
		if err2 != nil {
			return err2
		}
		err = limited(func(ctx context.Context) error { return c.transport.LoginFactor(ctx, method, response) })
	}
}

// ask reads a line from the user.
func ask(in *bufio.Reader, what string) (string, error) {
	fmt.Fprint(os.Stderr, what+": ")
	line, err := in.ReadString('\n')
	if line != "" {
		err = nil
	}
	return strings.TrimRight(line, "\r\n"), err
}

// get prints the response to a GET request.
func (c *program) get(ctx context.Context, path string, out io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path, http.NoBody)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: c.transport, Timeout: c.timeout}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		_, err = io.Copy(out, resp.Body)
		return err
	}
	var refusal struct {
		Description string `json:"error_description"`
		Action      string `json:"action"`
	}
	_ = json.NewDecoder(io.LimitReader(resp.Body, 16<<10)).Decode(&refusal) // a proxy may have sent another body
	if refusal.Action == "login" {                                          // the session has ended
		return errSignIn
	}
	return fmt.Errorf("GET %s: %s", path, cmp.Or(refusal.Description, resp.Status))
}
