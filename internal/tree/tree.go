// Package tree shows layers, context directories and edits on them as file
// systems, and writes what changed as a layer. It needs no mount, no snapshot
// and no privilege: a tree is names and metadata, and a file's content stays
// where it lies until a layer is written.
//
// What always holds:
//
//   - symbolic links are data: no [FS] follows one; [Resolve] does, and stays
//     inside the tree as openat2(2) with RESOLVE_IN_ROOT would;
//   - names are bytes: newlines and invalid UTF-8 are kept, so paths follow the
//     form of [io/fs] but not its demand for UTF-8;
//   - the same edits on the same base give the same layer, whatever the user,
//     the umask and the clock of the machine are.
//
// The edits behave as BuildKit's file operation does (solver/pb FileAction…),
// so that a Dockerfile means the same thing here.
package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/layer"
)

// FS is a tree of files. Paths have the form of [io/fs]: slash-separated,
// relative, "." for the root. Open fails for whatever is neither a directory
// nor a regular file. Sys of each FileInfo is a *[layer.Stat], which nobody may
// change. Every FS of this package may be used from several goroutines.
type FS interface {
	fs.ReadDirFS
	fs.ReadLinkFS
}

// entriesFS is a tree that lists a directory without holding all of it in memory.
type entriesFS interface {
	eachEntry(dir string, f func(fs.DirEntry) error) error
}

// eachEntry calls f for the entries of a directory, in the order of ReadDir.
func eachEntry(fsys FS, dir string, f func(fs.DirEntry) error) error {
	if e, ok := fsys.(entriesFS); ok {
		return e.eachEntry(dir, f)
	}
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

// allEntries is ReadDir of such a tree.
func allEntries(fsys entriesFS, dir string) ([]fs.DirEntry, error) {
	var all []fs.DirEntry
	err := fsys.eachEntry(dir, func(e fs.DirEntry) error {
		all = append(all, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Owner is who a file belongs to.
type Owner struct {
	UID, GID uint32
}

// Empty is the tree that holds nothing but its root: what "FROM scratch" is.
func Empty() FS { return Edit(nil).FS() }

// attr is the metadata of one file as every FS of this package hands it out.
type attr struct {
	name  string
	mode  fs.FileMode
	size  int64
	mtime time.Time
	stat  *layer.Stat

	// from and at say where the content lies; an edit that copies the file
	// keeps these two instead of going through the views in between.
	from FS
	at   string
}

func (a *attr) Name() string               { return a.name }
func (a *attr) Size() int64                { return a.size }
func (a *attr) Mode() fs.FileMode          { return a.mode }
func (a *attr) ModTime() time.Time         { return a.mtime }
func (a *attr) IsDir() bool                { return a.mode.IsDir() }
func (a *attr) Sys() any                   { return a.stat }
func (a *attr) Type() fs.FileMode          { return a.mode.Type() }
func (a *attr) Info() (fs.FileInfo, error) { return a, nil }

// origin says where the content of info, found at path in fsys, lies.
func origin(fsys FS, path string, info fs.FileInfo) (FS, string) {
	if a, ok := info.(*attr); ok && a.from != nil {
		return a.from, a.at
	}
	return fsys, path
}

// statOf is the metadata that [io/fs] has no word for. A tree of a stranger
// that brings none belongs to root.
func statOf(info fs.FileInfo) *layer.Stat {
	if st, ok := info.Sys().(*layer.Stat); ok && st != nil {
		return st
	}
	return &layer.Stat{Nlink: 1}
}

// classed gives err the class that callers branch on. It reads the same.
func classed(err error) error {
	switch {
	case err == nil || errdefs.IsNotFound(err) || errdefs.IsInvalidArgument(err):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return classedError{err, errdefs.ErrNotFound}
	case errors.Is(err, fs.ErrPermission):
		return classedError{err, errdefs.ErrPermissionDenied}
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrInvalid):
		return classedError{err, errdefs.ErrInvalidArgument}
	}
	return err
}

type classedError struct {
	error
	class error
}

func (e classedError) Unwrap() []error { return []error{e.error, e.class} }

var errNotRegular = fmt.Errorf("not a regular file: %w", errdefs.ErrInvalidArgument)
