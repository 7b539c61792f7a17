//go:build linux

package sys

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// PrivateMounts runs f on a thread that has a mount namespace of its own: a
// copy of that of the process, from which nothing gets back. Mounts that f
// makes are seen by f and by the processes that f starts, and by nobody else;
// the last of them to end takes the mounts with it, however it ends.
// Goroutines that f starts run in the namespace of the process.
//
// The thread ends with f. A child that f started with Pdeathsig gets its
// signal then: f has to wait for such a child.
//
// It needs CAP_SYS_ADMIN in the user namespace of the caller
// ([errdefs.ErrPermissionDenied]).
func PrivateMounts(f func() error) error {
	return OwnThread(func() error { return inPrivateMounts(f) })
}

// OwnThread runs f on a thread that ends with f: what f changes of it, such as
// its namespaces, nobody else meets. Goroutines that f starts run elsewhere. A
// child that was started from that thread with Pdeathsig gets its signal when f
// ends.
func OwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("run on a thread of its own: function ended its goroutine")
		defer func() { done <- err }() // also after runtime.Goexit, as of t.Fatal
		// Never unlocked: when the goroutine ends, the runtime ends a thread
		// that is still locked, and the namespaces with it.
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			err = f()
			return
		}
		// The runtime can't end the first thread of the process, which would
		// keep them. Hold it, so that the next try gets another.
		defer runtime.UnlockOSThread()
		err = OwnThread(f)
	}()
	return <-done
}

func inPrivateMounts(f func() error) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", classify(err))
	}
	// systemd shares / with every namespace: without this, our mounts show
	// up there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", classify(err))
	}
	return f()
}

// InUserNamespace reports whether the process runs in another user namespace
// than the machine's first: there uid 0 is not root of the machine.
func InUserNamespace() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	// user_namespaces(7): the first namespace maps all 2^32-1 ids onto themselves.
	return strings.Join(strings.Fields(string(data)), " ") != "0 0 4294967295"
}
