// Package reexec is where a sandbox's first process begins, before it becomes
// the command that it was made for.
//
// libcontainer starts this very binary again ("init") to set up the namespaces
// from inside. Whoever links the sandbox imports this package for its side
// effect, at the top of main. Under the name docker-init the binary is process 1
// of a container that asked for an init (init.c).
package reexec

import (
	"os"
	"runtime/debug"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // its first half, in C, before Go starts
	"golang.org/x/sys/unix"
)

// init is the one in shale, and must be: Go initialises packages in the order
// of their import paths as soon as what they import is ready, so that this
// runs, and never returns, before the heavy half of the binary (BuildKit, gRPC,
// tracing) has cost its milliseconds in every container's start.
func init() {
	if len(os.Args) != 2 || os.Args[1] != "init" || os.Getenv("_LIBCONTAINER_INITPIPE") == "" {
		return
	}
	if os.Getenv("_LIBCONTAINER_INITTYPE") == "standard" {
		// The process dies with the thread that started it. libcontainer's
		// own ParentDeathSignal gets no further than the first of the
		// processes that it forks on the way here. An error would be a
		// kernel's that knows no signals.
		_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	}
	// It lives for milliseconds and reads some 100 kB: collecting garbage
	// would take longer than all of its own work.
	debug.SetGCPercent(-1)
	libcontainer.Init()
}
