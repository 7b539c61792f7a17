package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/sys"
)

// makeUpper makes upper and work unless they are there. The root of the tree is
// the upper directory itself, so a new one takes mode and attributes from root,
// that of the highest layer, and the owner too if owned says so.
func makeUpper(upper, work string, root fs.FileInfo, owned bool) error {
	if upper == "" {
		return nil
	}
	if work == "" {
		return fmt.Errorf("make upper directory %s: no work directory beside it: %w", upper, errdefs.ErrInvalidArgument)
	}
	if err := os.MkdirAll(work, 0o700); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(upper), 0o700); err != nil {
		return err
	}
	err := os.Mkdir(upper, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if root == nil {
		return os.Chmod(upper, 0o755) // Mkdir obeys the umask
	}
	if err := dress(upper, root, owned); err != nil {
		return fmt.Errorf("make upper directory %s: %w", upper, err)
	}
	return nil
}

// dress gives the directory at path what info says.
func dress(path string, info fs.FileInfo, owned bool) error {
	if st, ok := info.Sys().(*layer.Stat); ok {
		if owned {
			if err := os.Lchown(path, int(st.UID), int(st.GID)); err != nil {
				return err
			}
		}
		for name, value := range st.Xattrs {
			if err := sys.SetXattr(path, name, value); err != nil {
				slog.Debug("attribute left out of an upper directory", "dir", path, "error", err)
			}
		}
	}
	// After chown, which clears setuid and setgid.
	if err := os.Chmod(path, info.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return err
	}
	return os.Chtimes(path, info.ModTime(), info.ModTime())
}
