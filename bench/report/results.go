package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// results are all runs of all benchmarks, by name: "Protected alg=HS256
// peer=jwx cpu=2".
type results struct {
	about map[string]string // "# cores: 2"
	runs  map[string]*runs
}

type runs struct {
	ns, bytes, allocs, token []float64
	other                    map[string][]float64 // what is neither time nor memory, by its unit
}

var cpuSuffix = regexp.MustCompile(`-(\d+)$`)

// parse reads what go test -bench -benchmem printed, and the lines above it
// that tell of the machine.
func parse(r io.Reader) (*results, error) {
	res := &results{about: map[string]string{}, runs: map[string]*runs{}}
	s := bufio.NewScanner(r)
	for s.Scan() {
		line := s.Text()
		if key, value, ok := strings.Cut(strings.TrimPrefix(line, "# "), ": "); ok && strings.HasPrefix(line, "# ") {
			res.about[key] = value
			continue
		}
		if strings.HasPrefix(line, "--- FAIL") || line == "FAIL" {
			return nil, errors.New("a benchmark failed")
		}
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(f[0], "Benchmark")
		cpu := "1"
		if m := cpuSuffix.FindStringSubmatch(name); m != nil {
			cpu, name = m[1], strings.TrimSuffix(name, m[0])
		}
		name = strings.ReplaceAll(name, "/", " ") + " cpu=" + cpu
		one := res.runs[name]
		if one == nil {
			one = &runs{other: map[string][]float64{}}
			res.runs[name] = one
		}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			switch f[i+1] {
			case "ns/op":
				one.ns = append(one.ns, v)
			case "B/op":
				one.bytes = append(one.bytes, v)
			case "allocs/op":
				one.allocs = append(one.allocs, v)
			case "token-bytes":
				one.token = append(one.token, v)
			default:
				one.other[f[i+1]] = append(one.other[f[i+1]], v)
			}
		}
	}
	if len(res.runs) == 0 && s.Err() == nil {
		return nil, errors.New("no results")
	}
	return res, s.Err()
}

// get returns the runs of a benchmark on all CPUs, or nil.
func (r *results) get(name string) *runs { return r.runs[name+" cpu="+r.about["cores"]] }

// on is get for one number of CPUs.
func (r *results) on(cpus, name string) *runs { return r.runs[name+" cpu="+cpus] }

// time returns the median time of a benchmark, or NaN.
func (r *runs) time() float64 {
	if r == nil {
		return math.NaN()
	}
	return median(r.ns)
}

// value returns the median of a measure that is not the time, or NaN.
func (r *runs) value(unit string) float64 {
	if r == nil {
		return math.NaN()
	}
	return median(r.other[unit])
}

// least returns the smallest of a measure to which a busy machine only ever
// adds, or NaN.
func (r *runs) least(unit string) float64 {
	if r == nil || len(r.other[unit]) == 0 {
		return math.NaN()
	}
	return slices.Min(r.other[unit])
}

func median(v []float64) float64 { return quantile(v, 0.5) }

func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	at := q * float64(len(v)-1)
	low := int(at)
	if low+1 == len(v) {
		return v[low]
	}
	return v[low] + (at-float64(low))*(v[low+1]-v[low])
}

// count is how often each benchmark was run, and spread how far apart, at the
// median benchmark, the quartiles lie, as a part of the median. Benchmarks that
// measure something else than time do not count.
func (r *results) count() (runs int, spread float64) {
	var spreads []float64
	for _, name := range slices.Sorted(maps.Keys(r.runs)) {
		if len(r.runs[name].other) > 0 {
			continue
		}
		ns := r.runs[name].ns
		runs = max(runs, len(ns))
		spreads = append(spreads, (quantile(ns, 0.75)-quantile(ns, 0.25))/median(ns))
	}
	return runs, median(spreads)
}

// duration prints nanoseconds with three digits.
func duration(ns float64) string {
	if math.IsNaN(ns) {
		return "–"
	}
	switch {
	case ns < 999.5:
		return digits(ns) + " ns"
	case ns < 999_500:
		return digits(ns/1e3) + " µs"
	}
	return digits(ns/1e6) + " ms"
}

func digits(v float64) string {
	switch {
	case v < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// ratio prints how many times b a is.
func ratio(a, b float64) string {
	if math.IsNaN(a) || math.IsNaN(b) {
		return "–"
	}
	return digits(a/b) + " ×"
}

func number(v []float64) string {
	m := median(v)
	if math.IsNaN(m) {
		return "–"
	}
	return strconv.FormatFloat(math.Round(m), 'f', 0, 64)
}
