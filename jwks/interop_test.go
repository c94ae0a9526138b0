package jwks_test

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/internal/testserver"
)

// joseVersion is the version of the npm package jose that is used.
const joseVersion = "6.2.17"

// TestInterop_OtherLibrariesVerify: libraries that share no code with this
// repository verify the token is each algorithm with the key set that is served
// on a loopback socket, and refuse invalid ones.
func TestInterop_OtherLibrariesVerify(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: installs a package from npm")
	}
	t.Parallel()
	node, npm := testserver.Need(t, "node", "nodejs"), testserver.Need(t, "npm", "npm")

	algorithms := everyAlgorithm(t)
	var keys auth.Keys
	for _, k := range algorithms {
		keys = append(keys, k)
	}
	a := newIssuer(t, nil, keys...)
	server := httptest.NewServer(a.JWKSHandler())
	defer server.Close()
	type example struct {
		Alg, Token string
		Good       bool
		Why        string
	}
	var tokens []example
	for alg, k := range algorithms {
		token := newToken(t, newIssuer(t, nil, k))
		header, rest, _ := strings.Cut(token, ".")
		payload, sig, _ := strings.Cut(rest, ".")
		other := newToken(t, newIssuer(t, nil, k))
		raised := newIssuer(t, nil, k)
		require.NoError(t, raised.RevokeAll(t.Context(), "u1"))
		stranger, err := auth.New(auth.Config{
			Issuer: issuer, Audience: []string{"https://other.example"}, Users: users{},
			AccessKeys: auth.Keys{k}, RefreshKeys: auth.Keys{auth.HS256([]byte("the refresh secret of these tests."))},
		})
		require.NoError(t, err)
		tokens = append(tokens,
			example{alg, token, true, ""},
			example{alg, newToken(t, raised), true, ""}, // its iat must not be in the future
			example{alg, header + "." + payload + other[strings.LastIndexByte(other, '.'):], false, "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"},
			example{alg, newToken(t, stranger), false, "ERR_JWT_CLAIM_VALIDATION_FAILED"},
		)
		require.NotEmpty(t, sig)
	}

	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	run := func(program string, args ...string) []byte {
		t.Helper()
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
		require.NoError(t, cmd.Run(), "%s %v\n%s%s", program, args, stdout.Bytes(), stderr.Bytes())
		return stdout.Bytes()
	}
	write("package.json", `{"name":"interop","private":true,"type":"module"}`)
	write("verify.mjs", verifyProgram)
	input, err := json.Marshal(map[string]any{"url": server.URL + "/jwks.json", "issuer": issuer, "audience": audience, "tokens": tokens})
	require.NoError(t, err)
	write("input.json", string(input))
	run(npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "jose@"+joseVersion)

	var results []struct{ Alg, Jose, Node string }
	out := run(node, "verify.mjs")
	require.NoError(t, json.Unmarshal(out, &results), string(out))
	require.Len(t, results, len(tokens))
	for i, r := range results {
		want := tokens[i]
		if want.Good {
			require.Equal(t, "u1", r.Jose, "jose, %s", want.Alg)
		} else {
			require.Equal(t, want.Why, r.Jose, "jose, %s", want.Alg)
		}
		// node's crypto checks only the signature.
		signed := "signed"
		if want.Why == "ERR_JWS_SIGNATURE_VERIFICATION_FAILED" {
			signed = "not signed"
		}
		require.Equal(t, signed, r.Node, "node, %s", want.Alg)
	}
	t.Logf("jose %s and %s: %d tokens of %d algorithms", joseVersion, strings.TrimSpace(string(run(node, "--version"))), len(tokens), len(algorithms))
}

const verifyProgram = `
import { createRemoteJWKSet, jwtVerify } from 'jose'
import { createPublicKey, verify, constants } from 'node:crypto'
import { readFileSync } from 'node:fs'

const input = JSON.parse(readFileSync('input.json', 'utf8'))
const remote = createRemoteJWKSet(new URL(input.url), { cooldownDuration: 0 })

async function byJose({ Alg, Token }) {
  try {
    const { payload } = await jwtVerify(Token, remote, {
      algorithms: [Alg],
      issuer: input.issuer,
      audience: input.audience,
      typ: 'at+jwt',
      clockTolerance: 0,
      maxTokenAge: '1h',
      requiredClaims: ['sub', 'exp', 'iat', 'jti', 'sid', 'auth_time'],
    })
    return payload.sub
  } catch (e) {
    return e.code ?? String(e)
  }
}

const published = await (await fetch(input.url)).json()

const how = {
  EdDSA: [null, {}],
  ES256: ['sha256', { dsaEncoding: 'ieee-p1363' }],
  ES384: ['sha384', { dsaEncoding: 'ieee-p1363' }],
  ES512: ['sha512', { dsaEncoding: 'ieee-p1363' }],
  PS256: ['sha256', { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }],
  RS256: ['sha256', { padding: constants.RSA_PKCS1_PADDING }],
}

function byNode({ Alg, Token }) {
  const [header, payload, signature] = Token.split('.')
  const { alg, kid } = JSON.parse(Buffer.from(header, 'base64url'))
  const jwk = published.keys.find((k) => k.kid === kid && k.alg === alg && k.use === 'sig')
  if (alg !== Alg || !jwk) return 'no key'
  const [hash, options] = how[alg]
  const key = { key: createPublicKey({ key: jwk, format: 'jwk' }), ...options }
  const good = verify(hash, Buffer.from(header + '.' + payload), key, Buffer.from(signature, 'base64url'))
  return good ? 'signed' : 'not signed'
}

const results = []
for (const t of input.tokens) results.push({ Alg: t.Alg, Jose: await byJose(t), Node: byNode(t) })
console.log(JSON.stringify(results))
`
