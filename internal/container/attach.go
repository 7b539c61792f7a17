package container

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// attachFile is the socket of the owner, to which others attach.
const attachFile = "attach"

// A frame on the socket is its kind, the length of what follows as four bytes
// (big endian), and that. docs/format/container.md.
const (
	frameStdin  = iota // to the container
	frameEOF           // no more of it
	frameResize        // width and height, two bytes each
	frameStdout        // from the container
	frameStderr
)

// maxFrame is the longest frame that is taken, in bytes.
const maxFrame = 1 << 20

func writeFrame(w io.Writer, kind byte, data []byte) error {
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(data)))
	_, err := w.Write(append(head, data...))
	return err
}

func readFrame(r io.Reader) (kind byte, data []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, because(errdefs.ErrInvalidArgument, "a frame of %d bytes", n)
	}
	data = make([]byte, n)
	_, err = io.ReadFull(r, data)
	return head[0], data, err
}

// hub connects a container in the background with those who attach to it.
type hub struct {
	listener *net.UnixListener
	// stdin takes what they type; nil if the container has none.
	stdin  *io.PipeWriter
	resize chan Size

	mu      sync.Mutex
	clients map[net.Conn]chan []byte
}

// backlog is how many pieces of output may wait for somebody who reads too
// slowly before he is cut off: the container must not wait for him.
const backlog = 1024

// openHub listens on the socket in the container's directory.
func (r *record) openHub(stdin *io.PipeWriter) (*hub, error) {
	if err := os.Remove(r.path(attachFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	h := &hub{stdin: stdin, resize: make(chan Size, 1), clients: map[net.Conn]chan []byte{}}
	err := r.atSocket(func(path string) (err error) {
		h.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen for who attaches: %w", err)
	}
	// The directory goes with the container; the path is only ours.
	h.listener.SetUnlinkOnClose(false)
	go h.accept()
	return h, nil
}

// atSocket calls f with a path of the socket that is short enough for an
// address: 107 bytes (unix(7)), which the store's own path may exceed.
func (r *record) atSocket(f func(path string) error) error {
	dir, err := os.Open(r.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), attachFile))
}

func (h *hub) accept() {
	for {
		conn, err := h.listener.Accept()
		if err != nil {
			return // closed
		}
		out := make(chan []byte, backlog)
		h.mu.Lock()
		h.clients[conn] = out
		h.mu.Unlock()
		go func() {
			for frame := range out {
				if _, err := conn.Write(frame); err != nil {
					break
				}
			}
			conn.Close()
		}()
		go h.serve(conn)
	}
}

// serve takes what one of them sends, until he leaves.
func (h *hub) serve(conn net.Conn) {
	defer h.drop(conn)
	in := bufio.NewReader(conn)
	for {
		kind, data, err := readFrame(in)
		if err != nil {
			return
		}
		switch {
		case kind == frameStdin && h.stdin != nil:
			if _, err := h.stdin.Write(data); err != nil {
				return
			}
		case kind == frameEOF && h.stdin != nil:
			_ = h.stdin.Close()
		case kind == frameResize && len(data) == 4:
			select {
			case <-h.resize:
			default:
			}
			h.resize <- Size{binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])}
		}
	}
}

func (h *hub) drop(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if out, found := h.clients[conn]; found {
		delete(h.clients, conn)
		close(out)
	}
}

// stream returns a writer that sends to everybody.
func (h *hub) stream(kind byte) io.Writer { return hubStream{h, kind} }

type hubStream struct {
	h    *hub
	kind byte
}

func (s hubStream) Write(p []byte) (int, error) {
	frame := append(binary.BigEndian.AppendUint32([]byte{s.kind}, uint32(len(p))), p...)
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	for conn, out := range s.h.clients {
		select {
		case out <- frame:
		default:
			delete(s.h.clients, conn)
			close(out)
		}
	}
	return len(p), nil
}

// Close lets everybody go, after they have got what was written.
func (h *hub) Close() error {
	err := h.listener.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	for conn, out := range h.clients {
		delete(h.clients, conn)
		close(out)
	}
	return err
}

// ErrDetached is what Attach returns if the person left with the keys for it
// and the container goes on.
var ErrDetached = errors.New("detached")

// Attach connects io with a container in the background until that has ended,
// and returns its exit code. Signals are passed on. A container that doesn't
// run is an [errdefs.ErrConflict].
func (c *Containers) Attach(ctx context.Context, name string, streams IO, signals <-chan os.Signal) (int, error) {
	r, err := c.find(name)
	if err != nil {
		return 0, err
	}
	if !r.running {
		return 0, because(errdefs.ErrConflict, "cannot attach to a stopped container, start it first")
	}
	var conn net.Conn
	err = r.atSocket(func(path string) (err error) {
		conn, err = net.Dial("unix", path)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("attach to %s: %w: %w", r.config.Name, err, errdefs.ErrUnavailable)
	}
	defer conn.Close()
	left := make(chan error, 1)
	go func() { left <- sendInput(conn, streams) }()
	ended := make(chan error, 1)
	go func() { ended <- receiveOutput(conn, streams) }()
	for {
		select {
		case err := <-left:
			if errors.Is(err, ErrDetached) {
				return 0, err
			}
			left = nil
		case sig := <-signals:
			if sig, ok := sig.(unix.Signal); ok {
				_ = r.signal(sig)
			}
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-ended:
			return c.await(ctx, r)
		}
	}
}

// sendInput sends what a person types, and the sizes of his terminal.
func sendInput(conn net.Conn, streams IO) error {
	var mu sync.Mutex
	send := func(kind byte, data []byte) error {
		mu.Lock()
		defer mu.Unlock()
		return writeFrame(conn, kind, data)
	}
	if streams.Resize != nil {
		go func() {
			for s := range streams.Resize {
				data := binary.BigEndian.AppendUint16(nil, s.Width)
				if send(frameResize, binary.BigEndian.AppendUint16(data, s.Height)) != nil {
					return
				}
			}
		}()
	}
	if streams.In == nil {
		return nil
	}
	buffer := make([]byte, 32<<10)
	for {
		n, err := streams.In.Read(buffer)
		if n > 0 {
			if err := send(frameStdin, buffer[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return send(frameEOF, nil)
		}
		if err != nil {
			return err
		}
	}
}

func receiveOutput(conn net.Conn, streams IO) error {
	in := bufio.NewReader(conn)
	for {
		kind, data, err := readFrame(in)
		if err != nil {
			return err
		}
		w := streams.Out
		if kind == frameStderr {
			w = streams.Err
		}
		if w == nil {
			continue
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
}
