// Command mutate finds enforcing lines that no test holds. It changes one
// enforcing line at a time, runs the tests that the change concerns, and reports
// each change that no test notices: a mutant that survives.
//
//	go run ./internal/mutate [flags] [directory ...]
//
// A line enforces something if it is one of these:
//
//   - a condition of an if, or of a case of a switch without a tag, whose body ends
//     by refusing: it returns an error or false, panics, or ends a handler;
//   - a comparison by <, <=, >, >=, Before or After in a function that returns an
//     error or a bool, or handles a request, or in the condition of a refusal;
//   - the last result of a return, in a function that returns a bool or an error,
//     if it is decided there: it is not a constant, and not the body of a refusal.
//
// The mutants are these:
//
//   - The refusal is removed: its condition is false.
//   - One operand of a condition is removed: an operand of || is false, and an
//     operand of && is true. A negated condition, or && in place of ||, would be
//     noticed by every test that notices these.
//   - A bound is moved by one: < in place of <=, and the reverse.
//   - A result that is a bool is true, or false. A result that is an error is nil.
//
// Functions that format text for people (String, GoString, Format, LogValue) enforce
// nothing. Statements of SQL and Lua scripts are not changed.
//
// All mutants of a package are compiled into one test binary, by an overlay, and
// an environment variable selects one of them. First, each test runs once and
// reports for which mutants it would have made a difference, which means that the
// changed expression had another value. Only these tests are run with the mutant,
// the fastest first. So a mutant costs about as much as one test, and a test that
// only reaches a line costs nothing. Tests run with -short. A mutant whose tests do not end
// in time is killed.
//
// A mutant that survives because it changes nothing that a caller could notice is
// equivalent. The list of these names each by file, function and change, and gives
// the reason. An entry that names no mutant is an error.
//
// The exit status is 1 if a mutant survives that is not in the list.
package main

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// options are the flags of the command.
type options struct {
	since    string        // only lines that changed since this commit; empty: all
	budget   time.Duration // from the start; 0: no limit
	list     string        // file of equivalent mutants
	all      bool          // run all tests before a mutant counts as a survivor
	tests    string        // directory whose tests run, if not the package's own
	only     string        // only mutants whose name contains this
	jobs     int
	patience time.Duration // added to the expected time of tests, before they count as hanging
	show     bool          // list the mutants and run nothing
}

func main() {
	var o options
	flag.StringVar(&o.since, "since", "", "change only lines that differ from this `commit`")
	flag.DurationVar(&o.budget, "budget", 0, "start no mutant after this time, builds included; 0 means no limit")
	flag.StringVar(&o.list, "equivalent", ".ci/equivalent-mutants", "`file` that lists the equivalent mutants")
	flag.BoolVar(&o.all, "all", false, "run all tests with a mutant before it counts as a survivor")
	flag.StringVar(&o.tests, "tests", "", "run the tests of this `directory`, not those of the changed package")
	flag.StringVar(&o.only, "only", "", "select the mutants whose name contains this `text`")
	flag.IntVar(&o.jobs, "jobs", runtime.NumCPU(), "test processes at once")
	flag.DurationVar(&o.patience, "patience", 20*time.Second, "stop tests that take longer than ten times what they took without a mutant, and this")
	flag.BoolVar(&o.show, "list", false, "list the mutants and run nothing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dirs := flag.Args()
	if len(dirs) == 0 {
		dirs = []string{"."}
	}
	unlisted, err := run(ctx, os.Stdout, o, dirs)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(2)
	}
	if unlisted > 0 {
		fmt.Printf("%d mutants survive that %s does not list. Write a test that fails without the line, or list the mutant with the reason why no caller can notice it.\n", unlisted, o.list)
		stop()
		os.Exit(1)
	}
}

// tally counts what became of the mutants of a package.
type tally struct {
	total, listed, killed, timedOut, survived, notCompiled, notPlayed int
}

func (t tally) String() string {
	return fmt.Sprintf("%d mutants: %d killed (%d of them timed out), %d survived, %d equivalent, %d not compiled, %d not played",
		t.total, t.killed, t.timedOut, t.survived, t.listed, t.notCompiled, t.notPlayed)
}

// run changes the packages in dirs, one after the other, and returns how many
// mutants survive that are not listed.
func run(ctx context.Context, out io.Writer, o options, dirs []string) (int, error) {
	start := time.Now()
	equivalent, err := readEquivalent(o.list)
	if err != nil {
		return 0, err
	}
	changed, err := changedLines(ctx, o.since)
	if err != nil {
		return 0, err
	}
	var packages []*pkg
	for _, dir := range dirs {
		p, err := find(ctx, dir)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", dir, err)
		}
		for _, m := range p.mutants {
			m.equivalent = equivalent.match(m)
		}
		p.tests = p.dir
		if o.tests != "" {
			p.tests = o.tests
		} else if len(p.testFiles) == 0 {
			p.tests = "." // the root's tests hold the packages that have none
		}
		p.mutants = slices.DeleteFunc(p.mutants, func(m *mutant) bool {
			return !strings.Contains(m.name(), o.only) || changed != nil && !changed.has(m)
		})
		packages = append(packages, p)
	}
	if unused := equivalent.unused(packages); len(unused) > 0 {
		return 0, fmt.Errorf("%s has entries that name no mutant, remove or correct them:\n%s", o.list, strings.Join(unused, "\n"))
	}
	// Small packages first: each gets the same part of what is left of the budget.
	slices.SortStableFunc(packages, func(a, b *pkg) int { return len(a.mutants) - len(b.mutants) })
	survivors := 0
	for i, p := range packages {
		if o.show {
			for _, m := range p.mutants {
				fmt.Fprintln(out, m)
			}
		}
		if len(p.mutants) == 0 || o.show {
			fmt.Fprintf(out, "%s: %d mutants\n", p.dir, len(p.mutants))
			continue
		}
		var deadline time.Time
		if o.budget > 0 {
			deadline = time.Now().Add(max(0, o.budget-time.Since(start)) / time.Duration(len(packages)-i))
		}
		t, err := play(ctx, out, p, o, deadline)
		survivors += t.survived
		fmt.Fprintf(out, "%s: %s (%s since the start)\n", p.dir, t, time.Since(start).Round(time.Second))
		if err != nil { // after what is known, since an interrupt is one
			return survivors, fmt.Errorf("%s: %w", p.dir, err)
		}
	}
	return survivors, nil
}

// spread orders mutants by a digest of their names: the same order in every run,
// and neighbors are far from one another. So what a budget leaves out is not the
// end of the package.
func spread(mutants []*mutant) {
	slices.SortFunc(mutants, func(a, b *mutant) int {
		x, y := sha256.Sum256([]byte(a.name())), sha256.Sum256([]byte(b.name()))
		return slices.Compare(x[:], y[:])
	})
}

// lines has the changed lines of files, by the path of the file.
type lines map[string][][2]int

func (l lines) has(m *mutant) bool {
	return slices.ContainsFunc(l[m.file], func(r [2]int) bool { return r[0] <= m.lastLine && m.line <= r[1] })
}

// changedLines returns the lines that differ between the commit and the working
// tree. It returns nil if commit is empty.
func changedLines(ctx context.Context, commit string) (lines, error) {
	if commit == "" {
		return nil, nil
	}
	top, err := output(ctx, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	diff, err := output(ctx, "git", "diff", "--unified=0", "--no-color", "--no-ext-diff", "--dst-prefix=b/", commit, "--", "*.go")
	if err != nil {
		return nil, err
	}
	changed, file := lines{}, ""
	for line := range strings.Lines(diff) {
		if path, ok := strings.CutPrefix(line, "+++ "); ok {
			path = strings.TrimPrefix(strings.TrimSpace(path), "b/")
			if file, err = relative(filepath.Join(strings.TrimSpace(top), path)); err != nil {
				return nil, err
			}
		}
		if !strings.HasPrefix(line, "@@ ") {
			continue
		}
		_, to, _ := strings.Cut(line, " +")
		first, n := 0, 1
		if _, err := fmt.Sscanf(to, "%d,%d", &first, &n); err != nil {
			n = 1 // the form without a number of lines
		}
		if n > 0 {
			changed[file] = append(changed[file], [2]int{first, first + n - 1})
		}
	}
	return changed, nil
}

// relative returns a path relative to the working directory, by which mutants
// and entries name their files.
func relative(path string) (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	if wd, err = filepath.EvalSymlinks(wd); err != nil {
		return "", err
	}
	path, err = filepath.Rel(wd, path)
	return filepath.ToSlash(path), err
}

// output runs a program and returns what it prints.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var text, problem strings.Builder
	cmd.Stdout, cmd.Stderr = &text, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, problem.String())
	}
	return text.String(), nil
}
