//go:build linux

package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Datasync makes the content of f durable (fdatasync). After an error nothing
// is known about the content: a second call that succeeds proves nothing.
func Datasync(f *os.File) error {
	err := retry(func() error { return unix.Fdatasync(int(f.Fd())) })
	return pathError("sync", f.Name(), err)
}

// Writeback starts to write n bytes of f from off to disk and doesn't wait, so
// that a later [Datasync] finds little left to do. It is a hint.
func Writeback(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// OpenQuiet opens a file for reading and leaves its time of last access as it
// is (O_NOATIME), where the caller may ask for that.
func OpenQuiet(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		return os.Open(path)
	}
	return f, err
}

// Touch sets the times of last access and last change of the file at path.
// A zero time leaves the one it stands for as it is.
func Touch(path string, access, change time.Time) error {
	times := []unix.Timespec{omitted(access), omitted(change)}
	err := unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW)
	return pathError("set times of", path, err)
}

func omitted(t time.Time) unix.Timespec {
	if t.IsZero() {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return unix.NsecToTimespec(t.UnixNano())
}

// AccessTime returns when the file that info describes was last accessed.
func AccessTime(info fs.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Atim.Unix())
	}
	return time.Time{}
}

// Blocks returns the bytes that the file that info describes takes on disk,
// holes left out.
func Blocks(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// LockedElsewhere reports whether somebody holds a [Lock] on the file that f
// is open on, through another descriptor. It makes nothing and waits for
// nobody.
func LockedElsewhere(f *os.File) (bool, error) {
	err := retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, pathError("test lock of", f.Name(), err)
	}
	return false, pathError("unlock", f.Name(), retry(func() error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) }))
}

// HoldFile returns a descriptor that keeps the file at path in existence and
// can do nothing else (O_PATH). Once the name is gone, closing it is what
// frees the blocks.
func HoldFile(path string) (*os.File, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, pathError("open", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// SpaceTotal returns the size in bytes of the file system that holds path.
func SpaceTotal(path string) (int64, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(path, &st) }); err != nil {
		return 0, fmt.Errorf("stat file system of %s: %w", path, classify(err))
	}
	return int64(st.Blocks) * st.Bsize, nil
}
