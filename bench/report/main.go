// Command report reads what the benchmarks of module bench printed, and writes
// the medians as tables and charts.
//
// It draws the charts into DOCS/img, puts the tables between the markers of
// DOCS/performance.md (which it makes if it is not there), and prints them.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	in := flag.String("in", "results/latest.txt", "what the benchmarks printed")
	docs := flag.String("docs", "../docs", "folder of performance.md and img")
	goals := flag.Bool("goals", false, "also print what was to be reached, and what was")
	flag.Parse()
	if err := run(*in, *docs, *goals); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(in, docs string, goals bool) error {
	data, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	res, err := parse(bytes.NewReader(data))
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
	results := page(res)
	path := filepath.Join(docs, "performance.md")
	old, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		old, err = []byte(blank), nil
	}
	if err != nil {
		return err
	}
	text, err := between(string(old), results)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Println(results)
	if goals {
		fmt.Println(reached(res))
	}
	return nil
}
