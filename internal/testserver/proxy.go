package testserver

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy is a TCP proxy that injects faults. It is safe for concurrent use.
type Proxy struct {
	Addr string // host:port

	delay  atomic.Int64 // nanoseconds before each write, in each direction
	refuse atomic.Bool  // new connections are closed at once
	down   atomic.Int64 // remaining bytes from the server; negative means unlimited
	up     atomic.Int64 // remaining bytes to the server; negative means unlimited

	mu     sync.Mutex
	target string
	conns  map[net.Conn]struct{}
	gate   chan struct{} // closed while traffic passes
	ended  bool
}

// NewProxy returns a proxy for the server at target. It is closed when the test
// ends.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("proxy: %v", err)
	}
	p := &Proxy{Addr: ln.Addr().String(), target: target, conns: map[net.Conn]struct{}{}, gate: make(chan struct{})}
	close(p.gate)
	p.down.Store(-1)
	p.up.Store(-1)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	tb.Cleanup(func() {
		_ = ln.Close()
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		p.Resume()
		p.Cut()
		wg.Wait()
	})
	return p
}

// Cut closes all connections. It accepts new ones.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// Refuse closes all connections, and closes every new one until it is called
// with false.
func (p *Proxy) Refuse(on bool) {
	p.refuse.Store(on)
	if on {
		p.Cut()
	}
}

// Retarget closes all connections, and connects new ones to the server at addr.
func (p *Proxy) Retarget(addr string) {
	p.mu.Lock()
	p.target = addr
	p.mu.Unlock()
	p.Cut()
}

// Hang blocks traffic in both directions, without closing connections.
func (p *Proxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
		p.gate = make(chan struct{})
	default:
	}
}

// Resume ends Hang.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

// Delay delays every write by d, in each direction.
func (p *Proxy) Delay(d time.Duration) { p.delay.Store(int64(d)) }

// CutResponses lets n more bytes arrive from the server, counted over all
// connections, and then closes the connection of the next byte: the server has
// executed a command whose response is lost. It does so once. A negative n
// removes the limit.
func (p *Proxy) CutResponses(n int) { p.down.Store(int64(n)) }

// CutRequests lets n more bytes pass to the server, counted over all
// connections, and then closes the connection of the next byte. It does so
// once. A negative n removes the limit.
func (p *Proxy) CutRequests(n int) { p.up.Store(int64(n)) }

// Conns returns the number of connections to the server.
func (p *Proxy) Conns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) / 2
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	if p.refuse.Load() {
		return
	}
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return
	}
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, client)
		delete(p.conns, server)
	}()
	var wg sync.WaitGroup
	wg.Go(func() { p.copy(client, server, &p.down) })
	wg.Go(func() { p.copy(server, client, &p.up) })
	wg.Wait()
}

// copy copies from one connection to the other until either is closed, and then
// closes both.
func (p *Proxy) copy(to, from net.Conn, left *atomic.Int64) {
	defer to.Close()
	defer from.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			if d := p.delay.Load(); d > 0 {
				time.Sleep(time.Duration(d))
			}
			p.mu.Lock()
			gate := p.gate
			p.mu.Unlock()
			<-gate
			pass, cut := spend(left, n)
			if _, err := to.Write(b[:pass]); err != nil || cut {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// spend takes up to n bytes from left. It returns how many, and whether that
// used up the limit.
func spend(left *atomic.Int64, n int) (pass int, cut bool) {
	for {
		l := left.Load()
		switch {
		case l < 0:
			return n, false
		case int64(n) <= l:
			if left.CompareAndSwap(l, l-int64(n)) {
				return n, false
			}
		default:
			if left.CompareAndSwap(l, -1) {
				return int(l), true
			}
		}
	}
}
