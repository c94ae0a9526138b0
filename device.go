package auth

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what is kept of a device, in bytes.
const (
	maxUserAgent  = 256
	maxDeviceName = 100
)

// Device returns what is known of the program that sent the request: its
// User-Agent, cleaned, and its address. The address is that of the connection,
// unless that lies in Config.TrustedProxies: then X-Forwarded-For is read from
// its end, and the first address that is not a trusted proxy counts.
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
			if !ok { // what is left of it is anybody's word
				return ip
			}
			if ip = next; !v.isProxy(ip) {
				return ip
			}
		}
	}
	return ip
}

// parseHop reads an address, with or without a port.
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

// cleanText makes text of a client fit to be stored, logged and shown: valid
// UTF-8 without control or formatting characters, cut at limit bytes.
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

// cutText cuts s at limit bytes, or before the letter that lies across.
func cutText(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
		for !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
	}
	return s
}

// isPrintable reports whether s is of printable ASCII alone.
func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isPlainText reports whether s is UTF-8 without control characters.
func isPlainText(s string) bool {
	return isPrintable(s) || utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// Device is what is known of the program that presented a credential.
// [Verifier.Device] reads it from a request.
type Device struct {
	UserAgent string     // cleaned, at most 256 bytes of UTF-8
	IP        netip.Addr // the zero Addr when unknown
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
