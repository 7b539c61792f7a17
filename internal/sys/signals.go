//go:build linux

package sys

import (
	"context"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that a user or a supervisor sends on purpose.
var forwarded = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM,
	unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH,
}

// signalForwarder passes the signals of this process on to another.
type signalForwarder struct {
	caught chan os.Signal
}

// catchSignals begins before the other process starts, so that none is lost.
func catchSignals() signalForwarder {
	f := signalForwarder{caught: make(chan os.Signal, 16)}
	signal.Notify(f.caught, forwarded...)
	return f
}

func (f signalForwarder) release() { signal.Stop(f.caught) }

// forward passes signals on to p until stop is called. The end of ctx becomes a
// SIGTERM, unless it is the work of a signal that p has got already.
func (f signalForwarder) forward(ctx context.Context, p *os.Process) (stop func()) {
	done, finished := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(finished)
		ended := ctx.Done()
		told := false
		var grace <-chan time.Time
		for {
			select {
			case s := <-f.caught:
				told = told || s != unix.SIGWINCH
				if !sentByTerminal(s) {
					_ = p.Signal(s) // it may have ended
				}
			case <-ended:
				ended = nil
				// A handler of the same signal may be what ended ctx.
				grace = time.After(100 * time.Millisecond)
			case <-grace:
				if !told {
					_ = p.Signal(unix.SIGTERM)
				}
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-finished }
}

// sentByTerminal reports whether s is one that a terminal sends to its whole
// foreground group, child included, and we are in that group.
func sentByTerminal(s os.Signal) bool {
	if s != unix.SIGINT && s != unix.SIGQUIT && s != unix.SIGWINCH {
		return false
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
