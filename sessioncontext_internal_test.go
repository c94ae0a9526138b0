package auth

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRevocations_OnlyWatchersOfTheSessionAreNotified(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	rs := &revocationSet{}
	ended := map[string]error{}
	for _, sid := range []string{"a", "b", "c", "c"} {
		name := fmt.Sprint(sid, len(rs.watchers["u1"][sid]))
		rs.watch(&watcher{
			subjectTimes: subjectTimes{subject: "u1", sid: sid, created: at, issued: at.Add(time.Duration(len(rs.watchers["u1"][sid])) * time.Hour)},
			cancel:       func(cause error) { ended[name] = cause },
		})
	}
	rs.apply([]Revocation{{Subject: "u1", Sessions: []string{"a"}, Until: at.Add(time.Hour)}}, false, at)
	require.Equal(t, map[string]error{"a0": ErrSessionRevoked}, ended)
	rs.apply([]Revocation{{Subject: "u1", Before: at.Add(time.Minute), Until: at.Add(time.Hour)}}, false, at)
	require.Equal(t, map[string]error{"a0": ErrSessionRevoked, "b0": errIssuedBefore, "c0": errIssuedBefore}, ended)
	rs.apply([]Revocation{{Subject: "u1", All: true, Before: at.Add(time.Minute), Until: at.Add(time.Hour)}}, false, at)
	require.Equal(t, map[string]error{"a0": ErrSessionRevoked, "b0": errIssuedBefore, "c0": errIssuedBefore, "c1": ErrSessionRevoked}, ended)
	require.Empty(t, rs.watchers)
}
