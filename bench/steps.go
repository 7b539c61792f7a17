package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// stages: four stages that don't need each other, each of some 2 s of CPU.
// The bound is the same work started by hand, as many at a time as there are
// processors for it.
func (b *bench) stages() error {
	const at = 2
	loop, err := b.burn(2 * time.Second)
	if err != nil {
		return err
	}
	var dockerfile strings.Builder
	for i := range 4 {
		fmt.Fprintf(&dockerfile, "FROM bench-base AS s%d\nRUN %s; echo %d > /out\n", i, loop, i)
	}
	dockerfile.WriteString("FROM bench-base\n")
	for i := range 4 {
		fmt.Fprintf(&dockerfile, "COPY --from=s%d /out /out%d\n", i, i)
	}
	dir, err := b.dockerfile("stages", dockerfile.String())
	if err != nil {
		return err
	}
	all, err := b.builders(b.path("busybox.tar"), "bench-base")
	if err != nil {
		return err
	}
	sides := []side{{
		name: all[0].name,
		run:  func() (*exec.Cmd, error) { return all[0].build(dir, "--no-cache"), nil },
	}, {
		name: "the four by hand, two at once",
		run: func() (*exec.Cmd, error) {
			return exec.Command("sh", "-c", fmt.Sprintf("seq 4 | xargs -P %d -n 1 /bin/busybox sh -c '%s'", at, loop)), nil
		},
	}}
	for _, other := range all[1:] {
		sides = append(sides, side{
			name: other.name + " --jobs 4",
			run:  func() (*exec.Cmd, error) { return other.build(dir, "--no-cache", "--jobs", "4"), nil },
		})
	}
	const title, goal = "four stages of 2 s CPU each", "1.15 x CPU / 2"
	results, err := alternate(title, min(b.rounds, 3), sides...)
	if err != nil {
		return err
	}
	report(title, min(b.rounds, 3), goal, results)
	bound := results[0].cpu() / at
	fmt.Printf("  %-28s %10.1f ms%50s\n", "CPU of shale build / 2", milliseconds(bound),
		fmt.Sprintf("shale is %.2f x", float64(results[0].median())/float64(bound)))
	return nil
}

// burn returns a shell loop that takes about that long on this machine.
func (b *bench) burn(d time.Duration) (string, error) {
	const loop = "i=0; while [ $i -lt %d ]; do i=$((i+1)); done"
	const probe = 200_000
	s, err := measure(side{run: func() (*exec.Cmd, error) {
		return exec.Command("/bin/busybox", "sh", "-c", fmt.Sprintf(loop, probe)), nil
	}})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(loop, int64(probe*d/s.cpu)), nil
}

// dockerfile writes a context that is a Dockerfile alone.
func (b *bench) dockerfile(name, text string) (dir string, err error) {
	dir = b.path(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644)
}

// step: what a RUN costs beside its program. It is the difference of two
// builds that differ in nothing but the number of RUNs, so that the start of
// shale and the writing of the image are not in it. The time of a RUN holds the
// stack of layers, the sandbox, and the layer.
func (b *bench) step() error {
	const steps = 20
	none, err := b.dockerfile("step0", "FROM busybox\nLABEL a=b\n")
	if err != nil {
		return err
	}
	many, err := b.dockerfile("step1", "FROM busybox\nLABEL a=b\n"+strings.Repeat("RUN true\n", steps))
	if err != nil {
		return err
	}
	if err := b.bundle("sh", "-c", "true"); err != nil {
		return err
	}
	build := func(dir string) func() (*exec.Cmd, error) {
		return func() (*exec.Cmd, error) {
			return b.cmd("store", "build", "--no-cache", "--network", "none", "-t", "built", dir), nil
		}
	}
	sides := []side{
		{name: fmt.Sprint("shale build, ", steps, " RUN"), run: build(many)},
		{name: "shale build, no RUN", run: build(none)},
		{name: fmt.Sprint("runc run, ", steps, " in turn"), run: func() (*exec.Cmd, error) {
			return exec.Command("sh", "-c", fmt.Sprintf("for i in $(seq %d); do runc --root %s run --bundle %s step$i || exit; done",
				steps, b.path("runc"), b.path("bundle"))), nil
		}},
	}
	if !have("runc") {
		sides = sides[:2]
	}
	const title, goal = "a RUN true", "1.3 x runc run"
	results, err := alternate(title, b.rounds, sides...)
	if err != nil {
		return err
	}
	heading(title, b.rounds, goal)
	for _, r := range results {
		r.print(r.median(), "")
	}
	one := (results[0].median() - results[1].median()) / steps
	fmt.Printf("  %-28s %10.1f ms", "so one RUN takes", milliseconds(one))
	if len(results) > 2 {
		runc := results[2].median() / steps
		fmt.Printf("   and one runc run %.1f ms: %.2f x", milliseconds(runc), float64(one)/float64(runc))
	}
	fmt.Println()
	return nil
}
