//go:build linux

package sys

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// FileStat is what lstat(2) says of a file. Times are nanoseconds since 1970.
type FileStat struct {
	Name         string
	Dev, Ino     uint64
	Rdev         uint64
	Mode         uint32 // with the S_IFMT bits
	Nlink        uint32
	Size         int64
	Mtime, Ctime int64
}

func fileStat(name string, st *unix.Stat_t) FileStat {
	return FileStat{
		Name: name, Dev: uint64(st.Dev), Ino: st.Ino, Rdev: uint64(st.Rdev), Mode: st.Mode,
		Nlink: uint32(st.Nlink), Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(),
	}
}

// Fstat describes an open file.
func Fstat(f *os.File) (FileStat, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(int(f.Fd()), &st) }); err != nil {
		return FileStat{}, pathError("stat", f.Name(), err)
	}
	return fileStat(f.Name(), &st), nil
}

// OpenBeneath opens path below dir and follows no symbolic link, not even on the
// way: whoever changes the directories meanwhile gets an error and no file
// outside (openat2 with RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS; where the kernel or
// a seccomp profile refuses openat2, one openat for each name). The flag
// O_NONBLOCK makes sure that a FIFO does not block.
func OpenBeneath(dir *os.File, path string, flags int) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat2(int(dir.Fd()), path, &how)
		return err
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		fd, err = openByName(int(dir.Fd()), path, flags)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func openByName(dir int, path string, flags int) (int, error) {
	at := dir
	defer func() {
		if at != dir {
			unix.Close(at)
		}
	}()
	for {
		name, rest, more := strings.Cut(path, "/")
		if name == ".." || name == "" {
			return -1, unix.EXDEV
		}
		mode := flags
		if more {
			mode = unix.O_PATH | unix.O_DIRECTORY
		}
		fd, err := unix.Openat(at, name, mode|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil || !more {
			return fd, err
		}
		if at != dir {
			unix.Close(at)
		}
		at, path = fd, rest
	}
}

// ReadDirNames reads the names in a directory, in the order of the file system.
func ReadDirNames(dir *os.File) ([]string, error) {
	fd := int(dir.Fd())
	buf := make([]byte, 32<<10)
	var names []string
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "readdir", Path: dir.Name(), Err: err}
		}
		if n <= 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// StatAt describes the entry name of a directory without following or opening
// it.
func StatAt(dir *os.File, name string) (FileStat, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return FileStat{}, &os.PathError{Op: "lstat", Path: dir.Name() + "/" + name, Err: err}
	}
	return fileStat(name, &st), nil
}

// ReadLinkAt reads the symbolic link name of the directory dir.
func ReadLinkAt(dir *os.File, name string) (string, error) {
	for size := 256; ; size *= 2 {
		buf := make([]byte, size)
		n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return "", &os.PathError{Op: "readlink", Path: dir.Name() + "/" + name, Err: err}
		case n < size: // readlink(2) cuts what does not fit
			return string(buf[:n]), nil
		}
	}
}
