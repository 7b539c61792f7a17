//go:build linux

package sys

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// UnnamedFile makes a file without a name on the file system of dir, which must
// exist: it is gone as soon as it is closed, however the process ends. "" is the
// directory of [os.TempDir]. The caller closes it.
func UnnamedFile(dir string) (*os.File, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	f, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) { // EISDIR: the kernel doesn't know the flag
		return f, err
	}
	if f, err = os.CreateTemp(dir, "unnamed-"); err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
