package auth

import (
	"errors"
	"fmt"
	"net"
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

// maxDeviceCookies is how many cookies of a known device are read from a request.
const maxDeviceCookies = 4

// Device returns the cleaned User-Agent and the IP address of the client that
// sent the request.
//
// The address is that of the connection. If that is in Config.TrustedProxies,
// Device reads X-Forwarded-For from its end and returns the first address that is
// not in TrustedProxies. A connection over a Unix socket has no address: Device
// returns none, or reads X-Forwarded-For if Config.TrustUnixPeers is set.
//
// The result also says whether the client has the cookie of a known device; see
// [Cookies].DeviceName. So pass it on as it is.
func (v *Verifier) Device(r *http.Request) Device {
	d := v.device(r)
	var known []string
	if v.cookies != nil {
		for _, c := range r.CookiesNamed(v.cookies.device.Name) { // one of another path or host may hide the valid one
			if known = append(known, c.Value); len(known) == maxDeviceCookies {
				break
			}
		}
	}
	if forwarded := len(r.Header["X-Forwarded-For"]) > 0 && len(v.proxies) == 0; known != nil || forwarded {
		d.request = &deviceRequest{known, forwarded}
	}
	return d
}

// device is Device without what only the throttle uses.
func (v *Verifier) device(r *http.Request) Device {
	return Device{UserAgent: cleanText(r.UserAgent(), maxUserAgent), IP: v.clientIP(r)}
}

func (v *Verifier) clientIP(r *http.Request) netip.Addr {
	var ip netip.Addr
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		if ip = plainAddr(peer.Addr()); !v.isProxy(ip) {
			return ip
		}
	} else if !v.unixPeers || !overUnixSocket(r) {
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

// overUnixSocket reports whether a client sent the request to a Unix socket. It
// asks net/http for the address of the listener, because middleware may replace
// RemoteAddr, for example by a header that the client sent.
func overUnixSocket(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && local != nil && strings.HasPrefix(local.Network(), "unix")
}

// checkProxies returns an error that joins every mistake in proxies, which are
// the value of a field.
func checkProxies(field string, proxies []netip.Prefix) error {
	var errs []error
	var all []netip.Prefix
	for i, p := range proxies {
		switch {
		case !p.IsValid():
			errs = append(errs, fmt.Errorf("auth: %s[%d] is not a valid prefix", field, i))
			continue
		case p.Addr().Is4In6():
			p = netip.PrefixFrom(p.Addr().Unmap(), max(0, p.Bits()-96))
			if p.Bits() > 0 { // do not suggest 0.0.0.0/0, which is refused below
				errs = append(errs, fmt.Errorf("auth: %s[%d] (%s) matches no address; write it as an IPv4 prefix, %s", field, i, proxies[i], p))
			}
		}
		all = append(all, p)
	}
	for _, public := range [...]struct {
		name   string
		within string
		except []string // addresses in the network that no client on the internet has (RFC 6890, RFC 5771)
	}{
		{"IPv4", "0.0.0.0/0", []string{
			"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3",
		}},
		{"IPv6", "2000::/3", nil},
	} {
		covering := slices.Clone(all)
		for _, p := range public.except {
			covering = append(covering, netip.MustParsePrefix(p))
		}
		if covers(covering, netip.MustParsePrefix(public.within)) {
			errs = append(errs, fmt.Errorf("auth: %s contains every public %s address, so any client could choose its address by X-Forwarded-For; "+
				"list only the networks of your proxies, such as 10.0.0.0/8", field, public.name))
		}
	}
	return errors.Join(errs...)
}

// covers reports whether every address of network is in one of prefixes.
func covers(prefixes []netip.Prefix, network netip.Prefix) bool {
	var within []netip.Prefix
	for _, p := range prefixes {
		switch {
		case !p.Overlaps(network):
		case p.Bits() <= network.Bits():
			return true
		default:
			within = append(within, p)
		}
	}
	if within == nil {
		return false
	}
	// Compare the two halves of the network.
	bits := network.Bits() + 1
	low := netip.PrefixFrom(network.Addr(), bits)
	upper := network.Addr().AsSlice()
	upper[(bits-1)/8] |= 0x80 >> ((bits - 1) % 8)
	first, _ := netip.AddrFromSlice(upper)
	return covers(within, low) && covers(within, netip.PrefixFrom(first, bits))
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

	request *deviceRequest // a pointer, so that package fmt does not print the token; nil in events and sessions
}

// deviceRequest is what the throttle uses of a request.
type deviceRequest struct {
	known     []string // tokens of known devices, not verified
	forwarded bool     // it came through a proxy, but there are no TrustedProxies
}

// cleanDevice returns d in a form that can be stored.
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
