package tree

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/layer"
)

// inode is a file that an edit made: metadata, and where the content lies. It
// is never changed once a tree shows it; names that share one are hard links.
type inode struct {
	mode   fs.FileMode
	owner  Owner
	mtime  time.Time
	size   int64
	rdev   uint64
	target string // of a symbolic link
	xattrs map[string][]byte

	from FS // the content of a regular file is that of file at of from
	at   string

	ino   uint64
	nlink uint32 // atomic: the one field that grows while trees show the inode

	archive uint32 // the number of the archive that made it, or 0
}

func (i *inode) addLink() { atomic.AddUint32(&i.nlink, 1) }

func (i *inode) attr(name string) *attr {
	return &attr{
		name: name, mode: i.mode, size: i.size, mtime: i.mtime, from: i.from, at: i.at,
		stat: &layer.Stat{
			Ino: i.ino, Nlink: atomic.LoadUint32(&i.nlink), UID: i.owner.UID, GID: i.owner.GID,
			Rdev: i.rdev, Xattrs: i.xattrs,
		},
	}
}

// sameMeta reports whether a directory of a lower tree already has the
// metadata of i.
func (i *inode) sameMeta(info fs.FileInfo) bool {
	stat := statOf(info)
	return i.mode == info.Mode() && i.owner == Owner{stat.UID, stat.GID} &&
		i.mtime.Unix() == info.ModTime().Unix() &&
		maps.EqualFunc(i.xattrs, stat.Xattrs, bytes.Equal)
}

// node is a name in the tree of edits.
type node struct {
	// inode is nil for a directory of the base whose metadata no edit changed.
	*inode

	// kids are the names below a directory that the edits know something
	// about. If merged is set, those of the base shine through beside them.
	kids   map[string]*node
	merged bool

	// packed are more of these names, each later than those before.
	packed   []*packedNames
	unpacked bool // they were nodes again
	packNext int  // how many nodes there are when some are packed again

	// single says that no other name shares the inode, nor ever will.
	single bool

	// gone says that the base has the name and this tree does not.
	gone bool
}

func (n *node) isDir() bool { return !n.gone && (n.inode == nil || n.mode.IsDir()) }

func (n *node) set(name string, kid *node) {
	if n.kids == nil {
		n.kids = map[string]*node{}
	}
	n.kids[name] = kid
}

// clone copies the names; the inodes are shared, and what is packed.
func (n *node) clone() *node {
	c := *n
	if n.kids != nil {
		c.kids = make(map[string]*node, len(n.kids))
		for name, kid := range n.kids {
			c.kids[name] = kid.clone()
		}
	}
	return &c
}

// view shows a base with edits.
type view struct {
	base FS
	root *node
}

// find walks to name. What it finds is a node, or a name of the base that no
// edit touched, or neither.
func (v view) find(op, name string) (n *node, inBase bool, err error) {
	if err := checkPath(op, name); err != nil {
		return nil, false, err
	}
	n = v.root
	if name == "." {
		return n, false, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if !n.isDir() {
			return nil, false, &fs.PathError{Op: op, Path: name, Err: syscall.ENOTDIR}
		}
		kid, err := n.kid(part)
		switch {
		case err != nil:
			return nil, false, &fs.PathError{Op: op, Path: name, Err: err}
		case kid == nil && n.merged:
			return nil, true, nil
		case kid == nil || kid.gone:
			return nil, false, nil
		}
		n = kid
	}
	return n, false, nil
}

// info is what the node called name is.
func (v view) info(n *node, name string) (fs.FileInfo, error) {
	if n.inode == nil {
		return v.base.Lstat(name)
	}
	_, last := split(name)
	return n.attr(last), nil
}

// Lstat describes a file.
func (v view) Lstat(name string) (fs.FileInfo, error) {
	n, inBase, err := v.find("lstat", name)
	switch {
	case err != nil:
		return nil, err
	case inBase:
		return v.base.Lstat(name)
	case n == nil:
		return nil, notExist("lstat", name)
	}
	return v.info(n, name)
}

// ReadLink returns the target of a symbolic link.
func (v view) ReadLink(name string) (string, error) {
	n, inBase, err := v.find("readlink", name)
	switch {
	case err != nil:
		return "", err
	case inBase:
		return v.base.ReadLink(name)
	case n == nil:
		return "", notExist("readlink", name)
	case n.isDir() || n.mode.Type() != fs.ModeSymlink:
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return n.target, nil
}

// Open opens a file.
func (v view) Open(name string) (fs.File, error) {
	n, inBase, err := v.find("open", name)
	switch {
	case err != nil:
		return nil, err
	case inBase:
		return v.base.Open(name)
	case n == nil:
		return nil, notExist("open", name)
	case n.isDir():
		info, err := v.info(n, name)
		if err != nil {
			return nil, err
		}
		return openDir(v, name, info), nil
	case !n.mode.IsRegular():
		return nil, notRegular(name)
	}
	f, err := n.from.Open(n.at)
	if err != nil {
		return nil, err
	}
	_, last := split(name)
	return file{f, n.attr(last)}, nil
}

// ReadDir returns the entries of a directory, sorted by name.
func (v view) ReadDir(name string) ([]fs.DirEntry, error) {
	n, inBase, err := v.find("readdir", name)
	switch {
	case err != nil:
		return nil, err
	case inBase:
		return v.base.ReadDir(name)
	case n == nil:
		return nil, notExist("readdir", name)
	case !n.isDir():
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: syscall.ENOTDIR}
	}
	var below []fs.DirEntry
	if n.merged {
		if below, err = v.base.ReadDir(name); err != nil {
			return nil, err
		}
	}
	var entries []fs.DirEntry
	err = n.each(func(kid string, node *node) error {
		for len(below) > 0 && below[0].Name() <= kid {
			if below[0].Name() < kid {
				entries = append(entries, below[0])
			}
			below = below[1:]
		}
		if node.gone {
			return nil
		}
		info, err := v.info(node, join(name, kid))
		if err == nil {
			entries = append(entries, fs.FileInfoToDirEntry(info))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return append(entries, below...), nil
}

// file is an open file under the metadata that the tree gives it.
type file struct {
	fs.File
	info fs.FileInfo
}

func (f file) Stat() (fs.FileInfo, error) { return f.info, nil }

// ReadAt reads at any place, where the file below can.
func (f file) ReadAt(p []byte, off int64) (int, error) {
	if r, ok := f.File.(io.ReaderAt); ok {
		return r.ReadAt(p, off)
	}
	return 0, &fs.PathError{Op: "read", Path: f.info.Name(), Err: errors.ErrUnsupported}
}

// section is the content of one file, as a tree of that file alone.
type section struct {
	r    io.ReaderAt
	off  int64
	size int64
}

// Open returns the content, whatever the name.
func (s section) Open(name string) (fs.File, error) {
	return &sectionFile{SectionReader: io.NewSectionReader(s.r, s.off, s.size), name: name}, nil
}

func (s section) Lstat(name string) (fs.FileInfo, error) {
	return &attr{name: name, mode: 0o600, size: s.size, stat: &layer.Stat{Nlink: 1}}, nil
}

func (s section) ReadLink(name string) (string, error)       { return "", errdefs.ErrNotImplemented }
func (s section) ReadDir(name string) ([]fs.DirEntry, error) { return nil, errdefs.ErrNotImplemented }

type sectionFile struct {
	*io.SectionReader
	name string
}

func (f *sectionFile) Close() error { return nil }
func (f *sectionFile) Stat() (fs.FileInfo, error) {
	return &attr{name: f.name, mode: 0o600, size: f.Size(), stat: &layer.Stat{Nlink: 1}}, nil
}
