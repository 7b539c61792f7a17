package tree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// Changes are edits on a base, in the order of the calls. They hold names,
// metadata and where the content of each file lies.
//
// An edit never changes the time of a directory that only gets or loses a
// name, as a file system would: times of the machine have no place in a layer.
// That also keeps directories of the base, which BuildKit's overlay shows in
// the layer as soon as something below them changes, out of it.
//
// The fields are set before the first edit; the times are parameters because
// they reach the digest of the layer. Changes are for one goroutine.
type Changes struct {
	// Now is the time of what the edits make out of nothing: directories on
	// the way, and what Mkdir, Mkfile and Symlink make without a time of
	// their own. The zero value is the start of 1970.
	Now time.Time

	// Latest, if not zero, is the latest modification time that an edit
	// gives (SOURCE_DATE_EPOCH).
	Latest time.Time

	// Temp is the directory for the content of compressed archives, and for
	// the names of large directories, while the Changes are in use; "" is that
	// of [os.TempDir].
	Temp string

	base  FS
	root  *node
	shown bool   // FS has given root away: the next edit works on a copy
	inos  uint64 // inode numbers given out
	salt  uint64 // keeps them apart from those of edits below
	spool []*os.File
	packs packs

	archives uint32 // that were unpacked
}

// Edit begins edits on base; nil is the empty tree. Close ends them.
func Edit(base FS) *Changes {
	c := &Changes{base: base, root: &node{merged: base != nil}, salt: saltOf(base) + 1}
	if base == nil {
		c.root.inode = &inode{mode: fs.ModeDir | 0o755, mtime: time.Unix(0, 0), nlink: 1}
	}
	return c
}

// Close drops what is held on disk. The trees that FS returned can no longer be
// read afterwards.
func (c *Changes) Close() error {
	errs := []error{c.packs.Close()}
	for _, f := range c.spool {
		errs = append(errs, f.Close())
	}
	c.spool = nil
	return errors.Join(errs...)
}

// edited is the tree that FS returns.
type edited struct {
	view
	salt uint64
}

func saltOf(base FS) uint64 {
	if e, ok := base.(edited); ok {
		return e.salt
	}
	return 0
}

// FS shows the base with the edits so far. Later edits don't change it.
func (c *Changes) FS() FS {
	c.shown = true
	return edited{c.view(), c.salt}
}

func (c *Changes) view() view { return view{c.base, c.root} }

// begin comes first in every edit.
func (c *Changes) begin() {
	if c.shown {
		c.root, c.shown = c.root.clone(), false
	}
}

// stamp is the time that an edit gives: whole seconds, because that is what a
// layer holds, and not after Latest.
func (c *Changes) stamp(t time.Time) time.Time {
	if !c.Latest.IsZero() && t.After(c.Latest) {
		t = c.Latest
	}
	return time.Unix(t.Unix(), 0)
}

// made is the time of something new.
func (c *Changes) made(t *time.Time) time.Time {
	switch {
	case t != nil:
		return c.stamp(*t)
	case c.Now.IsZero():
		return time.Unix(0, 0)
	}
	return c.stamp(c.Now)
}

func (c *Changes) newInode(i inode) *inode {
	c.inos++
	i.ino, i.nlink = mix(c.inos, ^c.salt), 1
	return &i
}

// mix is a number for the pair that no other pair will have by chance
// (the finaliser of SplitMix64).
func mix(x, y uint64) uint64 {
	x += y * 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (c *Changes) resolve(name string) (string, error) {
	v := c.view()
	return resolve(v.Lstat, v.ReadLink, ".", name, true)
}

// child is what a directory has under a name: a node, or metadata of the base
// that no edit touched, or nothing at all.
type child struct {
	node *node
	info fs.FileInfo
}

func (k child) exists() bool { return k.info != nil }
func (k child) isDir() bool  { return k.info != nil && k.info.IsDir() }

// child looks name up in dir, which may be changed afterwards.
func (c *Changes) child(dir *node, path, name string) (child, error) {
	kid, err := dir.own(name)
	if err != nil {
		return child{}, err
	}
	if kid != nil && kid.gone || kid == nil && !dir.merged {
		return child{}, nil
	}
	if kid != nil {
		info, err := c.view().info(kid, join(path, name))
		return child{kid, info}, err
	}
	info, err := c.base.Lstat(join(path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return child{}, nil
	}
	return child{nil, info}, err
}

// dirNode returns the node of the directory at path, which has no symbolic link
// in it, and whose every part is one.
func (c *Changes) dirNode(path string) (*node, error) {
	n, at := c.root, "."
	if path == "." {
		return n, nil
	}
	for name := range strings.SplitSeq(path, "/") {
		kid, err := c.child(n, at, name)
		if err != nil {
			return nil, err
		}
		at = join(at, name)
		if !kid.exists() {
			return nil, notExist("lookup", absolute(at))
		}
		if !kid.isDir() {
			return nil, &fs.PathError{Op: "lookup", Path: absolute(at), Err: syscall.ENOTDIR}
		}
		n = c.enter(n, kid, name)
	}
	return n, nil
}

// enter returns the node of the directory kid of n, making it if the base alone
// has known it so far.
func (c *Changes) enter(n *node, kid child, name string) *node {
	if kid.node == nil {
		kid.node = &node{merged: true}
		n.set(name, kid.node)
	}
	return kid.node
}

// drop removes name from dir.
func (c *Changes) drop(dir *node, path, name string) error {
	if _, err := dir.own(name); err != nil {
		return err
	}
	delete(dir.kids, name)
	if !dir.merged {
		return nil
	}
	_, err := c.base.Lstat(join(path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		dir.set(name, &node{gone: true})
	}
	return err
}

// mkdirAll makes the missing directories of path, in which no symbolic link is
// left, and returns the node of the last.
func (c *Changes) mkdirAll(path string, mode fs.FileMode, owner *Owner, t *time.Time) (*node, error) {
	n, at := c.root, "."
	if path == "." {
		return n, nil
	}
	for name := range strings.SplitSeq(path, "/") {
		kid, err := c.child(n, at, name)
		if err != nil {
			return nil, fmt.Errorf("make directory %s: %w", absolute(path), err)
		}
		parent := at
		at = join(at, name)
		switch {
		case !kid.exists():
			made, err := c.fresh(n, parent, inode{mode: fs.ModeDir | mode.Perm(), mtime: c.made(t)}, owner)
			if err != nil {
				return nil, fmt.Errorf("make directory %s: %w", absolute(path), err)
			}
			kid.node = &node{inode: made}
			n.set(name, kid.node)
		case !kid.isDir():
			return nil, &fs.PathError{Op: "mkdir", Path: absolute(at), Err: syscall.ENOTDIR}
		}
		n = c.enter(n, kid, name)
	}
	return n, nil
}

// fresh is i as a file system makes it in the directory dir at path: one with
// the setgid bit gives its group to all that is new in it, and the bit itself to
// directories.
func (c *Changes) fresh(dir *node, path string, i inode, owner *Owner) (*inode, error) {
	info, err := c.view().info(dir, path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeSetgid != 0 {
		i.owner.GID = statOf(info).GID
		if i.mode.IsDir() {
			i.mode |= fs.ModeSetgid
		}
	}
	i.owner = ownerOr(owner, i.owner)
	return c.newInode(i), nil
}

func ownerOr(owner *Owner, otherwise Owner) Owner {
	if owner != nil {
		return *owner
	}
	return otherwise
}
