package tree

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/layer"
)

// Changes are edits on a base, in the order of the calls. They hold names,
// metadata and where the content of each file lies.
//
// The two times are set before the first edit. They are parameters because
// they reach the digest of the layer.
type Changes struct {
	// Now is the time of what the edits make out of nothing: directories on
	// the way, and what Mkdir, Mkfile and Symlink make without a time of
	// their own. The zero value is the start of 1970.
	Now time.Time

	// Latest, if not zero, is the latest modification time that an edit
	// gives (SOURCE_DATE_EPOCH).
	Latest time.Time

	// Temp is the directory for the content of compressed archives while the
	// Changes are in use; "" is that of [os.TempDir].
	Temp string

	base FS
}

// Edit begins edits on base; nil is the empty tree. Close ends them.
func Edit(base FS) *Changes { return &Changes{base: base} }

// Close drops what unpacked archives hold on disk. The trees that FS returned
// can no longer be read afterwards.
func (c *Changes) Close() error { return nil }

// CopyOptions are the fields of BuildKit's FileActionCopy.
type CopyOptions struct {
	Owner *Owner     // of whatever is copied or made; nil keeps the source's
	Mode  string     // as chmod takes it, octal or symbolic; "" keeps the source's
	Time  *time.Time // nil keeps the source's

	FollowSymlink      bool // if the source is a symbolic link, copy what it leads to
	DirContents        bool // copy what a directory holds, not the directory
	Wildcard           bool // the source is a pattern of path.Match
	AllowEmptyWildcard bool // a pattern may match nothing
	CreateDestPath     bool // make the directories that lead to the destination
	AlwaysReplace      bool // a file may take the place of a directory and the other way round
	Unpack             bool // unpack archives, which are known by their content

	Include  []string // only what matches one of them, relative to the source
	Exclude  []string // nothing that matches one of them
	Required []string // absolute paths in the source that must be among what is copied
}

// Copy copies srcPath of src to dst, which has the meaning of the destination of
// a COPY instruction: with a slash at the end it is a directory.
func (c *Changes) Copy(ctx context.Context, src FS, srcPath, dst string, o CopyOptions) error {
	return fmt.Errorf("copy %s: %w", srcPath, errdefs.ErrNotImplemented)
}

// MakeOptions belong to a file that an edit makes out of nothing.
type MakeOptions struct {
	Mode    fs.FileMode // only the permission bits count; not for symbolic links
	Owner   *Owner      // nil is root
	Time    *time.Time  // nil is Now of the Changes
	Parents bool        // Mkdir only: make missing parents, in the same way
}

// Mkdir makes a directory. One that exists is left as it is.
func (c *Changes) Mkdir(path string, o MakeOptions) error {
	return fmt.Errorf("make directory %s: %w", path, errdefs.ErrNotImplemented)
}

// Mkfile makes a regular file, in the place of any that was there.
func (c *Changes) Mkfile(path string, data []byte, o MakeOptions) error {
	return fmt.Errorf("make file %s: %w", path, errdefs.ErrNotImplemented)
}

// Symlink makes a symbolic link to target at path, where nothing may be.
func (c *Changes) Symlink(target, path string, o MakeOptions) error {
	return fmt.Errorf("make symbolic link %s: %w", path, errdefs.ErrNotImplemented)
}

// RemoveOptions say what Remove may find.
type RemoveOptions struct {
	AllowNotFound bool // nothing there is fine
	Wildcard      bool // the path is a pattern of path.Match; no match is fine
}

// Remove removes path and all that it holds.
func (c *Changes) Remove(path string, o RemoveOptions) error {
	return fmt.Errorf("remove %s: %w", path, errdefs.ErrNotImplemented)
}

// FS shows the base with the edits so far. Later edits don't change it.
func (c *Changes) FS() FS { return notYet{"show edits"} }

// WriteLayer writes what the edits changed as a layer over the base, in
// canonical order. It does not close w.
func (c *Changes) WriteLayer(ctx context.Context, w *layer.Writer) error {
	return fmt.Errorf("write layer: %w", errdefs.ErrNotImplemented)
}
