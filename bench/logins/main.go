// Command logins measures the quickstart program while many users sign in at once:
// its memory, how many logins it serves, how fast it refuses the others, and how
// long protected requests take meanwhile.
//
//	cd bench
//	GOWORK=off go run ./logins
//
// The command, its clients and the program share the processors of the machine, and
// nothing else should run on it. Each login has a name of its own, which no user
// has, so it costs as much as any other. The logins are of several sources: the
// program takes their addresses from X-Forwarded-For. The connections are open
// before the logins begin.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// options are the settings of a measurement.
type options struct {
	hash    string        // costs, for the flag -hash of the program
	budget  int64         // bytes, for its flag -hash-budget
	logins  int           // at once
	sources int           // of them
	rounds  int           // how often
	alone   time.Duration // of the loop that only hashes, and of protected requests while no user signs in
}

func main() {
	var o options
	var part, probe string
	flag.StringVar(&o.hash, "hash", "m=65536,t=1,p=1", "`costs` of the hashes")
	flag.Int64Var(&o.budget, "budget", 0, "password.Hasher.Budget, in `bytes`; 0 means its default")
	flag.IntVar(&o.logins, "logins", 500, "logins at once")
	flag.IntVar(&o.sources, "sources", 25, "number of sources of the logins")
	flag.IntVar(&o.rounds, "rounds", 5, "how often as many logins begin, after the last ones have ended")
	flag.DurationVar(&o.alone, "alone", 3*time.Second, "how long the loop runs that only hashes, and how long protected requests are measured while no user signs in")
	flag.StringVar(&part, "part", "", "runs only the part hash or probe; the command starts itself with this flag")
	flag.StringVar(&probe, "probe", "", "`address` of the program, for the part probe")
	flag.Parse()
	if err := run(os.Stdout, o, part, probe); err != nil {
		fmt.Fprintln(os.Stderr, "logins:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, o options, part, addr string) error {
	switch part {
	case "hash":
		return onlyHash(w, o)
	case "probe":
		return probe(os.Stdin, w, addr)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, err := measure(o, func(args ...string) *exec.Cmd { return exec.Command(self, args...) })
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, r.report(o))
	return err
}

// result has the figures of a measurement.
type result struct {
	hashes        []float64 // per second, of the loop that only hashes, before and after
	rates         []float64 // logins served per second, of each round
	served        int
	told          map[int]int     // number of refused logins by status
	refused       []time.Duration // from the request to the refusal
	idle, busy    []sample        // protected requests
	arrivals      [][2]time.Time  // of each round: the first request, and the last refusal
	started, peak int64           // KiB of resident memory
}

// measure starts the program and measures it. self returns a command that runs this
// command with other arguments.
func measure(o options, self func(args ...string) *exec.Cmd) (*result, error) {
	dir, err := os.MkdirTemp("", "logins")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path, err := build(dir)
	if err != nil {
		return nil, err
	}
	r := &result{told: map[int]int{}}
	s, err := start(path, o)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	r.started = s.memory("VmRSS:")
	if err := r.hash(o, self); err != nil {
		return nil, err
	}
	token, err := s.signIn()
	if err != nil {
		return nil, err
	}
	wait := func() error { time.Sleep(o.alone); return nil }
	if r.idle, err = during(self, s.addr, token, wait); err != nil {
		return nil, err
	}
	for round := range o.rounds {
		took, err := during(self, s.addr, token, func() error { return r.round(s.addr, o, round) })
		if err != nil {
			return nil, err
		}
		r.busy = append(r.busy, took...)
	}
	r.peak = s.memory("VmHWM:")
	return r, r.hash(o, self)
}

// report returns the figures as text.
func (r *result) report(o options) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("%d rounds of %d logins at once from %d sources, with hashes of %s", o.rounds, o.logins, o.sources, o.hash)
	line("served:              %d, %.1f a second; a loop that only hashes: %.1f a second before, %.1f after; %.2f times as many",
		r.served, mean(r.rates), r.hashes[0], r.hashes[1], mean(r.rates)/mean(r.hashes))
	line("told to come later:  %d with status 429, %d with status 503", r.told[429], r.told[503])
	line("  from the request:  %s", quantiles(r.refused))
	arriving := func(s sample) bool {
		return slices.ContainsFunc(r.arrivals, func(a [2]time.Time) bool { return s.Begin.After(a[0]) && s.Begin.Before(a[1]) })
	}
	line("protected requests:  %s", quantiles(durations(r.busy, func(sample) bool { return true })))
	line("  logins arrive:     %s", quantiles(durations(r.busy, arriving)))
	line("  logins wait:       %s", quantiles(durations(r.busy, func(s sample) bool { return !arriving(s) })))
	line("  no user signs in:  %s", quantiles(durations(r.idle, func(sample) bool { return true })))
	line("memory (resident):   %d MiB at most; %d MiB at the start", r.peak/1024, r.started/1024)
	return b.String()
}

func mean(list []float64) float64 {
	sum := 0.0
	for _, v := range list {
		sum += v
	}
	return sum / float64(len(list))
}

// quantiles returns some quantiles of list, which it sorts.
func quantiles(list []time.Duration) string {
	if len(list) == 0 {
		return "none"
	}
	slices.Sort(list)
	at := func(q float64) float64 {
		return list[min(len(list)-1, int(q*float64(len(list))))].Seconds() * 1000
	}
	return fmt.Sprintf("median %.1f ms, p90 %.1f ms, p99 %.1f ms, longest %.1f ms (of %d)", at(0.5), at(0.9), at(0.99), at(1), len(list))
}

// build builds the program in dir.
func build(dir string) (string, error) {
	const module = "github.com/ratchet-go/auth"
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", errors.New("the command must run in the module bench, with GOWORK=off")
	}
	path := filepath.Join(dir, "quickstart")
	cmd := exec.Command("go", "build", "-o", path, "./examples/quickstart")
	cmd.Dir = strings.TrimSpace(string(root))
	cmd.Env = append(os.Environ(), "GOWORK=") // the examples are in the workspace
	cmd.Stderr = os.Stderr
	return path, cmd.Run()
}
