package auth

import "time"

// idleOf returns the idle lifetime of a session. Config may have been shortened
// since its login.
func (a *Authenticator) idleOf(k *constants) time.Duration {
	if k.idleTTL == 0 {
		return a.idleTTL
	}
	return min(k.idleTTL, a.idleTTL)
}

// absoluteEnd returns when a session ends at the latest. Its absolute lifetime
// counts from the whole second that is auth_time in the tokens.
func (a *Authenticator) absoluteEnd(k *constants) time.Time {
	ttl := a.sessionTTL
	if k.sessionTTL > 0 {
		ttl = min(ttl, k.sessionTTL)
	}
	return k.authTime.Truncate(time.Second).Add(ttl)
}

// sessionEnd returns the end of a session that is used at this time and not again.
func (a *Authenticator) sessionEnd(k *constants, used time.Time) time.Time {
	return earlier(used.Add(a.idleOf(k)), a.absoluteEnd(k))
}

// windowOf returns the retry window of a session. It is shorter than RetryWindow
// only if RetryWindow, AccessTTL or Leeway have been raised since the login of a
// session with an IdleTTL of its own. With RetryWindow, its cooldown could then be
// longer than its idle lifetime, and it could not be kept alive.
func (a *Authenticator) windowOf(k *constants) time.Duration {
	idle := a.idleOf(k)
	room := (idle - min(a.accessTTL, minActingAccess) - a.leeway) / cooldownWindows
	return min(a.window, max(room, idle/(2*cooldownWindows)))
}

// cooldownOf returns how long after a rotation a refresh does not rotate a
// session. It is longer for a refresh whose response may come late or never; see
// refreshRequest.
func (a *Authenticator) cooldownOf(k *constants, sparing bool) time.Duration {
	cooldown := max(0, cooldownWindows*a.windowOf(k))
	if sparing {
		cooldown = max(cooldown, a.idleOf(k)/2)
	}
	return cooldown
}

// minSessionEnd returns the earliest end that the session can have, whatever
// Rotate will return, except for some retries, whose access token is issued after
// Rotate (retryAccess). Either this refresh rotates the session, or the session was
// rotated at most one cooldown ago. So it ends at now plus its idle lifetime minus
// cooldown at the earliest, or at its absolute end if that is sooner. If the session
// may be in its cooldown, the refresh may return the presented token again, so the
// result is no later than that token's expiry.
func (a *Authenticator) minSessionEnd(c *refreshClaims, now time.Time, cooldown time.Duration) time.Time {
	end := earlier(now.Add(a.idleOf(&c.constants)-cooldown), a.absoluteEnd(&c.constants))
	if c.expiresAt.Before(end) && now.Sub(c.issuedAt) <= cooldown+a.leeway+time.Second {
		return c.expiresAt
	}
	return end
}

// refreshEnd returns when a refresh token expires: at its exp, or at the absolute
// end of its session if that is earlier. It is earlier if SessionTTL has been
// shortened since the token was issued.
func (a *Authenticator) refreshEnd(c *refreshClaims) time.Time {
	return earlier(c.expiresAt, a.absoluteEnd(&c.constants))
}

// countsFrom returns the time at which an access token counts as issued when it
// is compared with a not-before instant. It is not earlier than the instants
// that were known when snap was taken, nor than the creation of the session, whose
// time may be ahead of this clock, because another process raised it to a
// not-before instant that this process has not applied yet. A time that is more
// than maxIssuedAhead ahead was set by a wrong clock and is ignored: not-before
// instants that are set later would have no effect on a token that counts from
// it.
func (a *Authenticator) countsFrom(c *refreshClaims, snap snapshot) time.Time {
	at := a.revoked.earliestIssue(c.subject, c.actor, snap)
	if c.created.After(snap.now.Add(a.maxIssuedAhead())) {
		return at
	}
	return later(at, c.created)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// notBefore returns the first whole second that is later than now + leeway. It
// is later than the iat of every token issued so far, even if a clock was
// leeway ahead. It is no later than that, because a process that has not yet
// applied the revocation issues tokens that the others refuse until its clock
// reaches this instant.
func notBefore(now time.Time, leeway time.Duration) time.Time {
	return now.Add(leeway).Truncate(time.Second).Add(time.Second)
}

// ceilSecond returns the first whole second that is not before t.
func ceilSecond(t time.Time) time.Time {
	return t.Add(time.Second - time.Nanosecond).Truncate(time.Second)
}

// truncateMillis truncates t to the resolution of all stored times.
func truncateMillis(t time.Time) time.Time {
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// secondsLeft returns the difference of the two times in whole Unix seconds, as
// in an exp claim, or 0 if it is negative.
func secondsLeft(until, now time.Time) int64 {
	return max(0, until.Unix()-now.Unix())
}
