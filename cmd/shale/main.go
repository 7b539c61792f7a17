// Command shale builds, stores, ships and runs container images.
//
// This file is the only one that looks at the process: its environment, its
// signals, and the names under which shale starts itself again.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/shaleproject/shale/internal/cli"
	"github.com/shaleproject/shale/internal/engine"
)

func main() {
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	e := engine.New(engine.FromEnvironment(os.Getenv, engine.User{UID: os.Geteuid()}))
	defer e.Close()
	return cli.Run(ctx, e, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Args[1:])
}
