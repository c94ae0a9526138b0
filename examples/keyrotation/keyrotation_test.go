package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestKeyRotation_RefusesNothing(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "keyrotation")
	args := []string{"build", "-o", program}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(t.Context(), "go", append(args, ".")...).CombinedOutput()
	require.NoError(t, err, string(out))

	began := time.Now()
	out, err = exec.CommandContext(t.Context(), program).CombinedOutput()
	said := string(out)
	t.Log("\n" + said)
	require.NoError(t, err)
	require.Less(t, time.Since(began), 25*time.Second)
	require.Contains(t, said, "\nissuer: 0 refused\n")
	require.Contains(t, said, "\nverifier: 0 refused\n")
	require.Regexp(t, `\nlogins and refreshes: [1-9]\d+, 0 refused\n`, said)
	require.Regexp(t, `\nFetches .*: [1-9]\d*\n`, said)
	require.NotContains(t, said, "DATA RACE")

	// Each server has seen each algorithm.
	fields := strings.Fields(regexp.MustCompile(`(?m)^ *all .*$`).FindString(said))
	require.Len(t, fields, 9)
	for _, column := range []int{1, 2, 3, 5, 6, 7} {
		n, err := strconv.Atoi(fields[column])
		require.NoError(t, err)
		require.Greater(t, n, 100)
	}
	for _, alg := range algs {
		require.Regexp(t, `(?m)^`+alg+` .*\d\.\ds`, said)
	}

	// And the second process is gone.
	pid, err := strconv.Atoi(regexp.MustCompile(`\(pid (\d+)\) has ended`).FindStringSubmatch(said)[1])
	require.NoError(t, err)
	second, err := os.FindProcess(pid)
	if err == nil {
		err = second.Signal(syscall.Signal(0))
	}
	require.Error(t, err)
}
