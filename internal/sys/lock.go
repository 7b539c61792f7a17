//go:build linux

package sys

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// LockKind is how a file is locked.
type LockKind int

const (
	// Shared locks exclude Exclusive ones only.
	Shared LockKind = iota
	// Exclusive locks exclude every other lock.
	Exclusive
)

// FileLock is a flock(2) on an open file. It dies with the process; a child
// does not inherit it.
type FileLock struct {
	file *os.File
	path string
}

// Lock locks the file or directory at path and waits for as long as another
// holder takes. A missing file is made, mode 0600, but not its directory.
//
// Whoever holds the lock may remove the file: the next caller notices and
// locks the file that has taken its place.
func Lock(path string, how LockKind) (*FileLock, error) {
	return lock(path, flockOp(how))
}

// TryLock is [Lock] that does not wait. A file that somebody else has locked
// is an [errdefs.ErrUnavailable].
func TryLock(path string, how LockKind) (*FileLock, error) {
	return lock(path, flockOp(how)|unix.LOCK_NB)
}

// LockContext is [Lock] that gives up when ctx ends. The lock that may still
// come to a waiter that gave up is released at once.
func LockContext(ctx context.Context, path string, how LockKind) (*FileLock, error) {
	l, err := TryLock(path, how)
	if !errdefs.IsUnavailable(err) {
		return l, err
	}
	type result struct {
		lock *FileLock
		err  error
	}
	got := make(chan result, 1)
	go func() {
		l, err := Lock(path, how)
		got <- result{l, err}
	}()
	select {
	case r := <-got:
		return r.lock, r.err
	case <-ctx.Done():
		go func() {
			if r := <-got; r.err == nil {
				r.lock.Close()
			}
		}()
		return nil, fmt.Errorf("lock %s: %w", path, context.Cause(ctx))
	}
}

func flockOp(how LockKind) int {
	if how == Exclusive {
		return unix.LOCK_EX
	}
	return unix.LOCK_SH
}

func lock(path string, op int) (*FileLock, error) {
	for {
		f, err := openLock(path)
		if err != nil {
			return nil, pathError("lock", path, err)
		}
		err = retry(func() error { return unix.Flock(int(f.Fd()), op) })
		if errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: held by another process: %w", path, errdefs.ErrUnavailable)
		}
		if err != nil {
			f.Close()
			return nil, pathError("lock", path, err)
		}
		same, err := stillAt(f, path)
		if err != nil {
			f.Close()
			return nil, pathError("lock", path, err)
		}
		if same {
			return &FileLock{file: f, path: path}, nil
		}
		f.Close()
	}
}

func openLock(path string) (*os.File, error) {
	var fd int
	open := func(flags int) error {
		return retry(func() (err error) {
			fd, err = unix.Open(path, flags|unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0o600)
			return err
		})
	}
	err := open(unix.O_CREAT)
	if errors.Is(err, unix.EISDIR) {
		err = open(unix.O_DIRECTORY)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// stillAt reports whether path still names the file that is open as f: the
// holder that we waited for may have removed or replaced it.
func stillAt(f *os.File, path string) (bool, error) {
	var held, named unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &held); err != nil {
		return false, err
	}
	err := unix.Stat(path, &named)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return held.Dev == named.Dev && held.Ino == named.Ino, nil
}

// File returns the locked file, open for reading. It belongs to l.
func (l *FileLock) File() *os.File { return l.file }

// Remove removes the locked file and releases the lock. Only the holder of an
// Exclusive lock may do so.
func (l *FileLock) Remove() error {
	err := os.Remove(l.path)
	return errors.Join(err, l.Close())
}

// Close releases the lock. The file stays.
func (l *FileLock) Close() error {
	// A child that another goroutine has just forked holds the descriptor
	// until it execs; closing ours alone would leave the lock with it.
	err := retry(func() error { return unix.Flock(int(l.file.Fd()), unix.LOCK_UN) })
	if cerr := l.file.Close(); err == nil {
		err = cerr
	}
	return pathError("unlock", l.path, err)
}
