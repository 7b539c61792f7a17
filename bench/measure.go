package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A side is one of the things that are compared: a name and a command. Before
// runs ahead of each run and is not timed.
type side struct {
	name   string
	before func() error
	run    func() (*exec.Cmd, error)
}

// sample is what one run took.
type sample struct {
	wall time.Duration
	cpu  time.Duration // user and system, of the process and what it waited for
	rss  int64         // peak resident set of any of them, bytes
}

// result is a side with its samples.
type result struct {
	side
	samples []sample
}

func (r result) median() time.Duration {
	return r.medianOf(func(s sample) time.Duration { return s.wall })
}

func (r result) cpu() time.Duration {
	return r.medianOf(func(s sample) time.Duration { return s.cpu })
}

func (r result) medianOf(of func(sample) time.Duration) time.Duration {
	times := make([]time.Duration, 0, len(r.samples))
	for _, s := range r.samples {
		times = append(times, of(s))
	}
	slices.Sort(times)
	return times[len(times)/2]
}

func (r result) rss() int64 {
	var most int64
	for _, s := range r.samples {
		most = max(most, s.rss)
	}
	return most
}

// compare runs the sides and prints the first against the others.
func compare(title string, rounds int, goal string, sides ...side) error {
	results, err := alternate(title, rounds, sides...)
	if err == nil {
		report(title, rounds, goal, results)
	}
	return err
}

// report prints the first of the results against the others.
func report(title string, rounds int, goal string, results []result) {
	heading(title, rounds, goal)
	ours := results[0].median()
	for i, r := range results {
		ratio := ""
		if i > 0 {
			ratio = fmt.Sprintf("shale is %.2f x", float64(ours)/float64(r.median()))
		}
		r.print(r.median(), ratio)
	}
}

// alternate runs the sides in turn, rounds times each after one round that
// does not count. The order alternates, so that a machine that slows down
// slows all of them.
func alternate(title string, rounds int, sides ...side) ([]result, error) {
	results := make([]result, len(sides))
	for i, s := range sides {
		results[i] = result{side: s}
	}
	for round := range rounds + 1 {
		for i := range results {
			if round%2 == 1 {
				i = len(results) - 1 - i
			}
			s, err := measure(results[i].side)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", title, results[i].name, err)
			}
			if round > 0 {
				results[i].samples = append(results[i].samples, s)
			}
		}
	}
	return results, nil
}

func heading(title string, rounds int, goal string) {
	fmt.Printf("\n%s  (median of %d, goal: %s)\n", title, rounds, goal)
}

// print writes the line of a side; what it took is wall.
func (r result) print(wall time.Duration, note string) {
	fmt.Printf("  %-28s %10.1f ms   cpu %8.1f ms   peak %4d MB   %s\n", r.name, milliseconds(wall), milliseconds(r.cpu()), r.rss()>>20, note)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func measure(s side) (sample, error) {
	if s.before != nil {
		if err := s.before(); err != nil {
			return sample{}, err
		}
	}
	cmd, err := s.run()
	if err != nil {
		return sample{}, err
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	err = cmd.Run()
	wall := time.Since(begin)
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out.String())
	}
	state := cmd.ProcessState
	usage := state.SysUsage().(*syscall.Rusage)
	return sample{wall, state.UserTime() + state.SystemTime(), usage.Maxrss << 10}, nil
}

// quiet runs a command for its effect.
func quiet(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func have(program string) bool {
	_, err := exec.LookPath(program)
	if err != nil {
		fmt.Fprintf(os.Stderr, "  (no %s on this machine: its side is left out)\n", program)
	}
	return err == nil
}
