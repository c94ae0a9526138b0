// Uses the endpoints of package oauth with oauth4webapi, as an application does. The
// argument is a JSON object; each line of the output is one too.
import * as oauth from 'oauth4webapi'

const input = JSON.parse(process.argv[2])
const http = { [oauth.allowInsecureRequests]: true } // a loopback address without TLS

const log = (step, result) => console.log(JSON.stringify({ step, result }))

// failure returns what the library says about an error response.
async function failure(promise) {
  try {
    return { unexpected: await promise }
  } catch (e) {
    const { error, error_description, status } = e
    if (e instanceof oauth.ResponseBodyError) return { error, error_description, status }
    if (e instanceof oauth.WWWAuthenticateChallengeError) return { challenges: e.cause, status }
    return { unexpected: String(e) }
  }
}

const issuer = new URL(input.issuer)
const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { ...http, algorithm: 'oauth2' }))
log('metadata', as)

const ways = {
  none: oauth.None(),
  client_secret_post: oauth.ClientSecretPost(input.secret),
  client_secret_basic: oauth.ClientSecretBasic(input.secret),
}
const client = { client_id: input.client }
const wrong = oauth.ClientSecretBasic('wrong')
const refresh = async (auth, token) =>
  oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, auth, token, http))

for (const way of as.token_endpoint_auth_methods_supported) {
  const auth = ways[way]
  const first = await refresh(auth, input.refresh[way])
  log(way + ': refresh', { ...first, access_token: typeof first.access_token, refresh_token: typeof first.refresh_token })

  // The token endpoint's answer was lost, and the client repeats the request.
  const again = await refresh(auth, input.refresh[way])
  log(way + ': repeated', again.refresh_token === first.refresh_token)

  if (way !== 'none') {
    const introspect = async (token) =>
      oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, auth, token, http))
    log(way + ': introspect', await introspect(first.access_token))
    log(way + ': introspect a refresh token', await introspect(first.refresh_token))
    await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, auth, first.refresh_token, http))
    log(way + ': introspect after revoke', await introspect(first.access_token))
  } else {
    await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, auth, first.refresh_token, http))
  }
  log(way + ': refresh after revoke', await failure(refresh(auth, first.refresh_token)))
  log(way + ': revoke again', (await oauth.revocationRequest(as, client, auth, first.refresh_token, http)).status)
}

log('wrong secret', await failure(refresh(wrong, input.refresh.none ?? 'x')))
log('not a token', await failure(refresh(ways[as.token_endpoint_auth_methods_supported[0]], 'x')))

// A protected resource says where to get a token.
const resource = new URL(input.resource)
const challenge = await failure(oauth.protectedResourceRequest('x', 'GET', resource, undefined, undefined, http))
log('challenge', challenge)
const found = await oauth.processResourceDiscoveryResponse(resource, await oauth.resourceDiscoveryRequest(resource, http))
log('resource', found)
