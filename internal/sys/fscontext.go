//go:build linux

package sys

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// maxValue is the length in bytes from which on fsconfig(2) refuses a string.
const maxValue = 256

// fsContext is a file system that is being configured: fsopen(2). The first
// error sticks; mount reports it.
type fsContext struct {
	kind   string
	fd     int
	opened []int // descriptors that options refer to through /proc
	err    error
	terse  bool // errors don't quote the kernel's log
}

func openFS(kind string) (*fsContext, error) {
	fd, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("file system type %s is not in this kernel: %w", kind, err)
	}
	if err != nil {
		return nil, fmt.Errorf("fsopen: %w", err)
	}
	return &fsContext{kind: kind, fd: fd}, nil
}

func (c *fsContext) Close() {
	unix.Close(c.fd)
	for _, fd := range c.opened {
		unix.Close(fd)
	}
}

func (c *fsContext) set(key, value string) {
	if c.err != nil {
		return
	}
	if len(value) >= maxValue && strings.HasPrefix(value, "/") {
		if value, c.err = c.shorten(value); c.err != nil {
			return
		}
	}
	if err := unix.FsconfigSetString(c.fd, key, value); err != nil {
		c.err = c.explain(fmt.Sprintf("option %s=%s", key, value), err)
	}
}

// shorten opens path and returns a short name for it, good for as long as c is open.
func (c *fsContext) shorten(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	c.opened = append(c.opened, fd)
	return "/proc/self/fd/" + strconv.Itoa(fd), nil
}

func (c *fsContext) flag(key string) {
	if c.err != nil {
		return
	}
	if err := unix.FsconfigSetFlag(c.fd, key); err != nil {
		c.err = c.explain("option "+key, err)
	}
}

// setAll sets the options of a [Mount.Data].
func (c *fsContext) setAll(data string) {
	for _, option := range splitData(data) {
		if key, value, ok := strings.Cut(option, "="); ok {
			c.set(key, value)
		} else {
			c.flag(option)
		}
	}
}

// mount makes the file system and returns a detached mount of it.
func (c *fsContext) mount(a unix.MountAttr) (int, error) {
	if c.err != nil {
		return -1, c.err
	}
	if err := unix.FsconfigCreate(c.fd); err != nil {
		return -1, c.explain("", err)
	}
	fd, err := unix.Fsmount(c.fd, unix.FSMOUNT_CLOEXEC, int(a.Attr_set))
	if err != nil {
		return -1, c.explain("fsmount", err)
	}
	if a.Propagation != 0 {
		p := unix.MountAttr{Propagation: a.Propagation}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &p); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("set propagation: %w", err)
		}
	}
	return fd, nil
}

// explain adds what the file system wrote into the log of its context, or else
// into the kernel's, to an errno that says little.
func (c *fsContext) explain(what string, err error) error {
	var said []string
	buf := make([]byte, 4096)
	for {
		n, rerr := unix.Read(c.fd, buf)
		if rerr != nil || n == 0 {
			break // fsopen(2): one message a read, ENODATA after the last
		}
		// "e overlay: text": level, prefix, message.
		line := strings.TrimSpace(string(buf[:n]))
		if len(line) > 2 && line[1] == ' ' {
			line = line[2:]
		}
		said = append(said, strings.TrimPrefix(line, c.kind+": "))
	}
	if errors.Is(err, unix.EINVAL) {
		if len(said) == 0 && !c.terse {
			if line := kernelComplaint(c.kind); line != "" {
				said = append(said, line)
			}
		}
		err = fault{err, errdefs.ErrInvalidArgument}
	}
	if len(said) > 0 {
		err = fmt.Errorf("%s: %w", strings.Join(said, "; "), err)
	}
	if what != "" {
		err = fmt.Errorf("%s: %w", what, err)
	}
	return err
}

// splitData splits the options of a [Mount.Data] at its commas.
func splitData(data string) []string {
	var options []string
	var option strings.Builder
	flush := func() {
		if option.Len() > 0 {
			options = append(options, option.String())
			option.Reset()
		}
	}
	for i := 0; i < len(data); i++ {
		switch {
		case data[i] == '\\' && i+1 < len(data):
			i++
			option.WriteByte(data[i])
		case data[i] == ',':
			flush()
		default:
			option.WriteByte(data[i])
		}
	}
	flush()
	return options
}
