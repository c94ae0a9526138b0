package site

import (
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIsLoopback(t *testing.T) {
	t.Parallel()
	for ip, want := range map[string]bool{
		"127.0.0.1": true, "127.1.2.3": true, "::1": true,
		"0.0.0.0": false, "::": false, "192.168.0.7": false, "203.0.113.1": false, "2001:db8::1": false,
	} {
		require.Equal(t, want, isLoopback(&net.TCPAddr{IP: net.ParseIP(ip), Port: 8080}), ip)
	}
	require.False(t, isLoopback(&net.TCPAddr{}))
	require.False(t, isLoopback(&net.UnixAddr{Name: "x", Net: "unix"}))

	var b strings.Builder
	greet(&b, &net.TCPAddr{IP: net.IPv4zero, Port: 80}, Options{})
	require.Contains(t, b.String(), "cookies are Secure")
	require.NotContains(t, b.String(), "JAR")
}
