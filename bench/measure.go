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
	rss  int64 // peak resident set of the process and what it waited for, bytes
}

// result is a side with its samples.
type result struct {
	side
	samples []sample
}

func (r result) median() time.Duration {
	walls := make([]time.Duration, 0, len(r.samples))
	for _, s := range r.samples {
		walls = append(walls, s.wall)
	}
	slices.Sort(walls)
	return walls[len(walls)/2]
}

func (r result) rss() int64 {
	var most int64
	for _, s := range r.samples {
		most = max(most, s.rss)
	}
	return most
}

// compare runs the sides in turn, rounds times each after one round that does
// not count, and prints the first against the others. The order alternates,
// so that a machine that slows down slows all of them.
func compare(title string, rounds int, goal string, sides ...side) error {
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
				return fmt.Errorf("%s: %s: %w", title, results[i].name, err)
			}
			if round > 0 {
				results[i].samples = append(results[i].samples, s)
			}
		}
	}
	fmt.Printf("\n%s  (median of %d, goal: %s)\n", title, rounds, goal)
	ours := results[0].median()
	for i, r := range results {
		ratio := ""
		if i > 0 {
			ratio = fmt.Sprintf("shale is %.2f x", float64(ours)/float64(r.median()))
		}
		fmt.Printf("  %-28s %10.1f ms   peak %4d MB   %s\n", r.name, float64(r.median().Microseconds())/1000, r.rss()>>20, ratio)
	}
	return nil
}

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
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return sample{wall, usage.Maxrss << 10}, nil
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
