package site

import (
	"fmt"
	"io"
	"net"
	"strings"
)

// greet prints where the program listens, who can sign in and what to paste.
// It prints no secret; the password is one that everybody may know.
func greet(w io.Writer, addr net.Addr, o Options) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	base := "http://" + addr.String()
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		base = fmt.Sprintf("http://127.0.0.1:%d", tcp.Port)
	}
	say("Ratchet %s on %s", o.Name, base)
	say("")
	say("  ada  ada@example.com  role admin")
	say("  bob  bob@example.com  role user")
	say("  both with the password %q", Password)
	say("")
	for _, note := range o.Notes {
		say("%s", note)
	}
	steps := tokenSteps
	if isLoopback(addr) {
		steps += cookieSteps
	} else {
		say("%s is not a loopback address: cookies are Secure, so browsers want HTTPS in front of it.", addr)
	}
	say("\nOpen %s in a browser, or paste this into bash:\n", base)
	say("%s", strings.NewReplacer("$BASE", base, "$PASSWORD", Password).Replace(steps))
}

const tokenSteps = `# ada signs in and asks for her tokens in the body
ADA=$(curl -sS $BASE/auth/login -d login=ada --data-urlencode 'password=$PASSWORD' -d device=curl -d delivery=body); echo "$ADA"
ACCESS=$(echo "$ADA" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
REFRESH=$(echo "$ADA" | sed 's/.*"refresh_token":"\([^"]*\)".*/\1/')
curl -sS $BASE/api/me -H "Authorization: Bearer $ACCESS"
curl -sS $BASE/api/admin -H "Authorization: Bearer $ACCESS"
# a refresh gives a new access token, and the refresh token to hold from now on
NEXT=$(curl -sS $BASE/auth/refresh -d refresh_token=$REFRESH); echo "$NEXT"
ACCESS=$(echo "$NEXT" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
REFRESH=$(echo "$NEXT" | sed 's/.*"refresh_token":"\([^"]*\)".*/\1/')
curl -sS $BASE/auth/sessions -H "Authorization: Bearer $ACCESS"
# bob is no admin: 403
BOB=$(curl -sS $BASE/auth/login -d login=bob@example.com --data-urlencode 'password=$PASSWORD' -d delivery=body | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
curl -sS -w '%{http_code}\n' $BASE/api/admin -H "Authorization: Bearer $BOB"
# ada signs out: 204; her access token is dead at once: 401, and so is the refresh token: 401
curl -sS -w '%{http_code}\n' -X POST $BASE/auth/logout -H "Authorization: Bearer $ACCESS"
curl -sS -w '%{http_code}\n' $BASE/api/me -H "Authorization: Bearer $ACCESS"
curl -sS -w '%{http_code}\n' $BASE/auth/refresh -d refresh_token=$REFRESH
`

const cookieSteps = `# the same as a browser does it: the tokens are in cookies, and never in a body
JAR=$(mktemp)
curl -sS -c "$JAR" $BASE/auth/login -d login=ada --data-urlencode 'password=$PASSWORD'
curl -sS -b "$JAR" $BASE/api/me
curl -sS -b "$JAR" -c "$JAR" -X POST $BASE/auth/refresh
curl -sS -b "$JAR" -c "$JAR" -X POST -w '%{http_code}\n' $BASE/auth/logout
curl -sS -b "$JAR" -w '%{http_code}\n' $BASE/api/me
rm "$JAR"
`
