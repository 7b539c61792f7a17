// Command shale builds, stores, ships and runs container images.
//
// This file is the only one that looks at the process: its environment, its
// signals, and the names under which shale starts itself again.
package main

import (
	// Before anything else: a container's first process ends here.
	_ "github.com/shaleproject/shale/internal/sandbox/reexec"

	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/shaleproject/shale/internal/cli"
	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/sys"
)

func main() {
	// The process's first thread does nothing. /proc/self shows the namespaces
	// of that one, and it can't be ended: a library that changes the namespaces
	// of whatever thread it runs on, as libcontainer does for a container's
	// mounts, would leave the process as a whole inside the container.
	runtime.LockOSThread()
	code := make(chan int)
	go func() { code <- run() }()
	os.Exit(<-code)
}

func run() int {
	collectLate(os.Getenv)
	user := engine.User{UID: os.Geteuid()}
	if gate := os.Getenv(sys.UserNamespaceEnv); gate != "" {
		if err := sys.EnterUserNamespace(gate); err != nil {
			fmt.Fprintln(os.Stderr, "shale:", err)
			return 125
		}
		user.Namespaced = true
		os.Setenv(sys.UserNamespaceEnv, sys.UserNamespaceEntered)
	}
	if os.Args[0] == engine.MonitorName {
		// Nobody is there to be told: the verdict has gone through a pipe.
		if engine.RunMonitor(context.Background(), user, os.Args[1:]) != nil {
			return 1
		}
		return 0
	}
	// Libraries print nothing; what matters comes back as an error.
	logrus.SetOutput(io.Discard)
	log.SetOutput(io.Discard)

	ctx, stop := untilSignal(syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	e := engine.New(engine.FromEnvironment(os.Getenv, user))
	defer e.Close()
	return cli.Run(ctx, e, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Args[1:])
}

// Whoever interrupts a command that does not end, because a file or a server
// keeps it waiting, need not look for its process: like docker, shale ends at
// once at the third signal. A container that gets them has died of the third by
// then, and its command has a moment to say so. Nothing is lost: the store
// stands a SIGKILL.
const (
	patience = 3
	moment   = 2 * time.Second
)

// untilSignal returns a context that the first of signals ends, as
// [cli.Interrupted].
func untilSignal(signals ...os.Signal) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	got, done := make(chan os.Signal, patience), make(chan struct{})
	signal.Notify(got, signals...)
	go func() {
		for n := 1; ; n++ {
			select {
			case s := <-got:
				by := s.(syscall.Signal)
				cancel(cli.Interrupted{Signal: by})
				if n == patience {
					time.AfterFunc(moment, func() { os.Exit(128 + int(by)) })
				}
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(got)
		close(done)
		cancel(nil)
	}
}
