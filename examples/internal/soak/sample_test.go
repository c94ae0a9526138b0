package soak

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// sample is what was measured in an interval, for both nodes of a store together.
type sample struct {
	at    time.Duration // since the beginning
	state processState
	rate  float64       // responses per second
	p99   time.Duration // of the time to a response, as the client sees it
	size  float64       // of the store, in bytes (Redis) or rows
}

// sampleUntil takes samples until stop is closed. There is none while a process is
// down.
func (s *soak) sampleUntil(stop <-chan struct{}, begin time.Time, every time.Duration) {
	size, done := s.sizer()
	defer done()
	last := begin
	for {
		select {
		case <-stop:
			return
		case <-time.After(every):
		}
		now := time.Now()
		s.mu.Lock()
		procs, latencies := slices.Clone(s.procs), s.latencies
		s.latencies = nil
		s.mu.Unlock()
		m := sample{at: now.Sub(begin), rate: float64(len(latencies)) / now.Sub(last).Seconds()}
		last = now
		if len(latencies) > 0 {
			slices.Sort(latencies)
			m.p99 = latencies[len(latencies)*99/100]
		}
		complete := true
		for _, p := range procs {
			state, err := s.stateOf(p)
			complete = complete && err == nil
			m.state.Heap += state.Heap
			m.state.RSS += state.RSS
			m.state.Goroutines += state.Goroutines
			m.state.Files += state.Files
			m.state.Revocations += state.Revocations
		}
		if !complete {
			continue
		}
		m.size, _ = size() // 0 while the server is down
		s.mu.Lock()
		s.samples = append(s.samples, m)
		s.mu.Unlock()
	}
}

// sizeUnits are the units of the size of a store.
var sizeUnits = map[string]string{"Redis": "bytes", "PostgreSQL": "rows", "SQLite": "rows"}

// rowsQuery counts the sessions and the revocations.
const rowsQuery = `SELECT (SELECT count(*) FROM %[1]ssessions) + (SELECT count(*) FROM %[1]srevocations)`

// sizer returns a function that returns the size of the store.
func (s *soak) sizer() (size func() (float64, error), done func()) {
	ctx := context.Background()
	switch s.store {
	case "Redis":
		c := redis.NewClient(&redis.Options{Addr: s.server.Addr})
		return func() (float64, error) {
			text, err := c.Info(ctx, "memory").Result()
			_, after, _ := strings.Cut(text, "used_memory:")
			number, _, _ := strings.Cut(after, "\r")
			n, _ := strconv.ParseFloat(number, 64)
			return n, err
		}, func() { _ = c.Close() }
	case "PostgreSQL":
		return func() (n float64, err error) {
			c, err := pgx.Connect(ctx, s.config.DSN[:strings.Index(s.config.DSN, "&pool")])
			if err != nil {
				return 0, err
			}
			defer c.Close(ctx)
			err = c.QueryRow(ctx, fmt.Sprintf(rowsQuery, "ratchet.")).Scan(&n)
			return n, err
		}, func() {}
	case "SQLite":
		db, err := sql.Open("sqlite", "file:"+s.config.DSN+"?mode=ro")
		if err != nil {
			return func() (float64, error) { return 0, err }, func() {}
		}
		return func() (n float64, err error) {
			err = db.QueryRow(fmt.Sprintf(rowsQuery, "")).Scan(&n)
			return n, err
		}, func() { _ = db.Close() }
	}
	return func() (float64, error) { return 0, nil }, func() {}
}

// measures are what must not grow, for both nodes of a store together, and by how
// much: the factor and the amount by which the median of the last quarter may exceed
// that of the second quarter.
var measures = []struct {
	name   string
	of     func(sample) float64
	factor float64
	plus   float64
}{
	{"heap", func(m sample) float64 { return m.state.Heap }, 1.1, 1 << 20},
	{"resident memory", func(m sample) float64 { return m.state.RSS }, 1.15, 8 << 20},
	{"goroutines", func(m sample) float64 { return m.state.Goroutines }, 1.05, 10},
	{"files", func(m sample) float64 { return m.state.Files }, 1.05, 10},
	{"revocations", func(m sample) float64 { return m.state.Revocations }, 1.2, 100},
}

// quarters returns the medians of the second and the last quarter.
func quarters(samples []sample, of func(sample) float64) (second, last float64) {
	n := len(samples)
	median := func(part []sample) float64 {
		var values []float64
		for _, m := range part {
			values = append(values, of(m))
		}
		slices.Sort(values)
		if len(values) == 0 {
			return 0
		}
		return values[len(values)/2]
	}
	return median(samples[n/4 : n/2]), median(samples[3*n/4:])
}

// growth returns what grew beyond its bound.
func growth(samples []sample) (grew []string) {
	for _, m := range measures {
		if second, last := quarters(samples, m.of); last > second*m.factor+m.plus {
			grew = append(grew, fmt.Sprintf("%s: the median grew from %.0f in the second quarter to %.0f in the last one", m.name, second, last))
		}
	}
	return grew
}

// minGrowth is the shortest run in which growth is checked. By its second quarter
// the number of revocations in memory is constant: each stays for twice the access
// lifetime plus a minute, which is 140 seconds.
const minGrowth = 12 * time.Minute

// stateOf returns the state of a process. A fault that it reports is a violation,
// except during a disturbance.
func (s *soak) stateOf(p *process) (processState, error) {
	state, err := p.state()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range state.Faults {
		if s.disturbedLocked(f.At) {
			s.counts["faults during disturbances"]++
		} else {
			s.violationLocked("fault at %s: %s", f.At.Format(time.TimeOnly), f.Text)
		}
	}
	return state, err
}

// judge fails the test for everything that was wrong.
func (s *soak) judge(duration time.Duration) {
	defer s.reportViolations()
	if duration >= minGrowth {
		for _, g := range growth(s.samples) {
			s.t.Error(g)
		}
	}
	// Without connections, only what a driver keeps for its own is left.
	end := time.Now().Add(startTimeout)
	for _, p := range s.procs {
		for {
			now, err := s.stateOf(p)
			if err == nil && now.Goroutines <= p.started.Goroutines+2*poolSize+4 {
				s.reuses += now.Reuses
				break
			}
			if time.Now().After(end) {
				s.t.Errorf("%.0f goroutines are left, %.0f before the first request: %v", now.Goroutines, p.started.Goroutines, err)
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	if expected := s.counts["thefts"] + s.counts["retries after the retry window, signed out"]; s.reuses > expected {
		s.t.Errorf("%d events of reuse, want at most %d", s.reuses, expected)
	}
}

func (s *soak) reportViolations() {
	for _, v := range s.violations {
		s.t.Error(v)
	}
	if more := s.failed - len(s.violations); more > 0 {
		s.t.Errorf("and %d more", more)
	}
}

// report returns the results as Markdown tables.
func report(soaks []*soak) string {
	var b strings.Builder
	row := func(name string, cell func(s *soak) string) {
		b.WriteString("| " + name + " |")
		for _, s := range soaks {
			b.WriteString(" " + cell(s) + " |")
		}
		b.WriteString("\n")
	}
	row("", func(s *soak) string { return s.store })
	row("---", func(*soak) string { return "---" })
	total := map[string]bool{}
	for _, s := range soaks {
		for name := range s.counts {
			total[name] = true
		}
	}
	row("wrong responses", func(s *soak) string { return strconv.Itoa(s.failed) })
	for _, name := range slices.Sorted(maps.Keys(total)) {
		row(name, func(s *soak) string { return strconv.Itoa(s.counts[name]) })
	}
	row("seconds in which a response took more than a second", func(s *soak) string { return fmt.Sprintf("%.0f", s.stalled().Seconds()) })
	row("503, during disturbances only", func(s *soak) string { return strconv.Itoa(s.statuses[503]) })
	row("requests per second, median", func(s *soak) string {
		_, last := quarters(s.samples, func(m sample) float64 { return m.rate })
		return fmt.Sprintf("%.0f", last)
	})
	row("p99, median of the intervals", func(s *soak) string {
		_, last := quarters(s.samples, func(m sample) float64 { return m.p99.Seconds() })
		return fmt.Sprintf("%.1f ms", last*1000)
	})
	row("the other node refuses: median / 99 % / longest", func(s *soak) string {
		slices.Sort(s.delays)
		n := len(s.delays)
		if n == 0 {
			return ""
		}
		return fmt.Sprintf("%.1f / %.1f / %.0f ms", s.delays[n/2].Seconds()*1000, s.delays[n*99/100].Seconds()*1000, s.delays[n-1].Seconds()*1000)
	})
	for _, m := range measures {
		unit, by := "", 1.0
		if m.name == "heap" || m.name == "resident memory" {
			unit, by = " MiB", 1<<20
		}
		row(m.name+", second / last quarter", func(s *soak) string {
			second, last := quarters(s.samples, m.of)
			return fmt.Sprintf("%.*f / %.*f%s", len(unit)/4, second/by, len(unit)/4, last/by, unit)
		})
	}
	row("store, second / last quarter", func(s *soak) string {
		second, last := quarters(s.samples, func(m sample) float64 { return m.size })
		switch sizeUnits[s.store] {
		case "bytes":
			return fmt.Sprintf("%.2f / %.2f MiB", second/(1<<20), last/(1<<20))
		case "rows":
			return fmt.Sprintf("%.0f / %.0f rows", second, last)
		}
		return ""
	})
	return b.String()
}

// TestGrowth_IsFoundAndNoiseIsNot checks the bounds of growth.
func TestGrowth_IsFoundAndNoiseIsNot(t *testing.T) {
	t.Parallel()
	series := func(of func(i int) processState) (samples []sample) {
		for i := range 240 {
			samples = append(samples, sample{state: of(i)})
		}
		return samples
	}
	flat := processState{Heap: 8 << 20, RSS: 60 << 20, Goroutines: 250, Files: 230, Revocations: 1500}
	require.Empty(t, growth(series(func(int) processState { return flat })))
	require.Empty(t, growth(series(func(i int) processState {
		s := flat
		s.Heap, s.Goroutines = s.Heap*(1+float64(i%7)/20), s.Goroutines+float64(i%40)
		return s
	})))
	require.Empty(t, growth(series(func(i int) processState { return processState{Heap: min(float64(i), 50) * 1e6} })), "it may grow at first")
	for name, leak := range map[string]func(s *processState, i float64){
		"heap":            func(s *processState, i float64) { s.Heap += i * (32 << 10) },
		"resident memory": func(s *processState, i float64) { s.RSS += i * (256 << 10) },
		"goroutines":      func(s *processState, i float64) { s.Goroutines += i / 4 },
		"files":           func(s *processState, i float64) { s.Files += i / 4 },
		"revocations":     func(s *processState, i float64) { s.Revocations += i * 5 },
	} {
		grew := growth(series(func(i int) processState {
			s := flat
			leak(&s, float64(i))
			return s
		}))
		require.Len(t, grew, 1, name)
		require.Contains(t, grew[0], name+": the median grew from")
	}
}
