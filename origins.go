package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// checkTrustedOrigin returns an error if no browser sends the origin in this
// spelling, because it would then never match. If insecure is false, the cookies
// are Secure, and an http origin must be of a loopback host.
func checkTrustedOrigin(origin string, insecure bool) error {
	u, err := url.Parse(origin)
	switch {
	case origin == "null":
		return errors.New("any page can have the origin null, for example in a sandboxed frame; send tokens to such clients in bodies (AllowBody)")
	case strings.TrimSpace(origin) != origin:
		return errors.New("it begins or ends with a space; remove it")
	case strings.ContainsAny(origin, ", "):
		return errors.New("it contains a comma or a space; list every origin separately")
	case err != nil || u.Scheme == "" || u.Host == "":
		return errors.New("not an origin such as https://app.example.com")
	case slices.Contains([]string{"ws", "wss", "ftp", "file", "blob", "data", "about"}, u.Scheme):
		return fmt.Errorf("browsers never send an origin with the scheme %s; write the origin of the page, such as https://app.example.com", u.Scheme)
	case strings.Contains(origin, "*"):
		return errors.New("wildcards are not supported; list every origin")
	case strings.ContainsFunc(origin, func(r rune) bool { return r >= 0x7f || r == '%' }):
		return errors.New("browsers send the host in its ASCII form (xn--…)")
	}
	// With other schemes, browsers keep the spelling of the host.
	parsed := slices.Contains([]string{"https", "http", "chrome-extension", "moz-extension"}, u.Scheme)
	spelled := u.Scheme + "://" + u.Host // url.Parse has put the scheme into lower case
	if parsed {
		spelled = strings.ToLower(spelled)
	}
	switch {
	case strings.EqualFold(spelled, origin) && spelled != origin:
		return errors.New("browsers send origins in lower case")
	case spelled != origin:
		return errors.New("an origin is a scheme and a host, without path, user or trailing slash")
	}
	if err := checkPort(u); err != nil {
		return err
	}
	if parsed {
		if err := checkHost(u.Hostname(), u.Host); err != nil {
			return err
		}
	} else if strings.ContainsAny(u.Hostname(), "<>[]^|\\\":") {
		return errHostCharacter
	}
	if u.Scheme == "http" && !insecure && !isLoopback(u.Hostname()) {
		return errors.New("anyone on the network can change a page that is loaded over http, and use the cookies through it; write https")
	}
	return nil
}

// errHostCharacter is the error of checkTrustedOrigin for a host such as "a,b".
var errHostCharacter = errors.New("the host contains a character that no host name has; list every origin separately")

// checkPort returns an error if browsers spell the port of an origin differently.
func checkPort(u *url.URL) error {
	port := u.Port()
	n, err := strconv.Atoi(port)
	switch {
	case strings.HasSuffix(u.Host, ":"), port == "443" && u.Scheme == "https", port == "80" && u.Scheme == "http":
		return errors.New("browsers leave out the default port")
	case port == "":
		return nil
	case err != nil || n < 1 || n > 65535:
		return errors.New("the port is not between 1 and 65535")
	case port[0] == '0':
		return errors.New("browsers send ports without leading zeros")
	}
	return nil
}

// checkHost returns an error if browsers spell the host differently (URL
// Standard, "host serializing"), or if no host can have this name. authority is
// the host and port as they are in the origin, with the brackets of an IPv6
// address.
func checkHost(host, authority string) error {
	ip, err := netip.ParseAddr(host)
	if strings.HasPrefix(authority, "[") { // url.Parse accepts only an IPv6 address in brackets
		spelled := ip.String()
		if ip.Is4In6() { // browsers write all of an IPv6 address in hexadecimal
			b := ip.As16()
			spelled = fmt.Sprintf("::ffff:%x:%x", int(b[12])<<8|int(b[13]), int(b[14])<<8|int(b[15]))
		}
		if spelled != host {
			return fmt.Errorf("browsers send this address as [%s]", spelled)
		}
		return nil
	}
	if strings.HasSuffix(host, ".") {
		return errors.New("the host ends with a dot; leave it out")
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		switch {
		case label == "" || len(label) > 63:
			return errors.New("a part of the host between dots has no characters or more than 63")
		case strings.ContainsFunc(label, isNotHostLetter):
			return errHostCharacter
		}
	}
	// Browsers read a host whose last part is a number as an IPv4 address.
	last := labels[len(labels)-1]
	hexadecimal, isHex := strings.CutPrefix(last, "0x")
	isNumber := isHex && strings.Trim(hexadecimal, "0123456789abcdef") == "" || strings.Trim(last, "0123456789") == ""
	if isNumber && err != nil {
		return errors.New("browsers send an IPv4 address as four decimal numbers, such as 127.0.0.1")
	}
	return nil
}

// isNotHostLetter reports whether r is in no host name, as browsers send it.
func isNotHostLetter(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

// isLoopback reports whether host is a name or an address of this machine.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && ip.IsLoopback()
}

// isHTTPS reports whether an issuer is an https URL.
func isHTTPS(issuer string) bool {
	scheme, _, ok := strings.Cut(issuer, ":")
	return ok && strings.EqualFold(strings.TrimSpace(scheme), "https")
}
