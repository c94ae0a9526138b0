package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// equivalents are the entries of a list of equivalent mutants. An entry is the name
// of a mutant as the command prints it, without the number of the line, followed by
// indented lines with the reason. Lines that begin with # are comments.
type equivalents struct {
	names   []string
	matched map[string]bool
}

func readEquivalent(file string) (*equivalents, error) {
	e := &equivalents{matched: map[string]bool{}}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	reason := true // the last entry has one
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.TrimSpace(line) == "" || line[0] == '#':
		case line[0] == '\t' || line[0] == ' ':
			reason = true
		case !reason:
			return nil, fmt.Errorf("%s: the entry %q has no reason, want indented lines below it", file, e.names[len(e.names)-1])
		case slices.Contains(e.names, line):
			return nil, fmt.Errorf("%s: the entry %q is there twice", file, line)
		default:
			e.names, reason = append(e.names, line), false
		}
	}
	if !reason {
		return nil, fmt.Errorf("%s: the entry %q has no reason, want indented lines below it", file, e.names[len(e.names)-1])
	}
	return e, nil
}

// match reports whether the list has the mutant.
func (e *equivalents) match(m *mutant) bool {
	if !slices.Contains(e.names, m.name()) {
		return false
	}
	e.matched[m.name()] = true
	return true
}

// unused returns the entries about the packages that match no mutant.
func (e *equivalents) unused(packages []*pkg) []string {
	var list []string
	for _, name := range e.names {
		file, _, _ := strings.Cut(name, ": ")
		in := slices.ContainsFunc(packages, func(p *pkg) bool { return path.Dir(file) == p.dir })
		if in && !e.matched[name] {
			list = append(list, name)
		}
	}
	return list
}
