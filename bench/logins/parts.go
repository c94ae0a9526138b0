package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ratchet-go/auth/password"
)

// server is the running program.
type server struct {
	cmd  *exec.Cmd
	addr string
}

func start(path string, o options) (*server, error) {
	cmd := exec.Command(path, "-addr", "127.0.0.1:0", "-proxy", "127.0.0.1/32", "-hash", o.hash, "-hash-budget", fmt.Sprint(o.budget))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd}
	lines := bufio.NewScanner(out)
	for s.addr == "" && lines.Scan() {
		_, s.addr, _ = strings.Cut(lines.Text(), " on http://")
	}
	if s.addr == "" {
		s.stop()
		return nil, errors.New("the program did not start")
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return s, nil
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// signIn returns an access token.
func (s *server) signIn() (string, error) {
	form := url.Values{"login": {"bob"}, "password": {"correct horse battery staple"}, "delivery": {"body"}}
	resp, err := http.PostForm("http://"+s.addr+"/auth/login", form)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		return "", err
	}
	return body.Token, nil
}

// memory returns a figure of /proc/PID/status in KiB, or 0 where there is none.
func (s *server) memory(name string) (kib int64) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	_, after, _ := strings.Cut(string(status), name)
	_, _ = fmt.Sscan(after, &kib)
	return kib
}

// A conn is a connection that sends one request.
type conn struct {
	net.Conn
	request []byte
	reader  *bufio.Reader
}

func dial(addr, request string) (*conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &conn{c, []byte(request), bufio.NewReader(c)}, nil
}

// do sends the request, and returns the status and how long it took.
func (c *conn) do() (int, time.Duration, error) {
	begin := time.Now()
	if _, err := c.Write(c.request); err != nil {
		return 0, 0, err
	}
	resp, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, time.Since(begin), err
}

// round signs in many users at once, and waits for all responses.
func (r *result) round(addr string, o options, round int) error {
	conns := make([]*conn, o.logins)
	for i := range conns {
		form := url.Values{"login": {fmt.Sprintf("nobody-%d-%d", round, i)}, "password": {"a guess"}, "delivery": {"body"}}.Encode()
		c, err := dial(addr, fmt.Sprintf("POST /auth/login HTTP/1.1\r\nHost: %s\r\nX-Forwarded-For: 10.%d.0.%d\r\n"+
			"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", addr, round, 1+i%o.sources, len(form), form))
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		conns[i] = c
	}

	var mu sync.Mutex // for r and what follows
	var failed error
	served := 0
	var last, told time.Time
	begun := make(chan struct{})
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			<-begun
			status, took, err := c.do()
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				failed = errors.Join(failed, err)
			case status == http.StatusUnauthorized:
				served++
				last = time.Now()
			case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
				r.told[status]++
				r.refused = append(r.refused, took)
				told = time.Now()
			default:
				failed = errors.Join(failed, fmt.Errorf("a login has status %d", status))
			}
		})
	}
	time.Sleep(200 * time.Millisecond) // the program has accepted the connections
	begin := time.Now()
	close(begun)
	wg.Wait()
	r.served += served
	r.rates = append(r.rates, float64(served)/last.Sub(begin).Seconds())
	r.arrivals = append(r.arrivals, [2]time.Time{begin, told})
	return failed
}

// hash runs the part hash.
func (r *result) hash(o options, self func(args ...string) *exec.Cmd) error {
	out, err := self("-part", "hash", "-hash", o.hash, "-budget", fmt.Sprint(o.budget), "-alone", o.alone.String()).Output()
	if err != nil {
		return fmt.Errorf("the part hash: %w", err)
	}
	var rate float64
	_, err = fmt.Sscan(string(out), &rate)
	r.hashes = append(r.hashes, rate)
	return err
}

// onlyHash hashes as often as a Hasher with the same settings allows, and writes the
// hashes per second. The first third of the time does not count: the memory of the
// process grows.
func onlyHash(w io.Writer, o options) error {
	h := &password.Hasher{Budget: o.budget, Queue: 1000}
	if _, err := fmt.Sscanf(o.hash, "m=%d,t=%d,p=%d", &h.Memory, &h.Time, &h.Threads); err != nil {
		return err
	}
	var mu sync.Mutex
	var ends []time.Time
	var failed error
	begin := time.Now()
	var wg sync.WaitGroup
	for range 4 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for time.Since(begin) < o.alone {
				_, err := h.Hash(context.Background(), "a password")
				mu.Lock()
				ends, failed = append(ends, time.Now()), errors.Join(failed, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	warm := len(ends) / 3
	_, err := fmt.Fprintln(w, float64(len(ends)-1-warm)/ends[len(ends)-1].Sub(ends[warm]).Seconds())
	return errors.Join(failed, err)
}

// A sample is a protected request.
type sample struct {
	Begin time.Time
	Took  time.Duration
}

// durations returns how long the samples took that keep accepts.
func durations(list []sample, keep func(sample) bool) (took []time.Duration) {
	for _, s := range list {
		if keep(s) {
			took = append(took, s.Took)
		}
	}
	return took
}

// during returns the protected requests that were sent while f ran. It measures in a
// process of its own, so that no request waits for the goroutines of the logins.
func during(self func(args ...string) *exec.Cmd, addr, token string, f func() error) ([]sample, error) {
	cmd := self("-part", "probe", "-probe", addr)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	_, err = fmt.Fprintln(in, token)
	err = errors.Join(err, f(), in.Close(), cmd.Wait())
	var list []sample
	return list, errors.Join(err, json.Unmarshal([]byte(out.String()), &list))
}

// probe reads an access token, and sends a protected request every 10 ms, on 8
// connections in turn, until in ends. Then it writes them.
func probe(in io.Reader, w io.Writer, addr string) error {
	const conns, period = 8, 80 * time.Millisecond
	lines := bufio.NewReader(in)
	token, err := lines.ReadString('\n')
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var all []sample
	var failed error
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range conns {
		c, err := dial(addr, fmt.Sprintf("GET /api/me HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", addr, strings.TrimSpace(token)))
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer func() { _ = c.Close() }()
			time.Sleep(period * time.Duration(i) / conns)
			ticks := time.NewTicker(period)
			defer ticks.Stop()
			for {
				select {
				case <-done:
					return
				case <-ticks.C:
				}
				begin := time.Now()
				status, took, err := c.do()
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("a protected request has status %d", status)
				}
				mu.Lock()
				all, failed = append(all, sample{begin, took}), errors.Join(failed, err)
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	_, err = io.Copy(io.Discard, lines)
	close(done)
	wg.Wait()
	return errors.Join(err, failed, json.NewEncoder(w).Encode(all))
}
