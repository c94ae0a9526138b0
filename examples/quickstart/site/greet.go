package site

import (
	"fmt"
	"io"
	"net"
	"strings"
)

// greet prints the address of the program, the users and commands to try. It prints
// no secret: the password of the demo users is public.
func greet(w io.Writer, addr net.Addr, o Options) {
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	base := "http://" + addr.String()
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		base = fmt.Sprintf("http://127.0.0.1:%d", tcp.Port)
	}
	line("Ratchet %s on %s", o.Name, base)
	line("")
	line("  ada  ada@example.com  role admin")
	line("  bob  bob@example.com  role user")
	line("  both with the password %q", Password)
	line("")
	for _, note := range o.Notes {
		line("%s", note)
	}
	steps := tokenSteps
	if isLoopback(addr) {
		steps += cookieSteps
	} else {
		line("%s is not a loopback address: cookies are Secure, so browsers need HTTPS, for example through a proxy.", addr)
	}
	line("\nOpen %s in a browser, or paste this into bash:\n", base)
	line("%s", strings.NewReplacer("$BASE", base, "$PASSWORD", Password).Replace(steps))
}

const tokenSteps = `# ada signs in, with tokens in the body
ADA=$(curl -sS $BASE/auth/login -d login=ada --data-urlencode 'password=$PASSWORD' -d device=curl -d delivery=body); echo "$ADA"
ACCESS=$(echo "$ADA" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
REFRESH=$(echo "$ADA" | sed 's/.*"refresh_token":"\([^"]*\)".*/\1/')
curl -sS $BASE/api/me -H "Authorization: Bearer $ACCESS"
curl -sS $BASE/api/admin -H "Authorization: Bearer $ACCESS"
# a refresh returns a new access token and a new refresh token
NEXT=$(curl -sS $BASE/auth/refresh -d refresh_token=$REFRESH); echo "$NEXT"
ACCESS=$(echo "$NEXT" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
REFRESH=$(echo "$NEXT" | sed 's/.*"refresh_token":"\([^"]*\)".*/\1/')
curl -sS $BASE/auth/sessions -H "Authorization: Bearer $ACCESS"
# a client with a library for OAuth finds the endpoints here, and refreshes at /oauth/token
curl -sS $BASE/.well-known/oauth-authorization-server -w '\n'
curl -sS $BASE/oauth/token -d grant_type=refresh_token -d refresh_token=$REFRESH
# bob is not an admin: 403
BOB=$(curl -sS $BASE/auth/login -d login=bob@example.com --data-urlencode 'password=$PASSWORD' -d delivery=body | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
curl -sS -w '%{http_code}\n' $BASE/api/admin -H "Authorization: Bearer $BOB"
# ada signs out: 204; her access token (401) and refresh token (401) are rejected at once
curl -sS -w '%{http_code}\n' -X POST $BASE/auth/logout -H "Authorization: Bearer $ACCESS"
curl -sS -w '%{http_code}\n' $BASE/api/me -H "Authorization: Bearer $ACCESS"
curl -sS -w '%{http_code}\n' $BASE/auth/refresh -d refresh_token=$REFRESH
`

const cookieSteps = `# the same with cookies, as in a browser: no token appears in a body
JAR=$(mktemp)
curl -sS -c "$JAR" $BASE/auth/login -d login=ada --data-urlencode 'password=$PASSWORD'
curl -sS -b "$JAR" $BASE/api/me
curl -sS -b "$JAR" -c "$JAR" -X POST $BASE/auth/refresh
curl -sS -b "$JAR" -c "$JAR" -X POST -w '%{http_code}\n' $BASE/auth/logout
curl -sS -b "$JAR" -w '%{http_code}\n' $BASE/api/me
rm "$JAR"
`
