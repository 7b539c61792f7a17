//go:build linux

package sys

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// Xattrs returns every extended attribute of the file at path, which is not
// followed if it is a symbolic link. A file system without extended attributes
// has none; those that the caller may not see are left out by the kernel.
func Xattrs(path string) (map[string][]byte, error) {
	names, err := sized(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && len(names) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, pathError("list extended attributes of", path, err)
	}
	attrs := make(map[string][]byte)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		value, err := sized(func(buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) })
		if errors.Is(err, unix.ENODATA) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, pathError("read extended attribute "+name+" of", path, err)
		}
		attrs[name] = value
	}
	return attrs, nil
}

// SetXattr sets one extended attribute of the file at path, which is not
// followed if it is a symbolic link.
func SetXattr(path, name string, value []byte) error {
	err := retry(func() error { return unix.Lsetxattr(path, name, value, 0) })
	return pathError("set extended attribute "+name+" of", path, err)
}

// sized calls get with a buffer that is large enough for what it returns.
func sized(get func(buf []byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		n, err := get(buf)
		switch {
		case err == nil:
			return buf[:n], nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ERANGE):
			if n, err = get(nil); err != nil {
				return nil, err
			}
			buf = make([]byte, n)
		default:
			return nil, err
		}
	}
}
