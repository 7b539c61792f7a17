package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/sandbox"
)

// Pause stops all processes of a running container where they are.
func (c *Containers) Pause(_ context.Context, name string) error {
	r, err := c.find(name)
	if err != nil {
		return err
	}
	switch r.status() {
	case Running:
		return c.pause(r)
	case Paused:
		return because(errdefs.ErrConflict, "container %s is already paused", r.config.Name)
	}
	return because(errdefs.ErrConflict, "container %s is not running", r.config.ID)
}

// Unpause lets them go on.
func (c *Containers) Unpause(_ context.Context, name string) error {
	r, err := c.find(name)
	if err != nil {
		return err
	}
	if r.status() != Paused {
		return because(errdefs.ErrConflict, "container %s is not paused", r.config.ID)
	}
	return c.unpause(r)
}

func (c *Containers) pause(r *record) error {
	if err := sandbox.Pause(r.path(sandboxDir), r.config.ID); err != nil {
		return fmt.Errorf("pause %s: %w", r.config.Name, err)
	}
	if err := os.WriteFile(r.path(pauseFile), nil, 0o600); err != nil {
		return errors.Join(fmt.Errorf("pause %s: %w", r.config.Name, err), c.unpause(r))
	}
	return nil
}

func (c *Containers) unpause(r *record) error {
	if err := sandbox.Resume(r.path(sandboxDir), r.config.ID); err != nil {
		return fmt.Errorf("unpause %s: %w", r.config.Name, err)
	}
	if err := os.Remove(r.path(pauseFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unpause %s: %w", r.config.Name, err)
	}
	return nil
}

// awaken lets a paused container go on before it is to end: a frozen process
// takes no signal, not even SIGKILL on control groups of version 1.
func (c *Containers) awaken(r *record) error {
	if r.status() != Paused {
		return nil
	}
	return c.unpause(r)
}

// Processes lists the processes of a running container, as the host numbers
// them.
func (c *Containers) Processes(_ context.Context, name string) ([]int, error) {
	r, err := c.find(name)
	if err != nil {
		return nil, err
	}
	if !r.running || r.state.Pid == 0 {
		return nil, because(errdefs.ErrConflict, "container %s is not running", r.config.ID)
	}
	return sandbox.Processes(r.path(sandboxDir), r.config.ID)
}
