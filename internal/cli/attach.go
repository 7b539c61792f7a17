package cli

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/shaleproject/shale/internal/container"
)

// console connects this process's streams to a container's: raw terminal,
// sizes, signals. Close puts the terminal back.
type console struct {
	io      container.IO
	signals chan os.Signal

	restore func() error
	resize  chan os.Signal
	proxied chan os.Signal
}

// attachConsole connects the streams that are wanted. tty makes the terminal
// raw; proxy passes signals on.
func attachConsole(in *os.File, out, errout io.Writer, stdin, tty, proxy bool) (*console, error) {
	c := &console{io: container.IO{Out: out, Err: errout}}
	if stdin {
		c.io.In = in
	}
	if tty {
		if err := c.raw(in, stdin); err != nil {
			return nil, err
		}
	}
	if proxy {
		c.proxy()
	}
	return c, nil
}

// needsTerminal tells that in is no terminal where one is wanted: before
// anything is made or pulled.
func needsTerminal(in *os.File, stdin, tty bool) error {
	if stdin && tty && (in == nil || !term.IsTerminal(int(in.Fd()))) {
		return &ExitError{Code: exitFailure, Err: errNotTerminal}
	}
	return nil
}

// errNotTerminal is Docker's sentence.
var errNotTerminal = errors.New("the input device is not a TTY")

func (c *console) raw(in *os.File, stdin bool) error {
	fd := int(in.Fd())
	if err := needsTerminal(in, stdin, true); err != nil || !term.IsTerminal(fd) {
		return err
	}
	size := make(chan container.Size, 1)
	send := func() {
		w, h, err := term.GetSize(fd)
		if err != nil {
			return
		}
		select {
		case <-size: // one that nobody has taken is old
		default:
		}
		size <- container.Size{Width: uint16(w), Height: uint16(h)}
	}
	send()
	c.io.Resize = size
	c.resize = make(chan os.Signal, 1)
	signal.Notify(c.resize, syscall.SIGWINCH)
	go func() {
		for range c.resize {
			send()
		}
	}()
	if stdin {
		old, err := term.MakeRaw(fd)
		if err != nil {
			return err
		}
		c.restore = func() error { return term.Restore(fd, old) }
	}
	return nil
}

// impatience is how many interrupts a person sends before the container is
// killed, as Docker counts them.
const impatience = 3

// forwarded are the signals that people and programs send to a process and
// that mean nothing to the one in between. Not all 64: each costs two system
// calls.
var forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGALRM, syscall.SIGABRT, syscall.SIGIO, syscall.SIGPWR,
}

// proxy passes on what comes from outside.
func (c *console) proxy() {
	c.proxied = make(chan os.Signal, 32)
	c.signals = make(chan os.Signal, 32)
	signal.Notify(c.proxied, forwarded...)
	go func() {
		defer close(c.signals)
		interrupts := 0
		for s := range c.proxied {
			if s == syscall.SIGINT || s == syscall.SIGTERM {
				if interrupts++; interrupts >= impatience {
					s = syscall.SIGKILL
				}
			}
			c.signals <- s
		}
	}()
}

// Close puts everything back.
func (c *console) Close() error {
	if c.proxied != nil {
		signal.Stop(c.proxied)
		close(c.proxied)
	}
	if c.resize != nil {
		signal.Stop(c.resize)
		close(c.resize)
	}
	if c.restore != nil {
		return c.restore()
	}
	return nil
}
