package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/shaleproject/shale/internal/sandbox"
	"github.com/shaleproject/shale/internal/sys"
)

// defaultStopTimeout is Docker's.
const defaultStopTimeout = 10

// Stop asks the container's first process to end, with its stop signal, and
// kills it after a while. timeout is in seconds; nil means the container's
// own, a negative one waits for good. signal replaces the container's own
// unless it is empty. A container that doesn't run is no error.
func (c *Containers) Stop(ctx context.Context, name, signal string, timeout *int) error {
	r, err := c.find(name)
	if err != nil {
		return err
	}
	return c.stop(ctx, r, signal, timeout)
}

func (c *Containers) stop(ctx context.Context, r *record, signal string, timeout *int) error {
	if !r.running {
		return nil
	}
	if signal == "" {
		signal = r.config.Life.StopSignal
	}
	if signal == "" {
		signal = "SIGTERM"
	}
	sig, err := ParseSignal(signal)
	if err != nil {
		return err
	}
	seconds := defaultStopTimeout
	if r.config.Life.StopTimeout != nil {
		seconds = *r.config.Life.StopTimeout
	}
	if timeout != nil {
		seconds = *timeout
	}
	if err := r.markStopped(); err != nil {
		return err
	}
	if err := c.awaken(r); err != nil {
		return err
	}
	if err := r.signal(sig); err != nil && !errors.Is(err, errdefs.ErrConflict) {
		return err
	}
	gentle, cancel := ctx, context.CancelFunc(func() {})
	if seconds >= 0 {
		gentle, cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
	}
	_, err = c.await(gentle, r)
	cancel()
	if err == nil || ctx.Err() != nil {
		return err
	}
	if err := c.reload(r); errors.Is(err, errdefs.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if err := r.signal(unix.SIGKILL); err != nil && !errors.Is(err, errdefs.ErrConflict) {
		return err
	}
	_, err = c.await(ctx, r)
	return err
}

// Kill sends a signal, SIGKILL if it is empty, to the first process of a
// running container. One that doesn't run is an [errdefs.ErrConflict].
func (c *Containers) Kill(ctx context.Context, name, signal string) error {
	if signal == "" {
		signal = "SIGKILL"
	}
	sig, err := ParseSignal(signal)
	if err != nil {
		return err
	}
	r, err := c.find(name)
	if err != nil {
		return err
	}
	if !r.running {
		return because(errdefs.ErrConflict, "cannot kill container: %s: container %s is not running", name, r.config.ID)
	}
	if sig == unix.SIGKILL {
		if err := errors.Join(r.markStopped(), c.awaken(r)); err != nil {
			return err
		}
	}
	if err := r.signal(sig); err != nil {
		return err
	}
	if sig != unix.SIGKILL {
		return nil
	}
	_, err = c.await(ctx, r)
	return err
}

// Restart is Stop and Start.
func (c *Containers) Restart(ctx context.Context, name, signal string, timeout *int) error {
	r, err := c.find(name)
	if err != nil {
		return err
	}
	if err := c.stop(ctx, r, signal, timeout); err != nil {
		return err
	}
	return c.spawn(ctx, r)
}

// Wait waits until the container doesn't run and returns its exit code.
func (c *Containers) Wait(ctx context.Context, name string) (int, error) {
	r, err := c.find(name)
	if err != nil {
		return 0, err
	}
	if !r.running {
		return r.state.ExitCode, nil
	}
	return c.await(ctx, r)
}

// await waits for the owner to let go and returns the exit code, which it has
// written into the locked file: with --rm nothing else is left.
func (c *Containers) await(ctx context.Context, r *record) (int, error) {
	file, err := os.Open(r.path(runningFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("wait for container %s: %w", r.config.Name, err)
	}
	defer file.Close()
	lock, err := sys.LockContext(ctx, r.path(runningFile), sys.Shared)
	switch {
	case err == nil:
		lock.Close()
	case errors.Is(err, errdefs.ErrNotFound): // removed by its owner
	default:
		return 0, fmt.Errorf("wait for container %s: %w", r.config.Name, err)
	}
	text := make([]byte, 8)
	n, _ := file.ReadAt(text, 0)
	code, err := strconv.Atoi(strings.TrimSpace(string(text[:n])))
	if err != nil {
		// The owner was killed before it could say.
		return 137, nil //nolint:nilerr
	}
	return code, nil
}

// markStopped keeps the owner from starting the container again.
func (r *record) markStopped() error {
	file, err := os.OpenFile(r.path(stopFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("stop container %s: %w", r.config.Name, err)
	}
	return file.Close()
}

// signal sends sig to the first process, through a descriptor that can't come
// to mean another one.
func (r *record) signal(sig unix.Signal) error {
	none := because(errdefs.ErrConflict, "container %s is not running", r.config.Name)
	if r.state.Pid == 0 {
		return none
	}
	fd, err := unix.PidfdOpen(r.state.Pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return none
	}
	if err != nil {
		return fmt.Errorf("signal container %s: %w", r.config.Name, err)
	}
	defer unix.Close(fd)
	if !sandbox.Alive(r.state.Pid, r.state.StartTime) {
		return none
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal container %s: %w", r.config.Name, err)
	}
	return nil
}

// RemoveOptions say what Remove may do.
type RemoveOptions struct {
	// Force kills a container that runs.
	Force bool
	// Volumes removes its anonymous volumes, too.
	Volumes bool
}

// Remove removes a container. One that runs is an [errdefs.ErrConflict].
func (c *Containers) Remove(ctx context.Context, name string, o RemoveOptions) error {
	r, err := c.find(name)
	if err != nil {
		return err
	}
	if r.running && !o.Force {
		return because(errdefs.ErrConflict, "cannot remove container %q: container is running: stop the container before removing or force remove", "/"+r.config.Name)
	}
	if r.running {
		if err := errors.Join(r.markStopped(), c.awaken(r)); err != nil {
			return err
		}
		if err := r.signal(unix.SIGKILL); err != nil && !errors.Is(err, errdefs.ErrConflict) {
			return err
		}
		if _, err := c.await(ctx, r); err != nil {
			return err
		}
		if r.config.Life.AutoRemove {
			return nil
		}
	}
	lock, err := r.own()
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	return c.erase(r, o.Volumes)
}

// erase removes all that there is of a container that this process owns.
func (c *Containers) erase(r *record, volumes bool) error {
	var errs []error
	if r.config.Name != "" {
		errs = append(errs, c.disown(r.config.Name, r.config.ID))
	}
	if err := c.Store.RemoveContainer(r.config.ID); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		errs = append(errs, err)
	}
	if volumes {
		for _, m := range r.config.Mounts {
			if m.Type != MountVolume || !m.Anonymous {
				continue
			}
			if err := c.Volumes.Remove(m.Source); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Rename gives a container another name.
func (c *Containers) Rename(ctx context.Context, name, to string) error {
	r, err := c.find(name)
	if err != nil {
		return err
	}
	to = strings.TrimPrefix(to, "/")
	if to == r.config.Name {
		return because(errdefs.ErrInvalidArgument, "renaming a container with the same name as its current name")
	}
	lock, err := sys.Lock(filepath.Join(r.dir, "rename"), sys.Exclusive)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := c.claim(to, r.config.ID); err != nil {
		return err
	}
	old := r.config.Name
	r.config.Name = to
	if err := r.saveConfig(); err != nil {
		return errors.Join(err, c.disown(to, r.config.ID))
	}
	return c.disown(old, r.config.ID)
}
