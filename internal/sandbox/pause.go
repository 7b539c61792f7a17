package sandbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runc/libcontainer"
)

// Pause stops every process of the sandbox with the freezer of its control
// group. Without one it is an [errdefs.ErrNotImplemented].
func Pause(dir, id string) error {
	e, err := loadExternal(dir, id)
	if err != nil {
		return err
	}
	if e != nil {
		return e.run(e.command(context.Background(), "pause", id))
	}
	container, err := load(dir, id)
	if err != nil {
		return err
	}
	if reason := LimitsError(); reason != nil {
		return because(errdefs.ErrNotImplemented, "freeze sandbox %s: %v", id, reason)
	}
	if err := container.Pause(); err != nil {
		return fmt.Errorf("freeze sandbox %s: %w", id, err)
	}
	return nil
}

// Resume lets a paused sandbox go on.
func Resume(dir, id string) error {
	e, err := loadExternal(dir, id)
	if err != nil {
		return err
	}
	if e != nil {
		return e.run(e.command(context.Background(), "resume", id))
	}
	container, err := load(dir, id)
	if err != nil {
		return err
	}
	if err := container.Resume(); err != nil {
		return fmt.Errorf("thaw sandbox %s: %w", id, err)
	}
	return nil
}

// Processes are the numbers of all processes of a sandbox.
func Processes(dir, id string) ([]int, error) {
	if e, err := loadExternal(dir, id); e != nil || err != nil {
		return nil, because(errdefs.ErrNotImplemented, "list the processes of another runtime's sandbox")
	}
	container, err := load(dir, id)
	if err != nil {
		return nil, err
	}
	pids, err := processesOf(container)
	if err != nil {
		return nil, fmt.Errorf("list the processes of sandbox %s: %w", id, err)
	}
	return pids, nil
}

// processesOf is what is in the control group of container.
func processesOf(container *libcontainer.Container) ([]int, error) {
	if LimitsError() == nil {
		return container.Processes()
	}
	state, err := container.State()
	if err != nil {
		return nil, err
	}
	return inNamespaceOf(state.InitProcessPid), nil
}

// inNamespaceOf is what there is without a control group: the processes in the
// process namespace of pid, or pid alone if it shares ours.
func inNamespaceOf(pid int) []int {
	own, err := os.Readlink("/proc/self/ns/pid")
	theirs, rerr := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil || rerr != nil || own == theirs {
		return []int{pid}
	}
	var pids []int
	links, _ := filepath.Glob("/proc/[0-9]*/ns/pid") // the pattern is right
	for _, link := range links {
		number, err := strconv.Atoi(strings.Split(link, "/")[2])
		if ns, lerr := os.Readlink(link); err == nil && lerr == nil && ns == theirs {
			pids = append(pids, number)
		}
	}
	slices.Sort(pids)
	return pids
}
