package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// session has the tokens of a client.
type session struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

func (d *demo) do(method, addr, path, bearer string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(d.ctx, method, "http://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	return http.DefaultClient.Do(req)
}

func (d *demo) post(addr, path string, fields map[string]string) (int, session, error) {
	var s session
	body, err := json.Marshal(fields)
	if err != nil {
		return 0, s, err
	}
	resp, err := d.do("POST", addr, path, "", body)
	if err != nil {
		return 0, s, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode == http.StatusOK {
		err = json.Unmarshal(b, &s)
	}
	return resp.StatusCode, s, err
}

func (d *demo) get(addr, path, bearer string) (int, error) {
	resp, err := d.do("GET", addr, path, bearer, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func (d *demo) signIn(user string) (session, error) {
	status, s, err := d.post(d.proxy, "/auth/login", map[string]string{"login": user, "password": demoPassword})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("login of %s: status %d", user, status)
	}
	return s, err
}

// measureSignOut signs a user out everywhere, on the first node. It returns the time
// from that request until each node refused the user's token, and until the last of
// the user's streams, one on each node, ended.
func (d *demo) measureSignOut(c session) (delays []time.Duration, ended time.Duration, err error) {
	ctx, cancel := context.WithTimeout(d.ctx, 10*time.Second)
	defer cancel()
	limited := &demo{ctx: ctx}
	nodes := d.fleet.nodes()
	streams := make(chan error, len(nodes))
	for _, n := range nodes {
		resp, err := limited.do("GET", n.addr, "/stream", c.Access, nil)
		if err != nil {
			return nil, 0, err
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		if !lines.Scan() || lines.Text() != "open" {
			return nil, 0, fmt.Errorf("stream of node %d: status %d, first line %q", n.number, resp.StatusCode, lines.Text())
		}
		go func() {
			last := ""
			for lines.Scan() {
				last = lines.Text()
			}
			if last != "session has ended" {
				streams <- fmt.Errorf("stream of node %d ended with %q", n.number, last)
				return
			}
			streams <- nil
		}()
	}
	type end struct {
		node int
		at   time.Time
		err  error
	}
	ends := make(chan end, len(nodes))
	for i, n := range nodes {
		go func() {
			for {
				status, err := limited.get(n.addr, "/me", c.Access)
				if err != nil || status == http.StatusUnauthorized {
					ends <- end{i, time.Now(), err}
					return
				}
				time.Sleep(200 * time.Microsecond)
			}
		}()
	}
	begin := time.Now()
	resp, err := limited.do("POST", nodes[0].addr, "/auth/logout/all", c.Access, nil)
	if err != nil {
		return nil, 0, err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return nil, 0, fmt.Errorf("sign out everywhere: %s", resp.Status)
	}
	var errs []error
	for range nodes {
		errs = append(errs, <-streams)
	}
	ended = time.Since(begin)
	delays = make([]time.Duration, len(nodes))
	for range nodes {
		e := <-ends
		errs = append(errs, e.err)
		delays[e.node] = max(0, e.at.Sub(begin))
	}
	return delays, ended, errors.Join(errs...)
}
