//go:build linux

package sys

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// RenameNoReplace renames like rename(2) and replaces nothing: if newpath
// exists, the error is an [errdefs.ErrAlreadyExists].
func RenameNoReplace(oldpath, newpath string) error {
	err := retry(func() error {
		return unix.Renameat2(unix.AT_FDCWD, oldpath, unix.AT_FDCWD, newpath, unix.RENAME_NOREPLACE)
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = linkNoReplace(oldpath, newpath)
	}
	if err != nil {
		return fmt.Errorf("rename %s to %s: %w", oldpath, newpath, classify(err))
	}
	return nil
}

// linkNoReplace serves file systems that know no RENAME_NOREPLACE (NFS, some
// FUSE ones). A directory can't be linked: there rename(2) itself refuses to
// replace one that is not empty.
func linkNoReplace(oldpath, newpath string) error {
	var st unix.Stat_t
	if err := unix.Lstat(oldpath, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.Rename(oldpath, newpath)
	}
	if err := unix.Link(oldpath, newpath); err != nil {
		return err
	}
	return unix.Unlink(oldpath)
}

// SyncDir makes the entries of the directory at path durable (fsync).
func SyncDir(path string) error {
	return onDir("sync directory", path, unix.Fsync)
}

// SyncFS makes everything on the file system that holds path durable
// (syncfs), and reports write errors that nobody has seen yet.
func SyncFS(path string) error {
	return onDir("sync file system of", path, unix.Syncfs)
}

func onDir(verb, path string, f func(fd int) error) error {
	dir, err := os.Open(path)
	if err != nil {
		return pathError(verb, path, errnoOf(err))
	}
	err = retry(func() error { return f(int(dir.Fd())) })
	dir.Close()
	return pathError(verb, path, err)
}

// errnoOf strips the frame that package os puts around an errno, where ours
// says the same.
func errnoOf(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// Reflink makes dst share the blocks of src (ioctl FICLONE). A file system
// that can't is an [errdefs.ErrNotImplemented]; the caller copies then.
func Reflink(dst, src *os.File) error {
	err := retry(func() error { return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) })
	if err == nil {
		return nil
	}
	// FICLONE(2const): EXDEV, EINVAL and ENOTTY too mean "not between these two".
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
		err = unix.EOPNOTSUPP
	}
	return fmt.Errorf("clone %s to %s: %w", src.Name(), dst.Name(), classify(err))
}

// OpenInRoot opens path as a process would that has root as its root
// directory: absolute names, symbolic links and ".." stay below root, and links
// of /proc are not followed (openat2, Linux 5.6).
// Flags are those of open(2); a file that O_CREAT makes has mode 0600.
func OpenInRoot[R *os.File | string](root R, path string, flags int) (*os.File, error) {
	var dir *os.File
	switch r := any(root).(type) {
	case *os.File:
		dir = r
	case string:
		fd, err := unix.Open(r, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, pathError("open root", r, err)
		}
		dir = os.NewFile(uintptr(fd), r)
		defer dir.Close()
	}
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&unix.O_CREAT != 0 {
		how.Mode = 0o600
	}
	var fd int
	var err error
	// openat2(2): EAGAIN says that a rename or mount somewhere on the machine
	// made a ".." unsure; the bound keeps a busy attacker from holding us.
	for range 1000 {
		fd, err = unix.Openat2(int(dir.Fd()), path, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s in %s: %w", path, dir.Name(), classify(err))
	}
	return os.NewFile(uintptr(fd), path), nil
}
