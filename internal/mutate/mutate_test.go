package main

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const source = `package m

import (
	"errors"
	"time"
)

var ErrShort = errors.New("short")

func Check(s string, now, end time.Time) error {
	if len(s) < 3 || s == "wrong" {
		return ErrShort
	}
	if !now.Before(end) {
		return errors.New("over")
	}
	return nil
}

func Small(n int) bool { return n <= 9 }

func String(n int) bool { return n > 9 }

func Unused(n int) bool { return n > 9 }

func Loop(n int) error {
	for {
		if n < 1 {
			return errors.New("end")
		}
		n--
	}
}
`

const tests = `package m

import (
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	now := time.Unix(1, 0)
	if Check("ab", now, now.Add(1)) == nil {
		t.Error("two bytes")
	}
	if Check("abc", now, now.Add(1)) != nil {
		t.Error("three bytes")
	}
	if Check("abc", now, now) == nil {
		t.Error("over")
	}
}

func TestSmall(t *testing.T) {
	if !Small(8) || Small(10) {
		t.Error("small")
	}
}

func TestLoop(t *testing.T) {
	if Loop(3) == nil {
		t.Error("loop")
	}
}
`

// goModule writes a module and makes its directory the working directory.
func goModule(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	t.Setenv("GOWORK", "off")
	write(t, "go.mod", "module m\n\ngo 1.26\n")
	write(t, "m.go", source)
	write(t, "m_test.go", tests)
}

func write(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
}

func names(p *pkg) []string {
	var list []string
	for _, m := range p.mutants {
		list = append(list, m.name())
	}
	return list
}

func TestFind_EnforcingLines(t *testing.T) {
	goModule(t)
	p, err := find(t.Context(), ".")
	require.NoError(t, err)
	require.Equal(t, []string{
		"m.go: Check: len(s) < 3 -> false",
		`m.go: Check: s == "wrong" -> false`,
		"m.go: Check: len(s) < 3 -> <=",
		"m.go: Check: !now.Before(end) -> false",
		"m.go: Check: now.Before(end) -> or equal",
		"m.go: Small: n <= 9 -> false",
		"m.go: Small: n <= 9 -> true",
		"m.go: Small: n <= 9 -> <",
		"m.go: Unused: n > 9 -> false",
		"m.go: Unused: n > 9 -> true",
		"m.go: Unused: n > 9 -> >=",
		"m.go: Loop: n < 1 -> false",
		"m.go: Loop: n < 1 -> <=",
	}, names(p))
	require.Equal(t, 11, p.mutants[0].line)
}

func TestRun_ReportsWhatNoTestNotices(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: builds a test binary")
	}
	goModule(t)
	write(t, "list", "m.go: Unused: n > 9 -> false\n\tNothing calls it.\n")
	var out strings.Builder
	survivors, err := run(t.Context(), &out, options{list: "list", jobs: 2, patience: time.Second, all: true}, []string{"."})
	require.NoError(t, err)
	for _, name := range []string{
		`m.go:11: Check: s == "wrong" -> false`, "m.go:20: Small: n <= 9 -> <",
		"m.go:24: Unused: n > 9 -> true", "m.go:24: Unused: n > 9 -> >=", "m.go:28: Loop: n < 1 -> <=",
	} {
		require.Contains(t, out.String(), "survived: "+name+"\n")
	}
	require.Equal(t, 5, survivors)
	require.Contains(t, out.String(), "13 mutants: 7 killed (1 of them timed out), 5 survived, 1 equivalent, 0 not compiled, 0 not played")

	// When the budget is spent, what is left is not played.
	out.Reset()
	survivors, err = run(t.Context(), &out, options{list: "list", jobs: 2, budget: time.Nanosecond}, []string{"."})
	require.NoError(t, err)
	require.Zero(t, survivors)
	require.Contains(t, out.String(), "0 killed (0 of them timed out), 0 survived, 1 equivalent, 0 not compiled, 12 not played")
}

func TestRun_ListWithAnUnknownMutantIsAnError(t *testing.T) {
	goModule(t)
	write(t, "list", "m.go: Check: removed() -> false\n\tA reason.\n")
	_, err := run(t.Context(), io.Discard, options{list: "list", show: true}, []string{"."})
	require.ErrorContains(t, err, "removed()")

	write(t, "list", "m.go: Unused: n > 9 -> false\n")
	_, err = run(t.Context(), io.Discard, options{list: "list", show: true}, []string{"."})
	require.ErrorContains(t, err, "no reason")
}

func TestRun_SinceSelectsTheLinesThatChanged(t *testing.T) {
	goModule(t)
	git := func(args ...string) {
		_, err := output(t.Context(), "git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		require.NoError(t, err)
	}
	git("init", "--quiet")
	git("add", ".")
	git("commit", "--quiet", "--message", "all")
	write(t, "m.go", strings.Replace(source, "return ErrShort", "return errors.Join(ErrShort)", 1))
	var out strings.Builder
	_, err := run(t.Context(), &out, options{since: "HEAD", show: true}, []string{"."})
	require.NoError(t, err)
	require.Equal(t, "m.go:11: Check: len(s) < 3 -> false\nm.go:11: Check: s == \"wrong\" -> false\nm.go:11: Check: len(s) < 3 -> <=\n.: 3 mutants\n", out.String())
}
