package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/sandbox"
	"github.com/shaleproject/shale/internal/sys"
)

// Run starts a container in this process, with its streams connected to io,
// and waits until it has ended. Signals are passed on to it.
//
// An error that lies in the command is a [*sandbox.CommandError].
func (c *Containers) Run(ctx context.Context, name string, io IO, signals <-chan os.Signal) (sandbox.Exit, error) {
	r, err := c.find(name)
	if err != nil {
		return sandbox.Exit{}, err
	}
	return c.run(ctx, r, io, signals)
}

func (c *Containers) run(ctx context.Context, r *record, io IO, signals <-chan os.Signal) (sandbox.Exit, error) {
	lock, err := r.own()
	if err != nil {
		return sandbox.Exit{}, err
	}
	return c.runOwned(ctx, r, lock, io, signals)
}

func (c *Containers) runOwned(ctx context.Context, r *record, lock *sys.FileLock, io IO, signals <-chan os.Signal) (sandbox.Exit, error) {
	o := &owner{c: c, r: r, lock: lock, io: io, signals: signals}
	if io.Resize != nil {
		o.size = <-io.Resize
	}
	return o.run(ctx)
}

// Container is one that has just been made, for the process that made it.
type Container struct {
	c    *Containers
	r    *record
	lock *sys.FileLock
}

// Prepare is Create for a caller that goes on with Run or Discard. It owns the
// container from the beginning: if the caller is killed before it calls
// either, a container that was to remove itself is removed.
func (c *Containers) Prepare(ctx context.Context, o CreateOptions) (*Container, error) {
	sandbox.Hasten()
	n := &Container{c: c}
	_, err := c.create(ctx, o, func(r *record) (err error) {
		n.r = r
		if n.lock, err = r.own(); err != nil {
			return err
		}
		r.state.Owner = os.Getpid()
		return r.saveState()
	})
	if err != nil {
		if n.lock != nil {
			n.lock.Close()
		}
		return nil, err
	}
	return n, nil
}

// ID is the container's.
func (n *Container) ID() string { return n.r.config.ID }

// Run is [Containers.Run].
func (n *Container) Run(ctx context.Context, io IO, signals <-chan os.Signal) (sandbox.Exit, error) {
	return n.c.runOwned(ctx, n.r, n.lock, io, signals)
}

// Discard removes the container again.
func (n *Container) Discard() error {
	defer n.lock.Close()
	return n.c.erase(n.r, true)
}

// Start starts a container in the background, under a monitor, and returns
// when it runs. A container that runs already stays as it is.
func (c *Containers) Start(ctx context.Context, name string) error {
	r, err := c.find(name)
	if err != nil {
		return err
	}
	if r.running {
		return nil
	}
	return c.spawn(ctx, r)
}

// verdict is what a monitor tells the process that started it.
type verdict struct {
	Error   string `json:",omitempty"`
	Command string `json:",omitempty"`
	Code    int    `json:",omitempty"`
}

// spawn starts a monitor and waits for its verdict.
func (c *Containers) spawn(ctx context.Context, r *record) error {
	cmd, err := c.Monitor(r.config.ID)
	if err != nil {
		return fmt.Errorf("start monitor: %w", err)
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start monitor: %w", err)
	}
	defer ours.Close()
	cmd.ExtraFiles = []*os.File{theirs}
	detach(cmd)
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start monitor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		_ = cmd.Process.Kill()
	})
	defer stop()
	var v verdict
	err = json.NewDecoder(ours).Decode(&v)
	if cause := context.Cause(ctx); cause != nil {
		_ = cmd.Wait()
		return cause
	}
	if errors.Is(err, io.EOF) {
		err = cmd.Wait()
		return because(errdefs.ErrInternal, "start container %s: the monitor ended: %v", r.config.Name, err)
	}
	if err != nil {
		return fmt.Errorf("start container %s: %w", r.config.Name, err)
	}
	if v.Error != "" {
		// It goes at once, and with --rm it removes the container first.
		_ = cmd.Wait()
		return v.err()
	}
	return cmd.Process.Release()
}

func (v verdict) err() error {
	if v.Command != "" {
		return sandbox.NewCommandError(v.Command, v.Code, v.Error)
	}
	return errors.New(v.Error)
}

// RunMonitor owns the container id until it has ended. It is the whole life
// of a monitor; status, the pipe to the process that wants the container
// started, is closed when it runs or doesn't.
func (c *Containers) RunMonitor(ctx context.Context, id string, status *os.File) error {
	tell := func(err error) {
		var v verdict
		if err != nil {
			v.Error = err.Error()
			var command *sandbox.CommandError
			if errors.As(err, &command) {
				v.Command, v.Code, v.Error = command.Command, command.Code, command.Cause()
			}
		}
		// Nobody there to read: the container runs all the same.
		_ = json.NewEncoder(status).Encode(v)
		_ = status.Close()
	}
	sandbox.Hasten()
	r, err := c.load(id)
	if err != nil {
		tell(err)
		return err
	}
	lock, err := r.own()
	if err != nil {
		tell(err)
		return err
	}
	o := &owner{c: c, r: r, lock: lock, started: tell}
	var stdin *io.PipeWriter
	if r.config.Process.Stdin {
		// Open, and nobody types before somebody attaches.
		o.io.In, stdin = io.Pipe()
	}
	hub, err := r.openHub(stdin)
	if err != nil {
		tell(err)
		return errors.Join(err, lock.Close())
	}
	defer hub.Close()
	o.io.Out, o.io.Err, o.io.Resize = hub.stream(frameStdout), hub.stream(frameStderr), hub.resize
	_, err = o.run(ctx)
	return err
}
