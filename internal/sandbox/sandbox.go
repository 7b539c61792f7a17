// Package sandbox runs one process in namespaces of its own.
//
// It takes an OCI runtime specification, the mounts that make its root file
// system, and the three streams; it gives back a running process and, later,
// how that ended. What always holds:
//
//   - the mounts exist only in the process's own mount namespace, so that
//     nothing has to be unmounted, whoever dies first;
//   - the process dies with the one that started it;
//   - it sees the descriptors 0, 1 and 2, and no other.
//
// The runtime is libcontainer, linked in, or any OCI runtime binary. What an
// image says comes in as data of the specification; no label or annotation is
// read here. docs/adr/0003-sandbox.md has the reasons.
package sandbox

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shaleproject/shale/internal/sys"
)

// Config says what to run, and where.
type Config struct {
	// ID names the sandbox: letters, digits and "_+-.". It becomes part of
	// the path of its control group.
	ID string

	// Dir is an existing directory for the state that Exec and Load need; it
	// holds a directory called ID from Start to Delete.
	Dir string

	// Spec is the whole specification; NewSpec makes one. Root.Path is the
	// directory where Mounts leave the root file system.
	//
	// If Process.User.Username isn't empty, it is what an image's USER or a
	// --user flag says ("1000", "www-data:www-data"): Start looks it up in the
	// files of the root file system and sets UID, GID and AdditionalGids,
	// adding whatever AdditionalGids had, and HOME if Env has none.
	Spec *specs.Spec

	// Groups are more groups for the process, names or numbers, as --group-add
	// gives them. They are looked up only if Username is.
	Groups []string

	// Mounts are made, in order, in a private mount namespace before the start.
	Mounts []sys.Mount

	// Stdin, Stdout and Stderr are the process's streams, through pipes. A
	// nil Stdin reads as empty, a nil Stdout or Stderr drops what it is given.
	// If Spec.Process.Terminal is set, Stdin and Stdout are connected to a
	// pseudo-terminal and Stderr is unused.
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	// Runtime is the path of an OCI runtime binary such as runc or crun.
	// Empty means libcontainer, linked in.
	Runtime string

	// SystemdCgroup asks systemd for the control group instead of making it.
	SystemdCgroup bool

	// Attach runs when the namespaces exist and before the process starts,
	// with the process's number on the host: /proc/PID/ns/net is the network
	// to set up. If it fails, so does Start.
	Attach func(pid int) error
}

// Exit is how a process ended.
type Exit struct {
	// Code is what a shell would say: the exit status, or 128 and the number
	// of the signal.
	Code int

	// Signal is what ended the process, 0 if it left by itself.
	Signal unix.Signal

	// OOM tells that the kernel killed something in the sandbox because its
	// memory limit was reached.
	OOM bool

	// At is when Wait saw it.
	At time.Time
}

// State is what Load finds out about a sandbox from outside.
type State struct {
	// Pid is the first process, as the host numbers it; 0 if it is gone.
	Pid int

	// StartTime is when Pid started, in the kernel's clock ticks after boot
	// (proc_pid_stat(5), field 22). Both together never name another process.
	StartTime uint64

	// Running tells that Pid exists and isn't a zombie.
	Running bool

	// Paused tells that the freezer holds it.
	Paused bool

	// CgroupPaths has the directories of the control group: by controller on
	// version 1, under "" on version 2.
	CgroupPaths map[string]string
}

// process is what a Sandbox needs from libcontainer or a runtime binary.
type process interface {
	pid() int
	startTime() uint64
	// wait returns when the process has ended. It is called once.
	wait() (unix.WaitStatus, error)
	signal(sig unix.Signal, all bool) error
	// oomKilled reads a counter of the kernel; it is called before destroy.
	oomKilled() bool
	// destroy removes control groups and state; the process has ended.
	destroy() error
}

// Sandbox is a process that Start or Exec has started.
type Sandbox struct {
	process process
	stdio   *stdio
	hold    *hold
	done    chan struct{}
	exit    Exit
	err     error
}

// Start runs the process that c describes and returns when it runs. An error
// that lies in the command itself is a [*CommandError].
//
// The caller calls Wait and then Delete, also after a failed Wait.
func Start(ctx context.Context, c Config) (*Sandbox, error) {
	if c.Runtime != "" {
		return startExternal(ctx, c)
	}
	return startLinked(ctx, c)
}

// Pid is the process's number on the host.
func (s *Sandbox) Pid() int { return s.process.pid() }

// StartTime is when that process started, as in State.
func (s *Sandbox) StartTime() uint64 { return s.process.startTime() }

// Wait returns how the process ended, after everything that it wrote has
// arrived. If ctx ends first, the process goes on running.
func (s *Sandbox) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-s.done:
		return s.exit, s.err
	case <-ctx.Done():
		return Exit{}, context.Cause(ctx)
	}
}

// Signal sends sig to the process or, with all, to every process in the
// sandbox.
func (s *Sandbox) Signal(sig unix.Signal, all bool) error {
	return s.process.signal(sig, all)
}

// Resize tells the process's terminal its size in characters. Without a
// terminal it does nothing.
func (s *Sandbox) Resize(width, height uint16) error { return s.stdio.resize(width, height) }

// Delete removes what is left: control groups and state files. It kills
// whatever still runs.
func (s *Sandbox) Delete() error {
	select {
	case <-s.done:
	default:
		if err := s.process.signal(unix.SIGKILL, true); err != nil {
			// Waiting for what is not about to end helps nobody.
			if err := s.process.signal(unix.SIGKILL, false); err != nil {
				return fmt.Errorf("kill what runs: %w", err)
			}
		}
		<-s.done
	}
	return s.process.destroy()
}

// watch waits for the process in the background and lets its thread go.
func (s *Sandbox) watch() {
	status, err := s.process.wait()
	s.stdio.finish()
	s.exit = exitOf(status)
	s.exit.OOM = s.process.oomKilled()
	s.err = err
	s.hold.release()
	close(s.done)
}

func exitOf(status unix.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{Code: 128 + int(status.Signal()), Signal: status.Signal(), At: time.Now()}
	}
	return Exit{Code: status.ExitStatus(), At: time.Now()}
}
