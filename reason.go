package auth

import "slices"

// revokeReason is why sessions or access tokens were revoked. Its word is the
// Reason of a [Revocation], an [Event] and an [ErrorResponse].
//
// Several revocations may name one session, and processes may read them in
// different orders. The greatest of their reasons applies. So all processes give
// the same reason, and a logout after a theft does not hide the theft.
type revokeReason uint8

// The reasons, in ascending order.
const (
	reasonUnknown revokeReason = iota // an older version set none, or a newer version set another word
	reasonAccess
	reasonLogin
	reasonEvicted
	reasonReplaced
	reasonLogout
	reasonRevoked
	reasonUser
	reasonReuse
	reasonCount
)

// reasons has the word of each reason, and its text in errors.
var reasons = [reasonCount]struct{ word, text string }{
	reasonAccess:   {"access", "ExpireAccess was called for its user"},
	reasonLogin:    {"login", "the login was not completed"},
	reasonEvicted:  {"evicted", "the user had too many sessions"},
	reasonReplaced: {"replaced", "another login replaced it"},
	reasonLogout:   {"logout", "the user signed out"},
	reasonRevoked:  {"revoked", "Revoke or RevokeAll was called"},
	reasonUser:     {"user", "the user was deleted or disabled"},
	reasonReuse:    {"reuse", "a spent refresh token was presented"},
}

func (r revokeReason) String() string { return reasons[r].word }

// reasonOf returns the reason with a word, or reasonUnknown.
func reasonOf(word string) revokeReason {
	for r := range reasons {
		if reasons[r].word == word {
			return revokeReason(r)
		}
	}
	return reasonUnknown
}

// maxReason is the length of the longest word that a [Revocation] may have.
const maxReason = 16

// isReason reports whether a Revocation may have this Reason.
func isReason(word string) bool {
	return len(word) <= maxReason && !slices.ContainsFunc([]byte(word), func(c byte) bool { return c < 'a' || c > 'z' })
}

// revokedError is an [ErrSessionRevoked] or errIssuedBefore with a reason.
type revokedError struct {
	error
	text   string
	reason revokeReason
}

func (e *revokedError) Error() string { return e.text }

func (e *revokedError) Unwrap() error { return e.error }

// The errors for each reason. They exist from the start, because most refusals
// of a request need one.
var (
	sessionErrors = revokedErrors(ErrSessionRevoked)
	accessErrors  = revokedErrors(errIssuedBefore)
)

func revokedErrors(err error) (list [reasonCount]error) {
	list[reasonUnknown] = err
	for reason := reasonUnknown + 1; reason < reasonCount; reason++ {
		list[reason] = &revokedError{err, err.Error() + ": " + reasons[reason].text, reason}
	}
	return list
}

// sessionRevoked returns the error for a session that was revoked.
func sessionRevoked(reason revokeReason) error { return sessionErrors[reason] }

// accessRevoked returns the error for an access token that was revoked, but not
// its session.
func accessRevoked(reason revokeReason) error { return accessErrors[reason] }
