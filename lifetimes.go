package auth

import "time"

// sessionEnd returns the end of a session that was created and last used at these
// times. SessionTTL counts from the whole second that is auth_time in the tokens.
func (a *Authenticator) sessionEnd(created, used time.Time) time.Time {
	return earlier(used.Add(a.idleTTL), created.Truncate(time.Second).Add(a.sessionTTL))
}

// minSessionEnd returns the earliest end that the session can have, whatever
// Rotate will return. Either this refresh rotates the session, or the session
// was rotated at most one cooldown ago. So it ends at now + IdleTTL - cooldown
// at the earliest, or at SessionTTL if that is sooner. If the session may be in
// its cooldown, the refresh may return the presented token again, so the result
// is no later than that token's expiry.
func (a *Authenticator) minSessionEnd(c *refreshClaims, now time.Time, cooldown time.Duration) time.Time {
	end := earlier(now.Add(a.idleTTL-cooldown), c.authTime.Add(a.sessionTTL))
	if c.expiresAt.Before(end) && now.Sub(c.issuedAt) <= cooldown+a.leeway+time.Second {
		return c.expiresAt
	}
	return end
}

// refreshEnd returns when a refresh token expires: at its exp, or SessionTTL
// after the login if that is earlier. It is earlier if SessionTTL has been
// shortened since the token was issued.
func (a *Authenticator) refreshEnd(c *refreshClaims) time.Time {
	return earlier(c.expiresAt, c.authTime.Add(a.sessionTTL))
}

// countsFrom returns the time at which an access token counts as issued when it
// is compared with a not-before instant. It is not earlier than the instants
// that were known when snap was taken, nor than the login. The time of the
// login may be ahead of this clock, because another process raised it to a
// not-before instant that this process has not applied yet. A time that is more
// than maxIssuedAhead ahead was set by a wrong clock and is ignored: not-before
// instants that are set later would have no effect on a token that counts from
// it.
func (a *Authenticator) countsFrom(c *refreshClaims, snap snapshot) time.Time {
	at := a.revoked.earliestIssue(c.subject, snap)
	if c.authTime.After(snap.now.Add(a.maxIssuedAhead())) {
		return at
	}
	return later(at, c.authTime)
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

// truncateMillis truncates t to the resolution of all stored times.
func truncateMillis(t time.Time) time.Time {
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// secondsLeft returns the difference of the two times in whole Unix seconds, as
// in an exp claim, or 0 if it is negative.
func secondsLeft(until, now time.Time) int64 {
	return max(0, until.Unix()-now.Unix())
}
