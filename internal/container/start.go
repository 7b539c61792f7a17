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
	o := &owner{c: c, r: r, lock: lock, io: io, signals: signals}
	if io.Resize != nil {
		o.size = <-io.Resize
	}
	return o.run(ctx)
}

// Container is one that has just been made, for the process that made it.
type Container struct {
	c *Containers
	r *record
}

// Prepare is Create for a caller that goes on with Run.
func (c *Containers) Prepare(ctx context.Context, o CreateOptions) (*Container, error) {
	sandbox.Hasten()
	r, err := c.create(ctx, o)
	if err != nil {
		return nil, err
	}
	return &Container{c, r}, nil
}

// ID is the container's.
func (n *Container) ID() string { return n.r.config.ID }

// Run is [Containers.Run].
func (n *Container) Run(ctx context.Context, io IO, signals <-chan os.Signal) (sandbox.Exit, error) {
	return n.c.run(ctx, n.r, io, signals)
}

// Discard removes the container again.
func (n *Container) Discard(ctx context.Context) error {
	return n.c.Remove(ctx, n.r.config.ID, RemoveOptions{Volumes: true})
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
	if r.config.Process.Stdin {
		// Open, and nobody types.
		in, never := io.Pipe()
		defer never.Close()
		o.io.In = in
	}
	_, err = o.run(ctx)
	return err
}
