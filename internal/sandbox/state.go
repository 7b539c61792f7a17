package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/system"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Load reads the state of the sandbox called id from dir. What dir doesn't
// hold is an [errdefs.ErrNotFound].
func Load(dir, id string) (State, error) {
	if e, err := loadExternal(dir, id); e != nil || err != nil {
		if err != nil {
			return State{}, err
		}
		return State{Pid: e.number, StartTime: e.started, Running: Alive(e.number, e.started)}, nil
	}
	container, err := load(dir, id)
	if err != nil {
		return State{}, err
	}
	s, err := container.State()
	if err != nil {
		return State{}, fmt.Errorf("read sandbox %s: %w", id, err)
	}
	state := State{Pid: s.InitProcessPid, StartTime: s.InitProcessStartTime, CgroupPaths: s.CgroupPaths}
	state.Running = Alive(state.Pid, state.StartTime)
	return state, nil
}

func load(dir, id string) (*libcontainer.Container, error) {
	container, err := libcontainer.Load(dir, id)
	if errors.Is(err, libcontainer.ErrNotExist) {
		return nil, because(errdefs.ErrNotFound, "load sandbox %s", id)
	}
	if err != nil {
		return nil, fmt.Errorf("load sandbox %s: %w", id, err)
	}
	return container, nil
}

// Alive tells whether process pid, that started at the given tick, still runs.
func Alive(pid int, startTime uint64) bool {
	if pid <= 0 {
		return false
	}
	stat, err := system.Stat(pid)
	return err == nil && stat.StartTime == startTime && stat.State != system.Zombie && stat.State != system.Dead
}

// Clean kills and removes what a sandbox has left whose owner died. What
// isn't there is no error. cgroupParent is what SpecOptions had.
func Clean(dir, id, cgroupParent string) error {
	if e, err := loadExternal(dir, id); e != nil || err != nil {
		if err != nil {
			return err
		}
		return e.destroy()
	}
	container, err := load(dir, id)
	if errors.Is(err, errdefs.ErrNotFound) {
		// The owner died before the state was written.
		if err := removeCgroups(cgroupPath(cgroupParent, id)); err != nil {
			return fmt.Errorf("remove sandbox %s: %w", id, err)
		}
		return os.RemoveAll(filepath.Join(dir, id))
	}
	if err != nil {
		return err
	}
	state, err := container.State()
	if err != nil {
		return fmt.Errorf("read sandbox %s: %w", id, err)
	}
	if err := container.Signal(unix.SIGKILL); err != nil && !errors.Is(err, libcontainer.ErrNotRunning) {
		return fmt.Errorf("kill sandbox %s: %w", id, err)
	}
	if err := awaitEnd(state.InitProcessPid, state.InitProcessStartTime); err != nil {
		return fmt.Errorf("kill sandbox %s: %w", id, err)
	}
	if err := container.Destroy(); err != nil {
		return fmt.Errorf("remove sandbox %s: %w", id, err)
	}
	return nil
}

// cgroupPath is the control group of a sandbox, from the root of each
// hierarchy.
func cgroupPath(parent, id string) string { return path.Join("/", parent, "shale-"+id) }

// removeCgroups removes a control group, and kills what is in it: the first
// process of a sandbox, if it ever got there, is waiting for an owner that is
// dead.
func removeCgroups(path string) error {
	openCgroups()
	m, err := manager.New(&cgroups.Cgroup{Path: path, Resources: &cgroups.Resources{}})
	if err != nil {
		return nil //nolint:nilerr // no control groups here
	}
	// An error says that the group isn't there. Others of its name may be: on
	// version 1 there is one for each controller.
	pids, _ := m.GetAllPids()
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	return m.Destroy()
}

// killTimeout is how long a killed process may take to go, in milliseconds: it
// may have much memory to give back.
const killTimeout = 10_000

// awaitEnd waits for a killed process that isn't a child of this one.
func awaitEnd(pid int, startTime uint64) error {
	if pid <= 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !Alive(pid, startTime) {
		return nil
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, killTimeout)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return because(errdefs.ErrUnavailable, "process %d does not end", pid)
		}
		return nil
	}
}

// ExecProcess is one more process for a running sandbox.
type ExecProcess struct {
	// Process is as in Config.Spec; without Capabilities it gets the
	// sandbox's.
	Process *specs.Process
	Groups  []string

	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Exec starts p in the sandbox called id that Start has made in dir. Without
// a running process there it is an [errdefs.ErrFailedPrecondition].
func Exec(ctx context.Context, dir, id string, p ExecProcess) (*Sandbox, error) {
	e, err := loadExternal(dir, id)
	if err != nil {
		return nil, err
	}
	if e != nil {
		return execExternal(ctx, e, p)
	}
	return execLinked(ctx, dir, id, p)
}

func execExternal(ctx context.Context, e *external, p ExecProcess) (_ *Sandbox, err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("execute in sandbox %s: become the parent of what a runtime leaves: %w", e.id, err)
	}
	s := &Sandbox{done: make(chan struct{}), hold: &hold{end: make(chan struct{})}}
	s.stdio, err = newStdio(streams{p.Stdin, p.Stdout, p.Stderr, p.Process.Terminal})
	if err != nil {
		return nil, fmt.Errorf("execute in sandbox %s: %w", e.id, err)
	}
	made, err := e.exec(ctx, p, s.stdio)
	if err != nil {
		s.stdio.closeAll()
		return nil, startError(p.Process.Args, err)
	}
	s.process = made
	s.stdio.start()
	go s.watch()
	return s, nil
}

func execLinked(ctx context.Context, dir, id string, p ExecProcess) (_ *Sandbox, err error) {
	container, err := load(dir, id)
	if err != nil {
		return nil, err
	}
	state, err := container.State()
	if err != nil {
		return nil, fmt.Errorf("read sandbox %s: %w", id, err)
	}
	if !Alive(state.InitProcessPid, state.InitProcessStartTime) {
		return nil, because(errdefs.ErrFailedPrecondition, "execute in sandbox %s: not running", id)
	}
	if err := setUser(&specs.Spec{Process: p.Process}, p.Groups, fmt.Sprintf("/proc/%d/root", state.InitProcessPid)); err != nil {
		return nil, err
	}
	s := &Sandbox{done: make(chan struct{})}
	s.stdio, err = newStdio(streams{p.Stdin, p.Stdout, p.Stderr, p.Process.Terminal})
	if err != nil {
		return nil, fmt.Errorf("execute in sandbox %s: %w", id, err)
	}
	l := &linked{container: container, process: processOf(p.Process, s.stdio)}
	s.hold, err = onHold(nil, func() error {
		if err := container.Start(l.process); err != nil {
			return err
		}
		if err := s.stdio.receive(); err != nil {
			return err
		}
		l.number, err = l.process.Pid()
		return err // its start time is nobody's business
	})
	if err != nil {
		s.stdio.closeAll()
		return nil, startError(p.Process.Args, err)
	}
	s.stdio.start()
	s.process = l
	go s.watch()
	return s, nil
}
