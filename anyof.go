package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ratchet-go/auth/internal/strictjson"
)

// AnyOf returns a Verifier that accepts the access tokens of several issuers, such as
// one for each tenant, or the old and the new name of a service. The claim iss of a
// token, which is not verified yet, selects the verifier with exactly that issuer,
// and only that one verifies the token. Nothing else of the token is used before.
//
// The result looks for tokens where the first verifier does, and uses the cookies,
// the trusted origins, the proxies, the ResourceMetadata and the OnError of the first.
// Everything else is that of the selected verifier: keys, audience, cache, revocations, and events about
// its tokens. Config.AutoRefresh is that of the verifier that has signed the refresh
// cookie; it has an effect only if the cookies of that verifier have the same names
// as those of the first. For an [Authenticator] pass its field Verifier, as in
// AnyOf(a.Verifier, b.Verifier). Handlers that end sessions, such as
// [Authenticator.LogoutHandler], remain those of each Authenticator. Subjects of two
// issuers may be equal, so an application uses [Claims].Issuer together with Subject.
//
// [Verifier.SessionContext] follows the revocations of the issuer of the claims.
// [Verifier.Run] of the result calls Run of each verifier, and returns the error of
// the first that ends. So call either Run of the result, or Run of each verifier.
// [Verifier.Ready] is closed when Run of the result has found each verifier ready.
// [Verifier.Health] combines those of the verifiers: Ready is set if all are ready,
// FeedAge is the greatest, and the other fields are sums.
//
// It is an error if there is no verifier, if one is nil or was not created by
// [NewVerifier] or [New], or if two have the same issuer. The verifiers of a Verifier
// that AnyOf has returned count as if they were passed.
func AnyOf(verifiers ...*Verifier) (*Verifier, error) {
	if len(verifiers) == 0 {
		return nil, errors.New("auth: AnyOf needs at least one Verifier")
	}
	var list []*Verifier
	var errs []error
	for i, v := range verifiers {
		switch {
		case v == nil:
			errs = append(errs, fmt.Errorf("auth: AnyOf: verifier %d of %d is nil; create it with NewVerifier or New", i+1, len(verifiers)))
		case v.ready == nil:
			errs = append(errs, fmt.Errorf("auth: AnyOf: verifier %d of %d is a zero Verifier; create it with NewVerifier or New", i+1, len(verifiers)))
		case v.members != nil:
			list = append(list, v.members...)
		default:
			list = append(list, v)
		}
	}
	issuers := map[string]bool{}
	for _, v := range list {
		if issuers[v.issuer] {
			errs = append(errs, fmt.Errorf("auth: AnyOf: two verifiers have the issuer %s", quoted(v.issuer)))
		}
		issuers[v.issuer] = true
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return newAnyOf(list), nil
}

func newAnyOf(list []*Verifier) *Verifier {
	first := list[0]
	v := &Verifier{
		members: list, cookies: first.cookies, extractors: first.extractors, vary: first.vary, noStore: first.noStore,
		proxies: first.proxies, unixPeers: first.unixPeers, leeway: first.leeway, now: first.now,
		onEvent: first.onEvent, faultsOnly: first.faultsOnly, noToken: first.noToken, onError: first.onError, resource: first.resource,
		hookTimeout: first.hookTimeout, ready: make(chan struct{}),
	}
	v.closeIfReady()
	return v
}

// otherIssuer returns the error for a token whose iss is of no verifier. Its text does
// not contain the iss, which any client can choose.
func otherIssuer() error {
	return &tokenError{"claims: no verifier has the iss of the token", "iss", "the token is of another issuer"}
}

// memberFor returns the member that verifies a token.
func (v *Verifier) memberFor(token string) (*Verifier, error) {
	iss, err := unverifiedIssuer(token)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(v.members, func(m *Verifier) bool { return m.issuer == iss }); i >= 0 {
		return v.members[i], nil
	}
	return nil, otherIssuer()
}

// unverifiedIssuer returns the claim iss of a token whose signature was not checked.
func unverifiedIssuer(token string) (iss string, err error) {
	if len(token) > maxToken {
		return "", tooLarge
	}
	segments := strings.SplitN(token, ".", 4)
	if len(segments) != 3 {
		return "", notThreeSegments
	}
	payload, ok := decodeSegment(nil, segments[1])
	if !ok {
		return "", badPayload
	}
	claims, err := strictjson.Members(string(payload)) // refuses duplicates, in linear time
	if err != nil {
		return "", malformed("claims: not a JSON object with unique names")
	}
	iss, ok = strictjson.String(claims["iss"])
	if !ok || !utf8.ValidString(iss) {
		return "", otherIssuer()
	}
	return iss, nil
}

// refreshMember does what [Verifier.refreshRequest] does, by the member that has
// signed a refresh cookie. If several have, it is the first whose token counts: as
// for one Authenticator, a cookie that does not count does not hide another. It
// must have the names of v's cookies, or v would not read those that it sets.
func (v *Verifier) refreshMember(w http.ResponseWriter, r *http.Request, cause error) (*http.Request, string, error) {
	var chosen *Verifier
	best := 0
	for _, m := range v.members {
		if m.backend == nil || m.cookies == nil || v.cookies == nil ||
			m.cookies.access.Name != v.cookies.access.Name || m.cookies.refresh.Name != v.cookies.refresh.Name {
			continue
		}
		if rank := m.backend.refreshCookieRank(r); rank > best {
			chosen, best = m, rank
		}
	}
	if chosen == nil {
		return r, "", cause
	}
	return chosen.backend.refreshRequest(v, w, r, cause)
}

// runMembers is Run of a Verifier with members.
func (v *Verifier) runMembers(ctx context.Context) error {
	if !v.running.CompareAndSwap(false, true) {
		return errors.New("auth: Run is already running")
	}
	defer v.running.Store(false)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error)
	for _, m := range v.members {
		go func() { ended <- m.Run(ctx) }()
	}
	var first error
	for waiting, running := v.members, len(v.members); running > 0; {
		var ready <-chan struct{}
		if len(waiting) > 0 {
			ready = waiting[0].ready
		}
		select {
		case <-ready:
			waiting = waiting[1:]
			v.closeIfReady()
		case err := <-ended:
			if running--; first == nil {
				first = err
				cancel() // all follow their feeds, or none
			}
		}
	}
	return first
}

// closeIfReady closes Ready if each member is ready.
func (v *Verifier) closeIfReady() {
	if v.Health().Ready {
		v.readyOnce.Do(func() { close(v.ready) })
	}
}

// healthOfMembers is Health of a Verifier with members.
func (v *Verifier) healthOfMembers() Health {
	h := Health{Ready: true, Abandoned: v.hooks.abandoned(), DroppedEvents: v.dropped.Load()}
	for _, m := range v.members {
		one := m.Health()
		h.Ready = h.Ready && one.Ready
		h.FeedAge = max(h.FeedAge, one.FeedAge)
		h.Revocations += one.Revocations
		h.Throttled += one.Throttled
		h.Abandoned += one.Abandoned
		h.DroppedEvents += one.DroppedEvents
	}
	return h
}
