package ops

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/sys"
)

// PruneCacheMounts removes the cache mounts of the store at root that no build
// uses right now, and returns the bytes that they took.
func PruneCacheMounts(root string) (freed int64, err error) {
	parent := filepath.Join(root, "cache", "mounts")
	entries, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".lock")
		if !ok {
			continue
		}
		lock, err := sys.TryLock(filepath.Join(parent, e.Name()), sys.Exclusive)
		if errdefs.IsUnavailable(err) {
			continue
		}
		if err != nil {
			return freed, err
		}
		dir := filepath.Join(parent, name)
		size := diskSize(dir)
		// Whoever waits for the lock notices that the file has gone.
		if err := errors.Join(os.RemoveAll(dir), lock.Remove()); err != nil {
			return freed, err
		}
		freed += size
	}
	return freed, nil
}

// diskSize is the bytes that a tree takes, as far as it can be read.
func diskSize(dir string) int64 {
	var n int64
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil {
			n += sys.Blocks(info)
		}
		return nil
	})
	return n
}
