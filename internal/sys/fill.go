//go:build linux

package sys

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// File is a file that a new file system begins with ([Mount.Files]).
type File struct {
	Name     string // without a slash
	Mode     fs.FileMode
	UID, GID int
	Data     []byte
}

// fill writes files into the detached mount fd: what they hold never touches a
// disk, and nobody sees the file system without them.
func fill(fd int, files []File) error {
	for _, f := range files {
		if f.Name == "" || strings.Contains(f.Name, "/") {
			return fmt.Errorf("make file %q: %w", f.Name, errdefs.ErrInvalidArgument)
		}
		if err := fillOne(fd, f); err != nil {
			return fmt.Errorf("make file %s: %w", f.Name, err)
		}
	}
	return nil
}

func fillOne(fd int, f File) (err error) {
	n, err := unix.Openat(fd, f.Name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(n), f.Name)
	defer func() {
		if cerr := file.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err := file.Write(f.Data); err != nil {
		return err
	}
	if err := file.Chown(f.UID, f.GID); err != nil {
		return err
	}
	return file.Chmod(f.Mode)
}
