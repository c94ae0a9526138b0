package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// overlay is the file that the overlay adds to a package. A condition that a
// mutant changes is passed to one of its functions.
const overlay = `package %s

import (
	"cmp"
	"os"
	"strconv"
	"sync"
	"time"
)

var (
	mutateID, _  = strconv.Atoi(os.Getenv("MUTATE_ID"))
	mutateRecord = os.Getenv("MUTATE_RECORD")
	mutateSeen   sync.Map
)

// mutateOn reports whether mutant n is selected. It is called where the mutant
// makes a difference, and records that.
func mutateOn(n int) bool { return n == mutateID || mutateRecord != "" && mutateReach(n) }

func mutateReach(n int) bool {
	if _, seen := mutateSeen.LoadOrStore(n, true); !seen {
		f, err := os.OpenFile(mutateRecord, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			panic(err)
		}
		f.WriteString(strconv.Itoa(n) + "\n")
		f.Close()
	}
	return false
}

func mutateNo(n int, c bool) bool  { return c && !mutateOn(n) }
func mutateYes(n int, c bool) bool { return c || mutateOn(n) }

func mutateErr(n int, err error) error {
	if err != nil && mutateOn(n) {
		return nil
	}
	return err
}

func mutateLess[T cmp.Ordered](n int, a, b T) bool         { return a < b || a == b && mutateOn(n) }
func mutateLessEqual[T cmp.Ordered](n int, a, b T) bool    { return a <= b && !(a == b && mutateOn(n)) }
func mutateGreater[T cmp.Ordered](n int, a, b T) bool      { return a > b || a == b && mutateOn(n) }
func mutateGreaterEqual[T cmp.Ordered](n int, a, b T) bool { return a >= b && !(a == b && mutateOn(n)) }

func mutateBefore(n int, a, b time.Time) bool { return a.Before(b) || a.Equal(b) && mutateOn(n) }
func mutateAfter(n int, a, b time.Time) bool  { return a.After(b) || a.Equal(b) && mutateOn(n) }
`

// test is one test of the binary.
type test struct {
	name    string
	took    time.Duration
	differs map[int]bool // mutants that would have made a difference
}

// game is one package being played.
type game struct {
	*pkg
	o      options
	tmp    string
	binary string
	list   []*test
}

// play builds the test binary with the mutants of a package and plays them.
func play(ctx context.Context, out io.Writer, p *pkg, o options, deadline time.Time) (tally, error) {
	tmp, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return tally{}, err
	}
	defer os.RemoveAll(tmp)
	g := &game{pkg: p, o: o, tmp: tmp, binary: filepath.Join(tmp, "mutants.test")}
	t := tally{total: len(p.mutants)}
	mutants := slices.Clone(p.mutants)
	mutants = slices.DeleteFunc(mutants, func(m *mutant) bool { return m.equivalent })
	t.listed = t.total - len(mutants)
	if len(mutants) == 0 {
		return t, nil
	}
	start := time.Now()
	late := func() bool { return ctx.Err() != nil || !deadline.IsZero() && time.Now().After(deadline) }
	if late() {
		t.notPlayed = len(mutants)
		return t, ctx.Err()
	}
	skipped, err := g.build(ctx, mutants)
	if err != nil {
		return t, err
	}
	for _, m := range skipped {
		fmt.Fprintln(out, "not compiled:", m)
	}
	t.notCompiled = len(skipped)
	mutants = slices.DeleteFunc(mutants, func(m *mutant) bool { return slices.Contains(skipped, m) })
	built := time.Since(start)
	if err := g.record(ctx, out, late); err != nil {
		return t, err
	}
	fmt.Fprintf(out, "%s: %d mutants, %d tests; built in %s, recorded in %s\n", p.dir, len(mutants), len(g.list), built.Round(time.Second), (time.Since(start) - built).Round(time.Second))

	spread(mutants)
	var mu sync.Mutex
	parallel(o.jobs, mutants, func(m *mutant) {
		outcome := notPlayed
		if !late() {
			outcome = g.playOne(ctx, m, late)
		}
		mu.Lock()
		defer mu.Unlock()
		switch outcome {
		case survived:
			t.survived++
			fmt.Fprintln(out, "survived:", m)
		case notPlayed:
			t.notPlayed++
		case timedOut:
			t.timedOut++
			t.killed++
		case killed:
			t.killed++
		}
	})
	return t, ctx.Err()
}

// build compiles the tests with the mutants. It returns those that it had to leave
// out because they do not compile.
func (g *game) build(ctx context.Context, mutants []*mutant) (skipped []*mutant, err error) {
	for {
		replace := map[string]string{}
		spans := map[string][]span{}
		for i, file := range append(slices.Clone(g.files), g.dir+"/zz_mutate.go") {
			target, err := filepath.Abs(file)
			if err != nil {
				return nil, err
			}
			text := fmt.Appendf(nil, overlay, g.name)
			if i < len(g.files) {
				source, err := os.ReadFile(file)
				if err != nil {
					return nil, err
				}
				text, spans[filepath.Base(file)] = apply(source, file, mutants)
			}
			copied := filepath.Join(g.tmp, strconv.Itoa(i)+".go")
			if err := os.WriteFile(copied, text, 0o600); err != nil {
				return nil, err
			}
			replace[target] = copied
		}
		config, err := json.Marshal(map[string]any{"Replace": replace})
		if err != nil {
			return nil, err
		}
		overlayFile := filepath.Join(g.tmp, "overlay.json")
		if err := os.WriteFile(overlayFile, config, 0o600); err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, "go", "test", "-C", g.tests, "-c", "-vet=off", "-gcflags=-e", "-overlay", overlayFile, "-o", g.binary, ".")
		text, err := cmd.CombinedOutput()
		if err == nil {
			return skipped, nil
		}
		// An error at an expression that a mutant changes leaves the mutant out.
		left := len(mutants)
		for _, match := range compileError.FindAllSubmatch(text, -1) {
			line, _ := strconv.Atoi(string(match[2]))
			column, _ := strconv.Atoi(string(match[3]))
			for _, s := range spans[filepath.Base(string(match[1]))] {
				if s.line == line && s.from <= column && column <= s.to {
					mutants = slices.DeleteFunc(slices.Clone(mutants), func(m *mutant) bool { return m == s.mutant })
					if !slices.Contains(skipped, s.mutant) {
						skipped = append(skipped, s.mutant)
					}
				}
			}
		}
		if len(mutants) == left {
			return nil, fmt.Errorf("the tests do not compile: %w\n%s", err, text)
		}
	}
}

var compileError = regexp.MustCompile(`(?m)^([^\s:]+\.go):(\d+):(\d+): `)

// span is where the call that a mutant adds stands in the changed file.
type span struct {
	mutant         *mutant
	line, from, to int // from and to are columns, from 1
}

// apply returns a file with all its mutants, and where they are.
func apply(source []byte, file string, mutants []*mutant) ([]byte, []span) {
	type owned struct {
		edit
		m   *mutant
		seq int
	}
	var edits []owned
	for _, m := range mutants {
		if m.file == file {
			for _, e := range m.edits {
				edits = append(edits, owned{e, m, len(edits)})
			}
		}
	}
	slices.SortFunc(edits, func(a, b owned) int {
		switch {
		case a.from != b.from:
			return cmp.Compare(a.from, b.from)
		case a.closes && b.closes:
			return cmp.Compare(b.seq, a.seq) // the inner one first
		case a.closes != b.closes:
			if a.closes {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.seq, b.seq) // the outer one first
	})
	var text []byte
	var spans []span
	at := 0
	for _, e := range edits {
		text = append(text, source[at:e.from]...)
		if !e.closes {
			line := 1 + bytes.Count(text, []byte("\n"))
			column := len(text) - bytes.LastIndexByte(text, '\n')
			spans = append(spans, span{e.m, line, column, column + len(e.text)})
		}
		text = append(text, e.text...)
		at = e.to
	}
	return append(text, source[at:]...), spans
}

// record runs each test by itself. A test that fails is not used. It stops when
// the budget is spent; then no mutant is played.
func (g *game) record(ctx context.Context, out io.Writer, late func() bool) error {
	cmd := exec.CommandContext(ctx, g.binary, "-test.list", "^(Test|Example|Fuzz)")
	cmd.Dir = g.tests
	names, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("listing the tests: %w", err)
	}
	var mu sync.Mutex
	parallel(g.o.jobs, strings.Fields(string(names)), func(name string) {
		if late() {
			return
		}
		file := filepath.Join(g.tmp, name+".reached")
		start := time.Now()
		err := g.run(ctx, 2*time.Minute, []string{name}, "MUTATE_RECORD="+file)
		t := &test{name: name, took: time.Since(start), differs: map[int]bool{}}
		text, _ := os.ReadFile(file)
		for _, n := range strings.Fields(string(text)) {
			if id, err := strconv.Atoi(n); err == nil {
				t.differs[id] = true
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			fmt.Fprintf(out, "%s: not used, as it fails without a mutant: %s\n", g.tests, name)
			return
		}
		g.list = append(g.list, t)
	})
	if len(g.list) == 0 && !late() {
		return errors.New("no test passes")
	}
	slices.SortFunc(g.list, func(a, b *test) int {
		return cmp.Or(cmp.Compare(a.took, b.took), strings.Compare(a.name, b.name))
	})
	return ctx.Err()
}

type outcome int

const (
	notPlayed outcome = iota
	killed
	timedOut
	survived
)

// playOne runs the tests for which a mutant makes a difference, the fastest first.
func (g *game) playOne(ctx context.Context, m *mutant, late func() bool) outcome {
	id := "MUTATE_ID=" + strconv.Itoa(m.id)
	var batch []string
	var took time.Duration
	limit := time.Second // of one process: most mutants are killed by the first
	flush := func() (outcome, bool) {
		if len(batch) == 0 {
			return 0, false
		}
		err := g.run(ctx, g.o.patience+10*took, batch, id)
		batch, took, limit = nil, 0, 4*limit
		switch {
		case ctx.Err() != nil:
			return notPlayed, true
		case errors.Is(err, errTimeout):
			return timedOut, true
		case err != nil:
			return killed, true
		}
		return 0, false
	}
	for _, t := range g.list {
		if !t.differs[m.id] {
			continue
		}
		if took+t.took > limit {
			if o, done := flush(); done {
				return o
			}
			if late() {
				return notPlayed
			}
		}
		batch, took = append(batch, t.name), took+t.took
	}
	if o, done := flush(); done {
		return o
	}
	if g.o.all {
		// What a test reaches can depend on random values and on the order in
		// which goroutines run.
		if late() {
			return notPlayed
		}
		var took time.Duration
		for _, t := range g.list {
			took += t.took
		}
		err := g.run(ctx, g.o.patience+10*took, nil, id)
		switch {
		case ctx.Err() != nil:
			return notPlayed
		case errors.Is(err, errTimeout):
			return timedOut
		case err != nil:
			return killed
		}
	}
	return survived
}

var errTimeout = errors.New("timeout")

// run runs tests in one process. Without names it runs all of them.
func (g *game) run(ctx context.Context, timeout time.Duration, names []string, env string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	args := []string{"-test.short", "-test.failfast", "-test.timeout=0"}
	if names != nil {
		args = append(args, "-test.run=^("+strings.Join(names, "|")+")$")
	}
	cmd := exec.CommandContext(ctx, g.binary, args...)
	cmd.Dir = g.tests
	cmd.Env = append(os.Environ(), env)
	contain(cmd)
	err := cmd.Run()
	if err != nil && errors.Is(context.Cause(ctx), errTimeout) {
		return errTimeout
	}
	return err
}

// parallel calls f for each element, a few at once.
func parallel[T any](jobs int, list []T, f func(T)) {
	var wg sync.WaitGroup
	next := make(chan T)
	for range max(1, jobs) {
		wg.Go(func() {
			for e := range next {
				f(e)
			}
		})
	}
	for _, e := range list {
		next <- e
	}
	close(next)
	wg.Wait()
}
