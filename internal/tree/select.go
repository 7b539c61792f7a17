package tree

import (
	"fmt"
	"io"

	"github.com/containerd/errdefs"
)

// Select shows fsys without what the patterns of an ignore file leave out.
func Select(fsys FS, ignore []string) (FS, error) { return Include(fsys, nil, ignore, nil) }

// IgnoreFile reads the patterns of a .dockerignore file.
func IgnoreFile(r io.Reader) ([]string, error) {
	return nil, fmt.Errorf("read ignore file: %w", errdefs.ErrNotImplemented)
}

// Include shows the part of fsys that matches a pattern of include, or all of
// it if there is none, and matches no pattern of exclude. The symbolic links on
// the way to followPaths, and what they lead to, count as included.
func Include(fsys FS, include, exclude, followPaths []string) (FS, error) {
	return nil, fmt.Errorf("select files: %w", errdefs.ErrNotImplemented)
}
