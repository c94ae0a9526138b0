package tabs

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
	"github.com/ratchet-go/auth/examples/internal/exampletest"
)

// rounds returns how many rounds a test plays: few unless AUTH_TABS is set.
func rounds(few, many int) int {
	if os.Getenv("AUTH_TABS") == "1" {
		return many
	}
	return few
}

// withoutLocks removes the Web Locks API.
const withoutLocks = `Object.defineProperty(navigator, "locks", { value: undefined });`

func TestTabs_ExpiredTokenInThreeTabsRotatesOnce(t *testing.T) {
	t.Parallel()
	browser := exampletest.Chromium(t)
	for _, tt := range []struct{ name, query, setup string }{
		{"cookies", "", ""}, {"cookies without locks", "", withoutLocks}, {"bodies", "?body", ""}, {"bodies without locks", "?body", withoutLocks},
	} {
		s := newSite(t, auth.Config{})
		clearCookies(t, browser)
		tabs := make([]exampletest.Tab, 3)
		for i := range tabs {
			tabs[i] = s.open(browser, tt.query, tt.setup)
		}
		require.Equal(t, "200", login(tabs[0]), tt.name)
		n := rounds(2, 100)
		for range n {
			s.expire()
			require.Equal(t, same("ada", 3), all(tabs, "who()"), tt.name)
		}
		t.Logf("%s: %d rounds, %d refreshes, %d rotations, %d sign-outs", tt.name, n, s.sent("/auth/refresh"), s.counted(auth.EventRefresh), s.counted(auth.EventReuse))
		require.Equal(t, n, s.counted(auth.EventRefresh), tt.name)
		require.Zero(t, s.counted(auth.EventReuse), tt.name)
		for _, tab := range tabs {
			require.Empty(t, seen(tab, "signed-out", "reason", 0), tt.name)
			require.Len(t, seen(tab, "signed-in", "session_id", 1), 1, tt.name)
			tab.Close()
		}
	}
}
