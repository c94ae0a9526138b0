package main

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-part" { // the test runs itself for the parts
		main()
		return
	}
	os.Exit(m.Run())
}

// TestLogins_MemoryIsBoundedAndEveryLoginIsAnswered signs in 100 users at once, whose
// hashes would need 1.6 GiB together.
func TestLogins_MemoryIsBoundedAndEveryLoginIsAnswered(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: builds and runs the quickstart program")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	const one = 16 * 1024 // KiB
	o := options{hash: "m=16384,t=1,p=1", budget: one * 1024, logins: 100, sources: 10, rounds: 1, alone: 100 * time.Millisecond}
	r, err := measure(o, func(args ...string) *exec.Cmd { return exec.Command(self, args...) })
	require.NoError(t, err)
	t.Log("\n" + r.report(o))

	require.GreaterOrEqual(t, r.served, 33, "one that runs and 32 that wait")
	require.Equal(t, o.logins, r.served+r.told[429]+r.told[503])
	require.NotZero(t, r.told[503])
	require.NotEmpty(t, r.busy)
	if r.peak > 0 {
		require.Less(t, r.peak, r.started+6*one, "a few hashes, of which Go has yet to collect some")
	}
}
