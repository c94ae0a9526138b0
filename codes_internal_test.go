package auth

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// codeRows returns the rows of a table of docs/clients.md, below the heading and with
// this header. The first cells of each row are joined by " | ".
func codeRows(t *testing.T, heading, header string, cells int) (rows []string) {
	t.Helper()
	page, err := os.ReadFile("docs/clients.md")
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(page), "\n"+heading+"\n")
	require.True(t, ok, heading)
	_, table, ok := strings.Cut(section, "\n"+header+"\n")
	require.True(t, ok, header)
	for _, line := range strings.Split(table, "\n")[1:] {
		if !strings.HasPrefix(line, "| ") {
			break
		}
		all := strings.Split(strings.Trim(line, "| "), " | ")
		require.NotEmpty(t, strings.TrimSpace(all[len(all)-1]), "%s says when it occurs", line)
		rows = append(rows, strings.Join(all[:cells], " | "))
	}
	return rows
}

// The table of errors in docs/clients.md has every response that an error of this package
// can have, and no other.
func TestCodes_ClientsPageListsEveryError(t *testing.T) {
	t.Parallel()
	errs := []error{
		nil, // any other error
		&FactorError{}, &FactorError{wrong: true}, &throttledError{wait: 4 * time.Second},
		oneTimeError{ErrTokenExpired}, oneTimeError{ErrInvalidToken},
	}
	for i := range responses {
		err := responses[i].err
		if err != ErrFactorRequired { // it is always within a FactorError
			errs = append(errs, err)
		}
	}
	for _, err := range []error{ErrNoToken, ErrInvalidToken, ErrTokenExpired, ErrSessionRevoked, ErrTokenReused, ErrSpent} {
		errs = append(errs, grantError{err})
	}
	var want []string
	for _, err := range errs {
		a := ResponseFor(err)
		action := ""
		if a.Action != "" {
			action = "`" + a.Action + "`"
		}
		row := fmt.Sprintf("`%s` | %d | %s | %s", a.Code, a.Status, action, a.Description)
		if !slices.Contains(want, row) {
			want = append(want, row)
		}
	}
	got := codeRows(t, "### Errors", "| `error` | status | `action` | text | when |", 4)
	require.ElementsMatch(t, want, got)
	require.True(t, slices.IsSorted(got), "the table is in alphabetical order")
}

func TestCodes_ClientsPageListsEveryReason(t *testing.T) {
	t.Parallel()
	var want []string
	for _, r := range reasons[reasonUnknown+1:] {
		want = append(want, "`"+r.word+"` | "+r.text)
	}
	require.ElementsMatch(t, want, codeRows(t, "### Reasons", "| `reason` | text | when |", 2))
}

func TestCodes_ClientsPageListsEveryAction(t *testing.T) {
	t.Parallel()
	want := []string{"none", "`factor`"}
	for i := range responses {
		if a := "`" + responses[i].action + "`"; a != "``" && !slices.Contains(want, a) {
			want = append(want, a)
		}
	}
	require.ElementsMatch(t, want, codeRows(t, "### Actions", "| `action` | what the client does |", 1))
}
