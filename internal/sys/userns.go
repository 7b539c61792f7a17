//go:build linux

package sys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

const (
	// UserNamespaceEnv is the environment variable that tells a child of
	// [ReexecInUserNamespace] what it is. Its value is for [EnterUserNamespace].
	UserNamespaceEnv = "SHALE_USERNS"

	// UserNamespaceEntered is the value that a process sets after it has entered,
	// so that the programs which it starts know where they are.
	UserNamespaceEntered = "entered"

	// The child of a new namespace waits at descriptor 3 for its ids. That of an
	// old one has come through two descriptors, 3 and 4, that it must not keep.
	gateMarker, joinMarker = "gate", "join"
)

// ReexecInUserNamespace runs this program again as root of a user namespace, and
// returns its exit code (128+n if signal n ended it). args are those of the new
// process, its name first.
//
// Root there is the calling user here; the ids above are those that
// /etc/subuid and /etc/subgid lend to the user, or none. The child finds
// [UserNamespaceEnv] in its environment and calls [EnterUserNamespace] first
// of all. It gets the signals that the caller gets, SIGTERM when ctx ends, and
// SIGKILL when the caller dies; processes that the child leaves behind live on.
//
// The file record keeps the namespace's name. As long as any process is left
// in that namespace, further calls with the same record join it: only there can
// they enter, signal and clean up what the others have left running. An
// empty record makes a namespace of its own.
//
// Where the machine forbids user namespaces the error is an
// [errdefs.ErrPermissionDenied] that names what forbids them; where it can't
// make them or map the ids, an [errdefs.ErrFailedPrecondition].
func ReexecInUserNamespace(ctx context.Context, args []string, record string) (exit int, err error) {
	// Pdeathsig follows the thread, not the process: it must not end before
	// the child does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := catchSignals()
	defer signals.release()
	cmd, err := joinOrStart(args, record)
	if err != nil {
		return -1, fmt.Errorf("start in a user namespace: %w", err)
	}
	stop := signals.forward(ctx, cmd.Process)
	defer stop()
	return exitCode(cmd.Wait())
}

// joinOrStart starts the child in the namespace that record names, or in a new
// one that record names from then on.
func joinOrStart(args []string, record string) (*exec.Cmd, error) {
	if record == "" {
		return startNamespaced(args)
	}
	names, err := openRecord(record)
	if err != nil {
		return nil, err
	}
	defer names.Close()
	if ns := names.namespace(); ns != nil {
		defer ns.Close()
		cmd, err := startJoined(args, ns)
		if !errors.Is(err, exec.ErrNotFound) {
			return cmd, err
		}
		// Without nsenter(1) there is a new namespace each time.
	}
	cmd, err := startNamespaced(args)
	if err != nil {
		return nil, err
	}
	return cmd, names.set(cmd.Process.Pid)
}

// startJoined starts the child in the user namespace ns, and returns when it is
// there. Joining takes a process with one thread, which no Go program is:
// setns(2).
func startJoined(args []string, ns *os.File) (*exec.Cmd, error) {
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return nil, err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer self.Close()
	cmd := child(nsenter, joinMarker, self, ns)
	cmd.Args = append([]string{"nsenter", "--user=/proc/self/fd/4", "--preserve-credentials", "--", "/proc/self/fd/3"}, args[1:]...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// Until it has joined, the last other process there may end, and nobody
	// would find the namespace again.
	for !sameNamespace(ns, cmd.Process.Pid) && !ended(cmd.Process.Pid) {
		time.Sleep(100 * time.Microsecond)
	}
	return cmd, nil
}

// sameNamespace reports whether process pid is in the user namespace ns.
func sameNamespace(ns *os.File, pid int) bool {
	held, err := ns.Stat()
	if err != nil {
		return false
	}
	its, err := os.Stat(fmt.Sprintf("/proc/%d/ns/user", pid))
	return err == nil && os.SameFile(held, its)
}

// ended reports whether the child pid waits for being waited for.
func ended(pid int) bool {
	var info unix.Siginfo
	err := retry(func() error {
		return unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	})
	return err != nil || info.Signo != 0
}

// child returns the command that is common to all ways in.
func child(path, marker string, extra ...*os.File) *exec.Cmd {
	return &exec.Cmd{
		Path:  path,
		Env:   append(os.Environ(), UserNamespaceEnv+"="+marker),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		ExtraFiles:  extra,
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
}

// startNamespaced starts the child in a new namespace and lets it go on once
// its ids are mapped.
func startNamespaced(args []string) (*exec.Cmd, error) {
	if err := userNamespacesForbidden(); err != nil {
		return nil, err
	}
	uids, gids, err := planIDMaps()
	if err != nil {
		return nil, err
	}
	read, gate, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	defer read.Close()
	// The name that started us may by now lead to another program.
	cmd := child("/proc/self/exe", gateMarker, read)
	cmd.Args = args
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS
	mapped := uids.helper != "" && gids.helper != ""
	if !mapped {
		// One id may be mapped by whoever owns it, if groups can't be dropped:
		// user_namespaces(7), "Defining user and group ID mappings".
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	} else if cmd.SysProcAttr.AmbientCaps, err = everyCapability(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, explainUserNamespace(err)
	}
	if mapped {
		if err := errors.Join(runMapper(uids, cmd.Process.Pid), runMapper(gids, cmd.Process.Pid)); err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // killed, as it should be
			return nil, err
		}
	}
	if _, err := gate.Write([]byte{1}); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	return cmd, nil
}

// everyCapability lists the capabilities that this kernel knows. The child of
// a namespace whose ids are mapped from outside is nobody at exec(2), which
// would take its capabilities away; ambient ones stay.
func everyCapability() ([]uintptr, error) {
	data, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return nil, err
	}
	last, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, err
	}
	caps := make([]uintptr, last+1)
	for i := range caps {
		caps[i] = uintptr(i)
	}
	return caps, nil
}

// runMapper lets the setuid helper write an id map.
func runMapper(m idMap, pid int) error {
	cmd := exec.Command(m.helper, m.args(pid)...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		err = fmt.Errorf("%s: %s: %w", strings.Join(cmd.Args, " "), strings.TrimSpace(said.String()), err)
		return fault{err, errdefs.ErrFailedPrecondition}
	}
	return nil
}

// EnterUserNamespace is the first thing that a child of
// [ReexecInUserNamespace] does, before it starts or opens anything: it waits
// for its ids. value is that of [UserNamespaceEnv].
func EnterUserNamespace(value string) error {
	switch value {
	case UserNamespaceEntered:
		return nil
	case gateMarker:
		gate := os.NewFile(3, "gate")
		defer gate.Close()
		if _, err := io.ReadFull(gate, make([]byte, 1)); err != nil {
			return fmt.Errorf("enter user namespace: the parent gave up: %w", err)
		}
	case joinMarker:
		if err := errors.Join(unix.Close(3), unix.Close(4)); err != nil {
			return fmt.Errorf("enter user namespace: %w", err)
		}
	default:
		return fmt.Errorf("enter user namespace: %s=%q: %w", UserNamespaceEnv, value, errdefs.ErrInvalidArgument)
	}
	if os.Geteuid() != 0 {
		return errors.New("enter user namespace: root is not mapped")
	}
	return nil
}

// planIDMaps returns what the child's ids are to be.
func planIDMaps() (uids, gids idMap, err error) {
	uid, gid := os.Geteuid(), os.Getegid()
	name := ""
	if u, err := user.LookupUid(uid); err == nil {
		name = u.Name
	}
	if uids, err = planIDMap("/etc/subuid", "newuidmap", name, uid, uid); err != nil {
		return uids, gids, err
	}
	gids, err = planIDMap("/etc/subgid", "newgidmap", name, uid, gid)
	return uids, gids, err
}

// exitCode translates what Wait returned.
func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return -1, fmt.Errorf("wait for the process in the user namespace: %w", err)
		}
		return 0, nil
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}
