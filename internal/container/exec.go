package container

import (
	"context"
	"os"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shaleproject/shale/internal/sandbox"
)

// ExecOptions are one more process for a running container.
type ExecOptions struct {
	Args []string
	// Env is added to the container's.
	Env []string
	// Dir and User are the container's own if they are empty.
	Dir, User  string
	Terminal   bool
	Privileged bool

	IO      IO
	Signals <-chan os.Signal
}

// Exec runs a process in a container and waits until it has ended. A
// container that doesn't run is an [errdefs.ErrConflict]; an error that lies
// in the command is a [*sandbox.CommandError].
func (c *Containers) Exec(ctx context.Context, name string, o ExecOptions) (sandbox.Exit, error) {
	s, err := c.exec(ctx, name, &o)
	if err != nil {
		return sandbox.Exit{}, err
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		resize := o.IO.Resize
		for {
			select {
			case <-done:
				return
			case size, open := <-resize:
				if !open {
					resize = nil
					continue
				}
				_ = s.Resize(size.Width, size.Height)
			case sig := <-o.Signals:
				if sig, ok := sig.(unix.Signal); ok {
					_ = s.Signal(sig, false)
				}
			}
		}
	}()
	return s.Wait(ctx)
}

// ExecDetached starts a process and leaves it to itself.
func (c *Containers) ExecDetached(ctx context.Context, name string, o ExecOptions) error {
	o.IO = IO{}
	_, err := c.exec(ctx, name, &o)
	return err
}

func (c *Containers) exec(ctx context.Context, name string, o *ExecOptions) (*sandbox.Sandbox, error) {
	r, err := c.find(name)
	if err != nil {
		return nil, err
	}
	if !r.running || r.state.Pid == 0 {
		return nil, because(errdefs.ErrConflict, "container %s is not running", r.config.ID)
	}
	if r.status() == Paused {
		return nil, because(errdefs.ErrConflict, "container %s is paused, unpause the container before exec", r.config.ID)
	}
	process, err := execProcess(&r.config, o)
	if err != nil {
		return nil, err
	}
	return sandbox.Exec(ctx, r.path(sandboxDir), r.config.ID, sandbox.ExecProcess{
		Process: process, Groups: r.config.Process.Groups,
		Stdin: o.IO.In, Stdout: o.IO.Out, Stderr: o.IO.Err,
	})
}

// execProcess is a process with the container's profile and what o changes.
func execProcess(config *Config, o *ExecOptions) (*specs.Process, error) {
	dir, user := o.Dir, o.User
	if dir == "" {
		dir = config.Process.Dir
	}
	if user == "" {
		user = config.Process.User
	}
	var size Size
	if o.IO.Resize != nil {
		size = <-o.IO.Resize
	}
	env := environment(config)
	if o.Terminal && !config.Process.Terminal {
		env = mergeEnv(env, []string{"TERM=xterm"})
	}
	spec, err := sandbox.NewSpec(sandbox.SpecOptions{
		ID: config.ID, Root: "/",
		Process: sandbox.ProcessOptions{
			Args: o.Args, Env: mergeEnv(env, o.Env), Cwd: dir, User: user, Terminal: o.Terminal,
			Width: uint(size.Width), Height: uint(size.Height), Rlimits: config.Resources.Ulimits,
		},
		Security: sandbox.SecurityOptions{
			CapAdd: config.Security.CapAdd, CapDrop: config.Security.CapDrop,
			Privileged: config.Security.Privileged || o.Privileged, NoNewPrivileges: config.Security.NoNewPrivileges,
			Seccomp: sandbox.Unconfined, // what the container has counts
		},
	})
	if err != nil {
		return nil, err
	}
	return spec.Process, nil
}
