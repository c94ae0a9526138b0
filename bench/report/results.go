package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
	"golang.org/x/perf/benchunit"
)

// results holds every run of every benchmark in a file.
type results struct {
	config     map[string]string   // such as cores: 2
	benchmarks map[string]measures // by full name, such as Protected/alg=HS256/peer=jwx-2
}

// measures holds what the runs of one benchmark reported, by unit. The units
// are those of package benchunit: times are in seconds.
type measures map[string]*benchmath.Sample

var (
	comment = regexp.MustCompile(`(?m)^# `)
	failure = regexp.MustCompile(`(?m)^(--- FAIL|FAIL$)`)
)

// parse reads the output of go test -bench -benchmem. The lines "# key: value"
// before it describe the machine. They are comments, so that benchstat does
// not treat results of two days as two configurations.
func parse(r io.Reader, file string) (*results, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if failure.Match(text) {
		return nil, fmt.Errorf("%s: a benchmark failed", file)
	}
	res := &results{config: map[string]string{}, benchmarks: map[string]measures{}}
	values := map[string]map[string][]float64{}
	s := benchfmt.NewReader(bytes.NewReader(comment.ReplaceAll(text, nil)), file)
	for s.Scan() {
		switch record := s.Result().(type) {
		case *benchfmt.SyntaxError:
			return nil, record
		case *benchfmt.Result:
			for _, c := range record.Config {
				res.config[c.Key] = string(c.Value)
			}
			name := record.Name.String()
			if values[name] == nil {
				values[name] = map[string][]float64{}
			}
			for _, v := range record.Values {
				values[name][v.Unit] = append(values[name][v.Unit], v.Value)
			}
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("%s: no results", file)
	}
	for name, units := range values {
		m := measures{}
		for unit, v := range units {
			m[unit] = benchmath.NewSample(v, &benchmath.DefaultThresholds)
		}
		res.benchmarks[name] = m
	}
	return res, nil
}

// get returns the measures of a benchmark that ran on all CPUs. They are empty
// if it did not run.
func (r *results) get(name string) measures { return r.on(r.config["cores"], name) }

// on is get for a number of CPUs.
func (r *results) on(cpus, name string) measures {
	if cpus != "1" {
		name += "-" + cpus
	}
	return r.benchmarks[name]
}

// confidence is the level of confidence intervals.
const confidence = 0.95

// median returns the median of the runs, or NaN if there is none.
func (m measures) median(unit string) float64 {
	if m[unit] == nil {
		return math.NaN()
	}
	return benchmath.AssumeNothing.Summary(m[unit], confidence).Center
}

// least returns the smallest value of the runs, or NaN if there is none.
func (m measures) least(unit string) float64 {
	if m[unit] == nil {
		return math.NaN()
	}
	return m[unit].Values[0]
}

// time returns the median time of an operation in seconds.
func (m measures) time() float64 { return m.median("sec/op") }

// allocs returns the median number of allocations of an operation.
func (m measures) allocs() float64 { return m.median("allocs/op") }

// precision describes how often each benchmark ran and how far apart its runs
// are. It considers the benchmarks of time, which also report B/op.
func (r *results) precision() string {
	runs, intervals := 0, true
	var spreads []float64
	for _, name := range slices.Sorted(maps.Keys(r.benchmarks)) {
		m := r.benchmarks[name]
		if m["B/op"] == nil {
			continue
		}
		times := m["sec/op"]
		runs = max(runs, len(times.Values))
		s := benchmath.AssumeNothing.Summary(times, confidence)
		if math.IsInf(s.Lo, 0) || math.IsInf(s.Hi, 0) {
			intervals = false
			spreads = append(spreads, (times.Values[len(times.Values)-1]-times.Values[0])/s.Center)
			continue
		}
		spreads = append(spreads, max(s.Hi/s.Center-1, 1-s.Lo/s.Center))
	}
	if runs < 2 {
		return "Each figure is one run of " + r.config["benchtime"] + "."
	}
	text := fmt.Sprintf("Each figure is the median of %d runs of %s.", runs, r.config["benchtime"])
	spread := 100 * measures{"": benchmath.NewSample(spreads, &benchmath.DefaultThresholds)}.median("")
	if intervals {
		return fmt.Sprintf("%s For the median benchmark, the %.0f %% confidence interval of the median is ± %.0f %%.", text, 100*confidence, spread)
	}
	return fmt.Sprintf("%s For the median benchmark, the slowest and the fastest run differ by %.0f %%.", text, spread)
}

// duration formats seconds with three digits.
func duration(sec float64) string {
	if math.IsNaN(sec) {
		return "–"
	}
	// CommonScale selects the prefix for four digits, so round to three before.
	sec, _ = strconv.ParseFloat(strconv.FormatFloat(sec, 'e', 2, 64), 64)
	s := benchunit.CommonScale([]float64{sec}, benchunit.Decimal)
	return strconv.FormatFloat(sec/s.Factor, 'f', s.Prec-1, 64) + " " + s.Prefix + "s"
}

// digits formats a number with three digits, but at most two decimals.
func digits(v float64) string {
	switch {
	case v < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// ratio formats a as a multiple of b.
func ratio(a, b float64) string {
	if math.IsNaN(a) || math.IsNaN(b) {
		return "–"
	}
	return digits(a/b) + " ×"
}

// whole formats a number without decimals.
func whole(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return strconv.FormatFloat(math.Round(v), 'f', 0, 64)
}
