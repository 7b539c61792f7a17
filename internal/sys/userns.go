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
)

// gateFD is the descriptor at which a child waits for its id maps.
const gateFD = 3

// ReexecInUserNamespace runs this program again as root of a new user
// namespace with a mount namespace of its own, and returns its exit code (128+n if
// signal n ended it). args are those of the new process, its name first.
//
// Root there is the calling user here; the ids above are those that
// /etc/subuid and /etc/subgid lend to the user, or none. The child finds
// [UserNamespaceEnv] in its environment and calls [EnterUserNamespace] first
// of all. It gets the signals that the caller gets, SIGTERM when ctx ends, and
// SIGKILL when the caller dies; processes that the child leaves behind live on.
//
// Where the machine forbids user namespaces the error is an
// [errdefs.ErrPermissionDenied] that names what forbids them; where it can't
// make them or map the ids, an [errdefs.ErrFailedPrecondition].
func ReexecInUserNamespace(ctx context.Context, args []string) (exit int, err error) {
	const attempt = "start in a user namespace: %w"
	if why := userNamespacesForbidden(); why != nil {
		return -1, fmt.Errorf(attempt, why)
	}
	uids, gids, err := planIDMaps()
	if err != nil {
		return -1, fmt.Errorf(attempt, err)
	}
	// Pdeathsig follows the thread, not the process: it must not end before
	// the child does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := catchSignals()
	defer signals.release()
	cmd, err := startNamespaced(args, uids, gids)
	if err != nil {
		return -1, fmt.Errorf(attempt, err)
	}
	stop := signals.forward(ctx, cmd.Process)
	defer stop()
	return exitCode(cmd.Wait())
}

// startNamespaced starts the child and lets it go on once its ids are mapped.
func startNamespaced(args []string, uids, gids idMap) (*exec.Cmd, error) {
	read, gate, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer gate.Close()
	defer read.Close()
	cmd := &exec.Cmd{
		// The name that started us may by now lead to another program.
		Path: "/proc/self/exe", Args: args,
		Env:   append(os.Environ(), UserNamespaceEnv+"="+strconv.Itoa(gateFD)),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		ExtraFiles: []*os.File{read},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			Pdeathsig:  syscall.SIGKILL,
		},
	}
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
	if value == UserNamespaceEntered {
		return nil
	}
	fd, err := strconv.Atoi(value)
	if err != nil {
		return fmt.Errorf("enter user namespace: %s=%q: %w", UserNamespaceEnv, value, errdefs.ErrInvalidArgument)
	}
	gate := os.NewFile(uintptr(fd), "gate")
	defer gate.Close()
	if _, err := io.ReadFull(gate, make([]byte, 1)); err != nil {
		return fmt.Errorf("enter user namespace: the parent gave up: %w", err)
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

// explainUserNamespace says what an errno of clone(2) means.
func explainUserNamespace(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC):
		return fault{fmt.Errorf("too many or too deep user namespaces (user.max_user_namespaces): %w", err), errdefs.ErrPermissionDenied}
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return fault{fmt.Errorf("this kernel has no user namespaces: %w", err), errdefs.ErrFailedPrecondition}
	case errors.Is(err, unix.EPERM):
		return fault{fmt.Errorf("user namespaces are forbidden, perhaps by the container or seccomp filter around: %w", err), errdefs.ErrPermissionDenied}
	}
	return classify(err)
}

// userNamespacesForbidden returns an error if a setting of the machine keeps
// the caller from user namespaces, or from doing anything in them.
func userNamespacesForbidden() error {
	setting := func(name string) string {
		data, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
		if err != nil {
			return "" // most kernels lack most of these
		}
		return strings.TrimSpace(string(data))
	}
	refuse := func(text string) error {
		return fmt.Errorf("%s: %w", text, errdefs.ErrPermissionDenied)
	}
	if setting("user.max_user_namespaces") == "0" {
		return refuse("user namespaces are switched off (sysctl user.max_user_namespaces=0)")
	}
	if os.Geteuid() == 0 {
		return nil
	}
	if setting("kernel.unprivileged_userns_clone") == "0" { // Debian's kernels
		return refuse("user namespaces are for root only (sysctl kernel.unprivileged_userns_clone=0)")
	}
	if setting("kernel.apparmor_restrict_unprivileged_userns") == "1" { // Ubuntu's, from 23.10
		profile, err := os.ReadFile("/proc/self/attr/apparmor/current")
		if err == nil && strings.TrimSpace(string(profile)) == "unconfined" {
			return refuse("AppArmor keeps programs without a profile from user namespaces: give shale one in /etc/apparmor.d that says \"userns,\", or set sysctl kernel.apparmor_restrict_unprivileged_userns=0")
		}
	}
	return nil
}
