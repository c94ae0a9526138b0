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

func TestKeyRotation_RefusesNoRequest(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "keyrotation")
	args := []string{"build", "-o", program}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	out, err := exec.CommandContext(t.Context(), "go", append(args, ".")...).CombinedOutput()
	require.NoError(t, err, string(out))

	begin := time.Now()
	out, err = exec.CommandContext(t.Context(), program).CombinedOutput()
	output := string(out)
	t.Log("\n" + output)
	require.NoError(t, err)
	require.Less(t, time.Since(begin), 25*time.Second)
	require.Contains(t, output, "\nissuer: 0 refused\n")
	require.Contains(t, output, "\nverifier: 0 refused\n")
	require.Regexp(t, `\nlogins and refreshes: [1-9]\d+, 0 refused\n`, output)
	require.Regexp(t, `\nFailed fetches .*: [1-9]\d*\n`, output)
	require.NotContains(t, output, "DATA RACE")

	// Each server has received tokens of each algorithm.
	fields := strings.Fields(regexp.MustCompile(`(?m)^ *all .*$`).FindString(output))
	require.Len(t, fields, 9)
	for _, column := range []int{1, 2, 3, 5, 6, 7} {
		n, err := strconv.Atoi(fields[column])
		require.NoError(t, err)
		require.Greater(t, n, 100)
	}
	for _, alg := range algs {
		require.Regexp(t, `(?m)^`+alg+` .*\d\.\ds`, output)
	}

	// The second process has exited.
	pid, err := strconv.Atoi(regexp.MustCompile(`\(pid (\d+)\) has exited`).FindStringSubmatch(output)[1])
	require.NoError(t, err)
	process, err := os.FindProcess(pid)
	if err == nil {
		err = process.Signal(syscall.Signal(0))
	}
	require.Error(t, err)
}
