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
	"net/http/httputil"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// fleet is the set of running nodes.
type fleet struct {
	setup nodeSetup
	count int // number of nodes started so far
	next  atomic.Uint64

	mu      sync.Mutex
	running []*process
}

func (f *fleet) nodes() []*process {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.running)
}

// process is the process of a node.
type process struct {
	number int
	addr   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	dead   atomic.Bool
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) kill() error {
	p.dead.Store(true)
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	return err
}

// start starts a node and waits until it listens. The node replaces a killed one, if
// there is one.
func (f *fleet) start(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f.count++
	p := &process{number: f.count, cmd: exec.CommandContext(ctx, self, "-node")}
	p.cmd.Stderr = os.Stderr
	out, err1 := p.cmd.StdoutPipe()
	in, err2 := p.cmd.StdinPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	p.in = in
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	err = json.NewEncoder(in).Encode(f.setup)
	if err == nil {
		p.addr, err = bufio.NewReader(out).ReadString('\n')
		p.addr = strings.TrimSpace(p.addr)
	}
	if err != nil {
		_ = p.kill()
		return nil, fmt.Errorf("node %d did not start: %w", p.number, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.IndexFunc(f.running, func(p *process) bool { return p.dead.Load() }); i >= 0 {
		f.running[i] = p
	} else {
		f.running = append(f.running, p)
	}
	return p, nil
}

// end stops the running nodes.
func (f *fleet) end() {
	for _, p := range f.nodes() {
		if !p.dead.Load() {
			_ = p.in.Close()
			_ = p.cmd.Wait()
		}
	}
}

// proxyServer is an HTTP server on a loopback address.
type proxyServer struct {
	*http.Server
	Addr string
}

// startProxy starts a proxy that sends each request to the next node. It skips a node
// that does not accept connections.
func startProxy(f *fleet) (*proxyServer, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: time.Second}
	transport := &http.Transport{
		DisableKeepAlives: true, // a connection for each request, so that each can use another node
		DialContext: func(ctx context.Context, network, _ string) (c net.Conn, err error) {
			nodes := f.nodes()
			for range nodes {
				n := nodes[f.next.Add(1)%uint64(len(nodes))]
				if c, err = dialer.DialContext(ctx, network, n.addr); err == nil {
					return c, nil
				}
			}
			return nil, err
		},
	}
	s := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "fleet"
			r.SetXForwarded()
		},
		Transport:     transport,
		FlushInterval: -1, // for streams
	}}
	go func() { _ = s.Serve(ln) }()
	return &proxyServer{s, ln.Addr().String()}, nil
}
