package sandbox

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
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
	pids, err := container.Processes()
	if err != nil {
		return nil, fmt.Errorf("list the processes of sandbox %s: %w", id, err)
	}
	return pids, nil
}
