package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// stdio is the three streams of a process, or its terminal.
//
// The process never gets a descriptor of the caller's: a pipe can't be
// reopened for writing where it was read-only, is nobody's log file, and no
// terminal that input could be pushed into (TIOCSTI).
type stdio struct {
	// child are the ends that the process gets, nil with a terminal.
	child [3]*os.File
	// ours are the other ends; of a terminal, only [0] and it's the master.
	ours [3]*os.File

	stdin    io.Reader
	out      [2]io.Writer
	readers  sync.WaitGroup
	terminal bool

	// socket is where the runtime sends a terminal's master.
	socket, socketChild *os.File
}

// newStdio makes the pipes, or the socket for a terminal.
func newStdio(c streams) (_ *stdio, err error) {
	s := &stdio{stdin: c.in, out: [2]io.Writer{c.out, c.err}, terminal: c.terminal}
	defer func() {
		if err != nil {
			s.closeAll()
		}
	}()
	if c.terminal {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("make console socket: %w", err)
		}
		s.socket = os.NewFile(uintptr(fds[0]), "console")
		s.socketChild = os.NewFile(uintptr(fds[1]), "console")
		return s, nil
	}
	if c.in == nil {
		if s.child[0], err = os.Open(os.DevNull); err != nil {
			return nil, err
		}
	} else if s.child[0], s.ours[0], err = os.Pipe(); err != nil {
		return nil, err
	}
	for i := 1; i <= 2; i++ {
		if i == 2 && same(c.out, c.err) {
			// One writer gets one pipe, which keeps what is written in order
			// and the writer from being used by two at once.
			s.child[2], err = dup(s.child[1])
		} else if s.out[i-1] == nil {
			s.child[i], err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		} else {
			s.ours[i], s.child[i], err = os.Pipe()
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// same tells whether two writers are one. Those of a type that can't be
// compared are not.
func same(a, b io.Writer) (equal bool) {
	defer func() { _ = recover() }()
	return a != nil && a == b
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// streams are what a caller wants connected.
type streams struct {
	in       io.Reader
	out, err io.Writer
	terminal bool
}

// receive takes a terminal's master from the runtime.
func (s *stdio) receive() error {
	if !s.terminal {
		return nil
	}
	oob := make([]byte, unix.CmsgSpace(4))
	name := make([]byte, 4096)
	_, n, _, _, err := unix.Recvmsg(int(s.socket.Fd()), name, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	if len(messages) != 1 {
		return errors.New("receive terminal: the runtime sent none")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return errors.New("receive terminal: the runtime sent no descriptor")
	}
	// Non-blocking, so that a reader in Go's poller can be woken by Close.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return fmt.Errorf("receive terminal: %w", err)
	}
	s.ours[0] = os.NewFile(uintptr(fds[0]), "terminal")
	return nil
}

// start begins to copy. The child's ends must have been inherited by now.
func (s *stdio) start() {
	s.closeChild()
	if s.stdin != nil && s.ours[0] != nil {
		go func(w *os.File) {
			// An end of the input, or a process that reads no more: neither is
			// an error of ours.
			_, _ = io.Copy(w, s.stdin)
			if !s.terminal {
				_ = w.Close()
			}
		}(s.ours[0])
	}
	if s.terminal {
		s.copyOut(s.out[0], s.ours[0])
		return
	}
	for i := 1; i <= 2; i++ {
		if s.ours[i] != nil {
			s.copyOut(s.out[i-1], s.ours[i])
		}
	}
}

func (s *stdio) copyOut(w io.Writer, r *os.File) {
	if w == nil {
		w = io.Discard
	}
	s.readers.Add(1)
	go func() {
		defer s.readers.Done()
		// A terminal ends with EIO. A writer that fails must not stop the
		// process, which would get SIGPIPE or block for good.
		if _, err := io.Copy(w, r); err != nil {
			_, _ = io.Copy(io.Discard, r)
		}
	}()
}

// finish waits until everything that the process wrote has been copied, and
// closes what is left.
func (s *stdio) finish() {
	s.readers.Wait()
	s.closeAll()
}

func (s *stdio) resize(width, height uint16) error {
	if !s.terminal || s.ours[0] == nil {
		return nil
	}
	return unix.IoctlSetWinsize(int(s.ours[0].Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height})
}

func (s *stdio) closeChild() {
	for i, f := range s.child {
		if f != nil {
			_ = f.Close()
			s.child[i] = nil
		}
	}
	if s.socketChild != nil {
		_ = s.socketChild.Close()
		s.socketChild = nil
	}
}

func (s *stdio) closeAll() {
	s.closeChild()
	for _, f := range append(s.ours[:], s.socket) {
		if f != nil {
			_ = f.Close()
		}
	}
}
