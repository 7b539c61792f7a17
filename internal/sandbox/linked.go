package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // device rules, which it registers
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // the part of an init that precedes Go
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runc/libcontainer/system"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// linked is a process of libcontainer.
type linked struct {
	container *libcontainer.Container
	process   *libcontainer.Process
	number    int
	started   uint64
	// memory are the files in which the kernel counts what it has killed.
	memory []string
	// owner tells that the process is the container's first.
	owner bool
}

func startLinked(ctx context.Context, c Config) (_ *Sandbox, err error) {
	s := &Sandbox{done: make(chan struct{})}
	s.stdio, err = newStdio(streams{c.Stdin, c.Stdout, c.Stderr, c.Spec.Process.Terminal})
	if err != nil {
		return nil, fmt.Errorf("start sandbox: %w", err)
	}
	openCgroups()
	// Out here the directory has no file system on it and is only a place:
	// libcontainer goes there before it joins a sandbox (Exec).
	if err := os.MkdirAll(c.Spec.Root.Path, 0o700); err != nil {
		s.stdio.closeAll()
		return nil, fmt.Errorf("start sandbox: %w", err)
	}
	var l *linked
	s.hold, err = onHold(c.Mounts, func() error {
		l, err = createLinked(ctx, c, s.stdio)
		return err
	})
	if err != nil {
		s.stdio.closeAll()
		return nil, startError(c.Spec.Process.Args, err)
	}
	s.process = l
	go s.watch()
	return s, nil
}

// createLinked runs on the thread that holds the mounts.
func createLinked(ctx context.Context, c Config, io *stdio) (_ *linked, err error) {
	if err := setUser(c.Spec, c.Groups, c.Spec.Root.Path); err != nil {
		return nil, err
	}
	config, err := configOf(c)
	if err != nil {
		return nil, err
	}
	container, err := libcontainer.Create(c.Dir, c.ID, config)
	if err != nil {
		return nil, err
	}
	process := processOf(c.Spec.Process, io)
	process.Init = true
	l := &linked{container: container, process: process, owner: true}
	defer func() {
		if err != nil {
			l.abort()
		}
	}()
	if err := container.Start(process); err != nil {
		return nil, err
	}
	if l.number, err = process.Pid(); err != nil {
		return nil, err
	}
	if l.started, err = startTime(l.number); err != nil {
		return nil, err
	}
	if l.memory, err = oomCounters(container); err != nil {
		return nil, err
	}
	if err := io.receive(); err != nil {
		return nil, err
	}
	if c.Attach != nil {
		if err := c.Attach(l.number); err != nil {
			return nil, err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	io.start()
	return l, container.Exec()
}

// configOf translates the specification.
func configOf(c Config) (*configs.Config, error) {
	rootless := LimitsError() != nil
	spec := c.Spec
	if rootless {
		spec = rootlessSpec(spec)
	}
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:       c.ID,
		UseSystemdCgroup: c.SystemdCgroup,
		NoNewKeyring:     true,
		Spec:             spec,
		RootlessEUID:     os.Geteuid() != 0,
		RootlessCgroups:  rootless,
	})
	if err != nil {
		return nil, err
	}
	// The bundle's path, the only label, is of no use to anyone.
	config.Labels = nil
	return config, nil
}

// processOf translates the process and gives it its streams.
func processOf(p *specs.Process, io *stdio) *libcontainer.Process {
	process := &libcontainer.Process{
		Args:            p.Args,
		Env:             p.Env,
		UID:             int(p.User.UID),
		GID:             int(p.User.GID),
		Cwd:             p.Cwd,
		NoNewPrivileges: &p.NoNewPrivileges,
		AppArmorProfile: p.ApparmorProfile,
	}
	for _, g := range p.User.AdditionalGids {
		process.AdditionalGroups = append(process.AdditionalGroups, int(g))
	}
	if p.Capabilities != nil {
		process.Capabilities = &configs.Capabilities{
			Bounding: p.Capabilities.Bounding, Effective: p.Capabilities.Effective,
			Permitted: p.Capabilities.Permitted, Inheritable: p.Capabilities.Inheritable,
			Ambient: p.Capabilities.Ambient,
		}
	}
	for _, l := range p.Rlimits {
		process.Rlimits = append(process.Rlimits, configs.Rlimit{Type: rlimits[l.Type], Soft: l.Soft, Hard: l.Hard})
	}
	if p.ConsoleSize != nil {
		process.ConsoleWidth = uint16(p.ConsoleSize.Width)
		process.ConsoleHeight = uint16(p.ConsoleSize.Height)
	}
	if p.Terminal {
		process.ConsoleSocket = io.socketChild
		return process
	}
	// Files and not readers: os/exec hands them over as they are.
	process.Stdin, process.Stdout, process.Stderr = io.child[0], io.child[1], io.child[2]
	return process
}

func (l *linked) pid() int { return l.number }

func (l *linked) wait() (unix.WaitStatus, error) {
	state, err := l.process.Wait()
	if state == nil {
		return 0, fmt.Errorf("wait for process %d: %w", l.number, err)
	}
	// An error beside a state only says that the status isn't 0.
	return unix.WaitStatus(state.Sys().(syscall.WaitStatus)), nil
}

func (l *linked) signal(sig unix.Signal, all bool) error {
	if all && l.owner {
		pids, err := processesOf(l.container)
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("signal process %d: %w", pid, err)
			}
		}
		return nil
	}
	if err := l.process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process %d: %w", l.number, err)
	}
	return nil
}

func (l *linked) startTime() uint64 { return l.started }

func (l *linked) oomKilled() bool {
	for _, file := range l.memory {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if count, found := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); found && count != "0" {
				return true
			}
		}
	}
	return false
}

func (l *linked) destroy() error {
	if !l.owner {
		return nil
	}
	return l.container.Destroy()
}

// abort ends what a failed start has left.
func (l *linked) abort() {
	if l.number != 0 {
		_ = l.process.Signal(unix.SIGKILL)
		_, _ = l.process.Wait()
	}
	_ = l.container.Destroy()
}

// startError puts what was attempted before err, unless err is about the
// command, where the class says it.
func startError(args []string, err error) error {
	message := err.Error()
	if found := commandError(args[0], message); found != nil {
		return found
	}
	// libcontainer's frames say the same thing three times.
	for _, frame := range []string{"unable to start container process: ", "error during container init: "} {
		message = strings.TrimPrefix(message, frame)
	}
	if message != err.Error() {
		return fmt.Errorf("start sandbox: %s", message)
	}
	return fmt.Errorf("start sandbox: %w", err)
}

// oomCounters returns the files with the count of what a memory limit has
// killed: there is none without a limit.
func oomCounters(container *libcontainer.Container) ([]string, error) {
	config := container.Config()
	if config.Cgroups.Memory == 0 {
		return nil, nil
	}
	state, err := container.State()
	if err != nil {
		return nil, err
	}
	var files []string
	if dir := state.CgroupPaths["memory"]; dir != "" {
		files = append(files, filepath.Join(dir, "memory.oom_control"))
	}
	if dir := state.CgroupPaths[""]; dir != "" {
		files = append(files, filepath.Join(dir, "memory.events"))
	}
	return files, nil
}

// startTime reads when a process started, in clock ticks after boot.
func startTime(pid int) (uint64, error) {
	stat, err := system.Stat(pid)
	if err != nil {
		return 0, fmt.Errorf("read process %d: %w", pid, err)
	}
	return stat.StartTime, nil
}

// openCgroups lets the cgroups library open the root of the control groups,
// which it does once for the whole process, in the mount namespace of the
// process and not in one that goes away with a sandbox.
func openCgroups() {
	if f, err := cgroups.OpenFile("/sys/fs/cgroup", "cgroup.procs", unix.O_RDONLY); err == nil {
		f.Close()
	}
}

// cgroupsWritable tells whether control groups can be made here: not in a
// container that has /sys/fs/cgroup read-only, for one.
func cgroupsWritable() bool {
	const root = "/sys/fs/cgroup"
	for _, dir := range []string{root + "/devices", root} {
		err := unix.Access(dir, unix.W_OK)
		if err == nil {
			return true
		}
		if !errors.Is(err, unix.ENOENT) {
			return false
		}
	}
	return false
}
