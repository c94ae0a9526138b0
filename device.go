package auth

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds in bytes.
const (
	maxUserAgent  = 256
	maxDeviceName = 100
)

// Device returns the cleaned User-Agent and the IP address of the client that
// sent the request.
//
// The address is that of the connection. If that is in Config.TrustedProxies,
// Device reads X-Forwarded-For from its end and returns the first address that is
// not in TrustedProxies.
func (v *Verifier) Device(r *http.Request) Device {
	return Device{UserAgent: cleanText(r.UserAgent(), maxUserAgent), IP: v.clientIP(r)}
}

func (v *Verifier) clientIP(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	ip := plainAddr(peer.Addr())
	if !v.isProxy(ip) {
		return ip
	}
	for _, header := range slices.Backward(r.Header["X-Forwarded-For"]) {
		for more := true; more; {
			var hop string
			i := strings.LastIndexByte(header, ',')
			more = i >= 0
			header, hop = header[:max(i, 0)], header[i+1:]
			next, ok := parseHop(strings.TrimSpace(hop))
			if !ok { // do not trust the entries before a malformed one
				return ip
			}
			if ip = next; !v.isProxy(ip) {
				return ip
			}
		}
	}
	return ip
}

// parseHop parses an address with or without a port.
func parseHop(hop string) (netip.Addr, bool) {
	if ip, err := netip.ParseAddr(hop); err == nil {
		return plainAddr(ip), true
	}
	if ap, err := netip.ParseAddrPort(hop); err == nil {
		return plainAddr(ap.Addr()), true
	}
	return netip.Addr{}, false
}

func plainAddr(ip netip.Addr) netip.Addr { return ip.Unmap().WithZone("") }

func (v *Verifier) isProxy(ip netip.Addr) bool {
	return slices.ContainsFunc(v.proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// cleanText returns text from a client in a form that can be stored, logged and
// displayed: valid UTF-8 without control or format characters, without space at
// its ends, and truncated to limit bytes.
func cleanText(s string, limit int) string {
	if len(s) > 4*limit {
		s = s[:4*limit]
	}
	if isPrintable(s) { // nearly always
		return cutText(strings.TrimSpace(s), limit)
	}
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return -1
		}
		return r
	}, s)
	return cutText(strings.TrimSpace(s), limit)
}

// cutText truncates valid UTF-8 to at most limit bytes, at the start of a
// character.
func cutText(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
		for !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
	}
	return s
}

// isPrintable reports whether s consists of printable ASCII characters.
func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isPlainText reports whether s is valid UTF-8 without control characters.
func isPlainText(s string) bool {
	return isPrintable(s) || utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// Device describes the client that sent a request. [Verifier.Device] returns the
// Device of a request.
type Device struct {
	UserAgent string     // cleaned; at most 256 bytes of UTF-8
	IP        netip.Addr // the zero Addr if unknown
}

func cleanDevice(d Device) Device {
	return Device{UserAgent: cleanText(d.UserAgent, maxUserAgent), IP: plainAddr(d.IP)}
}

func checkDevice(d Device) error {
	switch {
	case len(d.UserAgent) > maxStoredAgent || !isPlainText(d.UserAgent):
		return notStorable("Device.UserAgent must be at most 1024 bytes of UTF-8 without control characters")
	case d.IP.Zone() != "":
		return notStorable("Device.IP must not have a zone")
	}
	return nil
}
