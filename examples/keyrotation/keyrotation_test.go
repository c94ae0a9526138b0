package main

import (
	"bufio"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth/internal/testserver"
)

func TestMain(m *testing.M) { testserver.RunMain(m, main) }

func TestKeyRotation_RefusesNoRequest(t *testing.T) {
	t.Parallel()
	if os.Getenv("AUTH_LONG") != "1" {
		t.Skip("runs only with AUTH_LONG=1: takes twenty seconds of both cores")
	}
	begin := time.Now()
	cmd := testserver.Self(t)
	cmd.Stderr = t.Output()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var printed strings.Builder
	at := map[string]time.Duration{} // by stage, when its line was printed
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		printed.WriteString(lines.Text() + "\n")
		if m := regexp.MustCompile(`^ *[\d.]+s  (.*)$`).FindStringSubmatch(lines.Text()); m != nil {
			at[m[1]] = time.Since(begin)
		}
	}
	output := printed.String()
	t.Log("\n" + output)
	require.NoError(t, cmd.Wait())
	require.Less(t, time.Since(begin), 25*time.Second)
	require.Contains(t, output, "\nissuer: 0 refused\n")
	require.Contains(t, output, "\nverifier: 0 refused\n")
	require.Regexp(t, `\nlogins and refreshes: [1-9]\d+, 0 refused\n`, output)
	require.Equal(t, 7, strings.Count(output, ", 0 refused; verifier "), "one summary for each stage")
	require.Regexp(t, `Look at the number of refused requests`, output)
	require.Len(t, at, 7)
	require.Greater(t, at["only ES256 remains"]-at["HS256 signs"], 10*time.Second, "each stage must be printed when it begins")
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
	pid, err := strconv.Atoi(regexp.MustCompile(`verifier \(pid (\d+)\) has exited`).FindStringSubmatch(output)[1])
	require.NoError(t, err)
	process, err := os.FindProcess(pid)
	if err == nil {
		err = process.Signal(syscall.Signal(0))
	}
	require.Error(t, err)
}

func TestKeyRotation_RefusesArguments(t *testing.T) {
	t.Parallel()
	out, err := testserver.Self(t, "now").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), `unexpected argument "now"`)
}
