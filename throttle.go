package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ratchet-go/auth/password"
)

// Limits of the buckets. The attempts of many people may come from one source.
const (
	accountBurst = 5
	accountDecay = 15 * time.Minute
	sourceBurst  = 50
	sourceDecay  = 30 * time.Second

	devicesBurst = 50 // of all known devices of a user together
)

// nat64 is the prefix of an IPv6 address that contains an IPv4 address (RFC 6052
// section 2.1).
const nat64 = "0064:ff9b:0000:0000:0000:0000:"

// limiterPause is how long a Limiter that has failed is not asked again.
const limiterPause = 5 * time.Second

// Purposes of attempts. Those of an application have no space.
const (
	attemptPassword = "login password"
	attemptFactor   = "login factor"
)

// throttledError is an ErrThrottled.
type throttledError struct {
	wait time.Duration
	kind string // of the bucket that must wait
	hint string // the end of the text, or ""
}

func (e *throttledError) Error() string {
	of := e.kind
	if of == kindOther || of == kindName { // the text must not say whether there is such a user
		of = "account"
	}
	return fmt.Sprintf("%s: the %s must wait %s%s", ErrThrottled, of, e.wait.Round(time.Millisecond), e.hint)
}

func (e *throttledError) Unwrap() error { return ErrThrottled }

// Throttle limits failed attempts: it calls check, which checks a secret that a
// client has sent, such as an API key or a PIN. After too many failed attempts it
// does not call check, and returns [ErrThrottled]. Login, LoginFactor, CheckPassword
// and ChangePassword do this themselves.
//
// The attempt is counted before check is called, for the account and for the source
// of d; see Config.Limiter. So a burst of attempts cannot exceed the limit. If check
// returns nil, the attempts for the account are forgotten, and this one no longer
// counts for the source. If it returns an error that wraps [ErrInvalidCredentials],
// [password.ErrMismatch] or [password.ErrTooLong], the attempt counts as failed.
// After any other error, or a panic, the attempt does not count: the error must not
// say whether the secret was right.
//
// Throttle returns the error of check. Errors of its own are ErrThrottled, and one for
// an invalid purpose or a nil check. check is called in the goroutine of the caller,
// with ctx.
//
// purpose is 1 to 64 printable ASCII characters without spaces. Attempts of
// different purposes count separately for an account, and together for a source.
// account identifies what the secret belongs to, such as User.ID or the ID of a
// client. It may come from the request, and need not exist: it is counted like one
// that exists, so that the response does not say which. d is the result of
// [Verifier.Device]; a Device without an IP address has no source. If account is a
// User.ID and d is a known device of this user ([Cookies].DeviceName), the attempt is
// counted only for the device.
func (a *Authenticator) Throttle(ctx context.Context, purpose, account string, d Device, check func(context.Context) error) error {
	if !isPurpose(purpose) {
		return fmt.Errorf("auth: the purpose of Throttle must be 1 to %d printable ASCII characters without spaces", maxPurpose)
	}
	if check == nil {
		return errors.New("auth: the check of Throttle is nil")
	}
	return a.throttle(ctx, purpose, account, []Bucket{{kindOther, account, accountBurst, accountDecay}}, d, func() error { return check(ctx) })
}

// attempt is an attempt that was counted.
type attempt struct {
	limiter Limiter
	own     []Bucket // of the account and the name, or of the known device
	source  []Bucket // empty if the source is unknown, or the device is known
	others  []Bucket // like own, of other purposes, which a success clears too
}

// accountBucket returns the bucket of an account, without a digest.
func accountBucket(id string) Bucket { return Bucket{kindAccount, id, accountBurst, accountDecay} }

// nameBucket returns the bucket of a login name, without a digest. An attempt with a
// login name counts for the name even if a user has it. Otherwise a stranger could
// distinguish the two: the application may or may not accept a name in other letters,
// and only the attempts with a name that no user has would then count together, or
// separately. Names that differ only in case, or in white space around them, are one.
func nameBucket(login string) Bucket {
	return Bucket{kindName, foldCase(strings.TrimSpace(login)), accountBurst, accountDecay}
}

// throttle counts an attempt, unless one of its buckets must wait, and calls check.
// account is the ID of the user or another account, or "" if there is none, and own
// are the buckets of the account and of the login name. A success also clears the
// attempts of the other purposes.
func (a *Authenticator) throttle(ctx context.Context, purpose, account string, own []Bucket, d Device, check func() error, others ...string) error {
	var t attempt
	if device := a.knownDevice(d, account); device != "" {
		// A user who has signed in often has many, and so has everybody who once knew
		// the password. So their attempts are limited together too.
		own = []Bucket{{kindDevice, account + "\x00" + device, accountBurst, accountDecay}, {kindDevice, account, devicesBurst, accountDecay}}
	} else {
		t.source = a.sourceBucket(d)
	}
	for _, b := range own {
		t.own = append(t.own, a.withDigest(b, purpose))
		for _, other := range others {
			t.others = append(t.others, a.withDigest(b, other))
		}
	}
	if err := a.take(ctx, &t, d, account); err != nil {
		return err
	}
	err := errors.New("auth: the check has panicked")
	defer func() { a.settle(ctx, &t, err) }()
	err = check()
	return err
}

// throttleForged counts a one-time token that was refused with err, if it has no valid
// signature, and so may be a guess. Only such tokens are throttled: a valid token
// is no guess, and other clients of the same source must be able to use theirs.
func (a *Authenticator) throttleForged(ctx context.Context, d Device, c *oneTimeClaims, err error) error {
	if c.subject != "" || !errors.Is(err, ErrInvalidToken) {
		return nil
	}
	t := attempt{source: a.sourceBucket(d)}
	if len(t.source) == 0 {
		return nil
	}
	return a.take(ctx, &t, d, "")
}

// sourceBucket returns the bucket of the source of a client, if it is known.
func (a *Authenticator) sourceBucket(d Device) []Bucket {
	if source := d.Source(); source != "" {
		return []Bucket{a.withDigest(Bucket{kindSource, source, sourceBurst, sourceDecay}, "")}
	}
	return nil
}

// Source returns the source of d for which failed attempts are counted (see
// Config.Limiter): an IPv4 address, or an IPv6 network (/64), since a client with IPv6
// usually has all addresses of its network. An IPv6 address of a translator of IPv4
// addresses (NAT64) contains the IPv4 address of the client, which is then the source.
// Source returns "" if d has no address.
func (d Device) Source() string {
	ip := plainAddr(d.IP)
	switch {
	case !ip.IsValid():
		return ""
	case ip.Is4():
		return ip.String()
	case strings.HasPrefix(ip.StringExpanded(), nat64):
		b := ip.As16()
		return netip.AddrFrom4([4]byte(b[12:])).String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}

// take counts the attempt t. The account is that of its own bucket.
func (a *Authenticator) take(ctx context.Context, t *attempt, d Device, account string) error {
	buckets := slices.Concat(t.own, t.source)
	wait, index := a.countAttempts(ctx, t, buckets)
	if wait <= 0 {
		return nil
	}
	if index < 0 || index >= len(buckets) {
		index = 0
	}
	throttled := &throttledError{wait: min(wait, maxLimitWait), kind: buckets[index].Kind}
	a.throttled.Add(1)
	e := Event{Type: EventLoginRefused, Device: cleanDevice(d), Err: throttled}
	switch throttled.kind {
	case kindAccount, kindDevice:
		e.Session.Subject = account
	case kindSource:
		if d.request != nil && d.request.forwarded {
			throttled.hint = "; it is a proxy that Config.TrustedProxies does not contain, so all its clients are one source"
		}
	}
	cause := "throttled " + kindAccount
	if throttled.kind == kindSource { // the others share a cause, so that the work does not depend on whether there is such a user
		cause = "throttled " + kindSource
	}
	if n, ok := a.refusals.next(refusalKey{cause: cause}, a.now()); ok {
		e.Suppressed = n
		a.emit(ctx, e)
	}
	return reportedError{throttled}
}

// mayUseLimiter reports whether to ask Config.Limiter. After a failure, only one
// attempt in each limiterPause asks it, until it responds.
func (a *Authenticator) mayUseLimiter() bool {
	if a.limiter == nil {
		return false
	}
	retry := a.limiterRetry.Load()
	if retry == 0 {
		return true
	}
	now := a.now()
	return !isPaused(now, retry, limiterPause) && a.limiterRetry.CompareAndSwap(retry, now.Add(limiterPause).UnixMilli())
}

// countAttempts calls Limiter.Take. If the limiter of the configuration does not
// respond, that in memory decides: whoever can stop the limiter could otherwise stop
// all logins.
func (a *Authenticator) countAttempts(ctx context.Context, t *attempt, buckets []Bucket) (wait time.Duration, index int) {
	if l := a.limiter; a.mayUseLimiter() {
		t.limiter = l
		type result struct {
			wait  time.Duration
			index int
		}
		// A request that ends early must neither turn the limiter off nor hide that it
		// hangs.
		taken, err := callBounded(a.Verifier, context.WithoutCancel(ctx), "Limiter.Take", a.storeTimeout, func(ctx context.Context) (r result, err error) {
			r.wait, r.index, err = l.Take(ctx, buckets)
			return r, err
		})
		if err == nil {
			a.limiterRetry.Store(0)
			return taken.wait, taken.index
		}
		a.limiterFailed(ctx, "Take", err)
	}
	t.limiter = a.memoryLimiter
	wait, index, _ = a.memoryLimiter.Take(ctx, buckets) // never fails
	return wait, index
}

// settle says how the attempt t ended.
func (a *Authenticator) settle(ctx context.Context, t *attempt, err error) {
	var cleared, refund []Bucket
	switch {
	case err == nil:
		cleared, refund = slices.Concat(t.own, t.others), t.source
	case isWrongSecret(err):
		return
	case errors.Is(err, ErrFactorRequired):
		// The password is right. LoginFactor clears the bucket of the user, but does
		// not know the login name.
		for _, b := range t.own {
			if b.Kind == kindName {
				cleared = append(cleared, b)
			} else {
				refund = append(refund, b)
			}
		}
		refund = append(refund, t.source...)
	default:
		refund = slices.Concat(t.own, t.source)
	}
	if t.limiter == a.memoryLimiter {
		_ = a.memoryLimiter.Settle(ctx, cleared, refund)
		return
	}
	ctx = context.WithoutCancel(ctx) // even if the client has disconnected
	err = a.runHook(ctx, "Limiter.Settle", a.storeTimeout, func(ctx context.Context) error { return t.limiter.Settle(ctx, cleared, refund) })
	if err != nil {
		a.limiterFailed(ctx, "Settle", err)
	}
}

// isWrongSecret reports whether err says that a secret is wrong. A check of the
// application may return the error of package password as it is.
func isWrongSecret(err error) bool {
	return isRefusal(err) || !errors.Is(err, ErrUnavailable) && (errors.Is(err, password.ErrMismatch) || errors.Is(err, password.ErrTooLong))
}

// limiterFailed reports a failure of Config.Limiter, and pauses its use.
func (a *Authenticator) limiterFailed(ctx context.Context, method string, err error) {
	a.limiterRetry.Store(a.now().Add(limiterPause).UnixMilli())
	a.emitLimited(ctx, "Limiter", Event{Type: EventFault, Err: fmt.Errorf(
		"auth: Limiter.%s: %w; until it responds, this process counts attempts in memory, and they do not include those of other processes", method, detail{err},
	)})
}

// withDigest returns b with a digest of its key and of a purpose as the key. Two
// issuers that share a Limiter count accounts separately, and sources together. The
// digest is keyed with the key that signs one-time tokens. Its input contains NUL
// bytes, so it never is the input of a signature.
func (a *Authenticator) withDigest(b Bucket, purpose string) Bucket {
	ring, issuer := a.oneTimeKeys.ring.Load(), a.issuer
	if b.Kind == kindSource {
		issuer = ""
	}
	text := strings.Join([]string{"ratchet limit", issuer, b.Kind, purpose, b.Key}, "\x00")
	sum, _ := ring.keys[ring.signer(a.now())].sign([]byte(text)) // HMAC does not fail
	b.Key = base64.RawURLEncoding.EncodeToString(sum[:16])
	return b
}

// knownDeviceTTL is how long a device is known after a login.
const knownDeviceTTL = 180 * 24 * time.Hour

// purposeDevice is the purpose of the token that a known device has. An application
// cannot issue or check such a token, because the purpose contains a space.
const purposeDevice = "known device"

// signDevice returns a token that says that the user has signed in on a device. It
// does not end by a logout or a revocation: it proves nothing, and only lets the
// attempts of the device count separately.
func (a *Authenticator) signDevice(subject string) (string, error) {
	now := a.now()
	c := oneTimeClaims{subject: subject, purpose: purposeDevice, id: randomID(), issuedAt: now, expiresAt: wholeSecond(now.Add(knownDeviceTTL))}
	return a.oneTimeKeys.ring.Load().signToken(now, c.payload(a.issuer, a.audience))
}

// knownDevice returns the ID of a device on which the user has signed in before, or
// "" if d does not prove that.
func (a *Authenticator) knownDevice(d Device, subject string) string {
	if d.request == nil {
		return ""
	}
	for _, token := range d.request.known {
		signed, err := openToken(context.Background(), token, typOneTime, &a.oneTimeKeys)
		if err != nil {
			continue
		}
		c, err := readOneTime(signed.payload, a.issuer, a.audience, purposeDevice)
		if err == nil && c.subject == subject && a.now().Before(c.expiresAt) {
			return c.id
		}
	}
	return ""
}

// hashingFor returns a context in which passwords are hashed for the client d; see
// [password.WithSource].
func hashingFor(ctx context.Context, d Device) context.Context {
	return password.WithSource(ctx, d.Source())
}
