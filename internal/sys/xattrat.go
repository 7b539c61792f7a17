package sys

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// XattrAt returns one extended attribute of name in the directory dir, nil if
// there is none. A symbolic link is not followed.
func XattrAt(dir *os.File, name, attr string) ([]byte, error) {
	fd := int(dir.Fd())
	value, err := sized(func(buf []byte) (int, error) { return getxattrat(fd, name, attr, buf) })
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // an old kernel, or a seccomp profile
		value, err = xattrByPath(fd, name, attr)
	}
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.EOPNOTSUPP):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read extended attribute %s of %s/%s: %w", attr, dir.Name(), name, classify(err))
	}
	return value, nil
}

// xattrByPath is XattrAt for every kernel. The way through /proc takes several
// times as long, which shows where each file of a context is asked.
func xattrByPath(dir int, name, attr string) ([]byte, error) {
	path := "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
	return sized(func(buf []byte) (int, error) { return unix.Lgetxattr(path, attr, buf) })
}

// xattrArgs is struct xattr_args of the kernel, whose first field has 64 bits
// everywhere.
type xattrArgs struct {
	value *byte
	_     [8 - unsafe.Sizeof(uintptr(0))]byte
	size  uint32
	flags uint32
}

// getxattrat is the system call of Linux 6.13, which x/sys has no function for.
func getxattrat(dir int, name, attr string, buf []byte) (int, error) {
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	key, err := unix.BytePtrFromString(attr)
	if err != nil {
		return 0, err
	}
	args := xattrArgs{value: unsafe.SliceData(buf), size: uint32(len(buf))}
	n, _, errno := unix.Syscall6(unix.SYS_GETXATTRAT, uintptr(dir), uintptr(unsafe.Pointer(path)), unix.AT_SYMLINK_NOFOLLOW,
		uintptr(unsafe.Pointer(key)), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
