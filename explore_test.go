package auth_test

import (
	"fmt"
	"hash/maphash"
	"strings"
)

// A machine is a model whose states are all visited, breadth first. S must be a
// comparable type without pointers.
type machine[S comparable] struct {
	start S
	// next passes every step from s, and the state after it, to visit.
	next func(s S, visit func(step, S))
	// fault describes what must not be true of s, or is empty.
	fault func(s S) string
	show  func(s S) string
}

// step is the name of a step. It is a format for n.
type step struct {
	text string
	n    int8
}

func (p step) String() string {
	if strings.Contains(p.text, "%d") {
		return fmt.Sprintf(p.text, p.n)
	}
	return p.text
}

// found is the result of explore.
type found struct {
	states   int
	complete bool     // all states were visited
	fault    string   // the first fault, or empty
	history  []string // the shortest that leads to it
}

// explore visits the states of m until one has a fault, or limit states were
// visited. It knows the states that it has visited by their hashes of 64 bits.
// With 10 million states, the probability that two of them have one hash, so
// that one is overlooked, is 1 in 300,000.
func explore[S comparable](m *machine[S], limit int) found {
	seed := maphash.MakeSeed()
	hash := func(s S) uint64 { return max(1, maphash.Comparable(seed, s)) }
	var known visitedSet
	known.grow(1 << 12)
	level := []S{m.start}
	root := hash(m.start)
	known.add(root, 0)
	for len(level) > 0 {
		var nextLevel []S
		for i := range level {
			s := &level[i]
			from := hash(*s)
			var failed found
			m.next(*s, func(_ step, to S) {
				if failed.fault != "" || known.n >= limit {
					return
				}
				h := hash(to)
				if !known.add(h, from) {
					return
				}
				if failed.fault = m.fault(to); failed.fault != "" {
					failed.history = m.history(hash, &known, h)
					return
				}
				nextLevel = append(nextLevel, to)
			})
			if failed.fault != "" {
				failed.states = known.n
				return failed
			}
			if known.n >= limit {
				return found{states: known.n}
			}
		}
		level = nextLevel
	}
	return found{states: known.n, complete: true}
}

// history returns the steps from the start to the state with the hash last. It
// repeats them, because only hashes of the states are stored.
func (m *machine[S]) history(hash func(S) uint64, known *visitedSet, last uint64) []string {
	var path []uint64
	for h := last; h != 0; h = known.parent(h) {
		path = append(path, h)
	}
	s := m.start
	var lines []string
	for i := len(path) - 2; i >= 0; i-- {
		var after S
		var by step
		m.next(s, func(p step, to S) {
			if by.text == "" && hash(to) == path[i] {
				by, after = p, to
			}
		})
		s = after
		lines = append(lines, fmt.Sprintf("%2d. %-58s %s", len(lines)+1, by, m.show(s)))
	}
	return lines
}

// visitedSet is a set of hashes with the hash of a parent for each. Zero is no
// hash.
type visitedSet struct {
	table [][2]uint64
	n     int
}

func (v *visitedSet) grow(size int) {
	old := v.table
	v.table = make([][2]uint64, size)
	for _, e := range old {
		if e[0] != 0 {
			v.table[v.slot(e[0])] = e
		}
	}
}

// slot returns where a hash is, or the free place for it.
func (v *visitedSet) slot(h uint64) int {
	i := int(h) & (len(v.table) - 1)
	for v.table[i][0] != 0 && v.table[i][0] != h {
		i = (i + 1) & (len(v.table) - 1)
	}
	return i
}

func (v *visitedSet) parent(h uint64) uint64 { return v.table[v.slot(h)][1] }

// add adds a hash and reports whether it is new.
func (v *visitedSet) add(h, parent uint64) bool {
	if i := v.slot(h); v.table[i][0] == h {
		return false
	}
	if v.n >= len(v.table)*3/4 {
		v.grow(2 * len(v.table))
	}
	v.table[v.slot(h)] = [2]uint64{h, parent}
	v.n++
	return true
}

func (f found) String() string {
	return fmt.Sprintf("%d states: %s\n%s", f.states, f.fault, strings.Join(f.history, "\n"))
}
