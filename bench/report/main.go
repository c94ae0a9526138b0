// Command report reads the output of the benchmarks of module bench and writes
// the medians as tables and charts.
//
// It writes the charts to DOCS/img, replaces the summary and the tables between
// the markers in DOCS/performance.md, and prints both.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	in := flag.String("in", "results/latest.txt", "`file` with the output of the benchmarks")
	docs := flag.String("docs", "../docs", "`directory` of performance.md and img")
	withGoals := flag.Bool("goals", false, "also compare the results with the goals")
	flag.Parse()
	if err := run(*in, *docs, *withGoals); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(in, docs string, withGoals bool) error {
	data, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	res, err := parse(bytes.NewReader(data), in)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(docs, "img"), 0o755); err != nil {
		return err
	}
	for _, c := range charts(res) {
		if err := os.WriteFile(filepath.Join(docs, "img", c.file), c.svg(), 0o644); err != nil {
			return err
		}
	}
	path := filepath.Join(docs, "performance.md")
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := update(string(old), res)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Printf("%s\n%s\n", summary(res), page(res))
	if withGoals {
		fmt.Println(goals(res))
	}
	return nil
}
