package layer

import (
	"fmt"
	"io"
	"io/fs"

	"github.com/containerd/errdefs"
)

// FS is the file system of one layer, read through its index without a mount.
//
// It follows no symbolic link, in no part of a name: where a link leads is
// decided by all the layers of an image together. So Stat is Lstat. Whiteouts
// and opaque directories are there to see, as [Stat] says.
//
// An FS may be used by several goroutines at once. It holds no resource of its
// own; the readers that it was made from must outlive it.
type FS struct{}

var (
	_ fs.ReadDirFS  = (*FS)(nil)
	_ fs.ReadLinkFS = (*FS)(nil)
	_ fs.StatFS     = (*FS)(nil)
)

// Open returns the file system that index, of indexSize bytes, and tar show
// together.
func Open(index io.ReaderAt, indexSize int64, tar io.ReaderAt) (*FS, error) {
	return nil, fmt.Errorf("open index: %w", errdefs.ErrNotImplemented)
}

// Open opens a file. Those that are neither regular nor a directory can be
// asked for their Stat only.
func (f *FS) Open(name string) (fs.File, error) { return nil, errdefs.ErrNotImplemented }

// ReadDir returns the entries of a directory, sorted by name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) { return nil, errdefs.ErrNotImplemented }

// ReadLink returns the target of a symbolic link.
func (f *FS) ReadLink(name string) (string, error) { return "", errdefs.ErrNotImplemented }

// Stat is Lstat.
func (f *FS) Stat(name string) (fs.FileInfo, error) { return f.Lstat(name) }

// Lstat describes a file. The Sys method of the result returns a [*Stat].
func (f *FS) Lstat(name string) (fs.FileInfo, error) { return nil, errdefs.ErrNotImplemented }
