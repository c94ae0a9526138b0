package auth

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestImitates_FoldsCaseAsEncodingJSONDoes(t *testing.T) {
	t.Parallel()
	for _, name := range reserved {
		for _, twin := range []string{
			name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], strings.ReplaceAll(name, "s", "\u017f"),
			strings.ReplaceAll(name, "k", "\u212a"),
		} {
			require.Equal(t, name, imitates(twin), twin)
		}
		for _, other := range []string{name + " ", " " + name, name + "_", "x" + name, name[1:] + "0"} {
			require.Empty(t, imitates(other), other)
		}
	}
	require.Empty(t, imitates(""))
	// Every claim that this package reads or writes is reserved. Otherwise
	// User.Extra could set it.
	for _, name := range []string{
		"iss", "aud", "sub", "sid", "jti", "iat", "exp", "nbf", "auth_time", "session_exp", "username", "roles", "scope", "amr", "gen",
		"cnf",
	} {
		require.Equal(t, name, imitates(name), name)
	}
}

func TestNumericTime_AcceptsTheYears1970To9999(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]int64{
		"0": 0, "-0": 0, "0.9": 0, "1.9999": 1, "1e9": 1e9, "1.5e1": 15, "253402300799": maxNumericDate,
		"2.53402300799e11": maxNumericDate, "1e-400": 0,
	} {
		got, ok := numericTime(value)
		require.True(t, ok, value)
		require.Equal(t, time.Unix(want, 0).UTC(), got, value)
		require.False(t, got.IsZero(), "a present time must not be the zero time")
	}
	for _, value := range []string{
		"", "-1", "-0.1", "253402300800", "253402300799.5", "1e12", "1e400", "-1e400", "999999999999999999", "99999999999999999999", `"1"`,
		"null", "true", "[]", "{}",
	} {
		_, ok := numericTime(value)
		require.False(t, ok, value)
	}
}

func TestAccessGrant_RefusesInvalidUsers(t *testing.T) {
	t.Parallel()
	for _, u := range []User{{}, {ID: "u\x00"}, {ID: strings.Repeat("x", maxSubject+1)}, {ID: "u", Roles: []string{""}}, {ID: "u", Scopes: []string{"a b"}}} {
		_, err := (&accessGrant{issuer: "i", audience: []string{"a"}, user: u, sid: "s", constants: constants{}}).payload()
		require.ErrorContains(t, err, "auth: User.")
	}
}
