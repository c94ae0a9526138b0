package auth

import "time"

// sessionEnd returns the end of a session that was created and last used at these
// times. SessionTTL counts from the whole second that is auth_time in the tokens.
func (a *Authenticator) sessionEnd(created, used time.Time) time.Time {
	return earlier(used.Add(a.idleTTL), created.Truncate(time.Second).Add(a.sessionTTL))
}

// minSessionEnd returns the earliest end that the session can have, whatever
// Rotate will return. Either this refresh rotates the session, or the session was
// rotated at most one cooldown ago. So it ends at now + IdleTTL - cooldown at the
// earliest, or at SessionTTL if that is sooner. If the session may be in its
// cooldown and the token expires earlier, the result is the token's expiry.
func (a *Authenticator) minSessionEnd(c *refreshClaims, now time.Time) time.Time {
	end := earlier(now.Add(a.idleTTL-a.cooldown), c.authTime.Add(a.sessionTTL))
	if c.expiresAt.Before(end) && now.Sub(c.issuedAt) <= a.cooldown+a.leeway+time.Second {
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
// is compared with a not-before instant. It is not earlier than the instants that
// were known when snap was taken, nor than the login. The time of the login
// may be ahead of this clock, because another process raised it to a not-before
// instant that this process has not applied yet. If it is more than
// maxIssuedAhead ahead, a wrong clock has set it. It is then ignored.
// Otherwise not-before instants that are set later would not affect the token.
func (a *Authenticator) countsFrom(c *refreshClaims, snap snapshot) time.Time {
	at := a.revoked.earliestIssue(c.subject, snap)
	if c.authTime.After(snap.now.Add(a.maxIssuedAhead())) {
		return at
	}
	return later(at, c.authTime)
}
