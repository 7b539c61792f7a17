package tree

import (
	"bytes"
	"fmt"
	"io/fs"
	"syscall"
	"time"
)

// MakeOptions belong to a file that an edit makes out of nothing.
type MakeOptions struct {
	Mode    fs.FileMode // only the permission bits count; not for symbolic links
	Owner   *Owner      // nil is root
	Time    *time.Time  // nil is Now of the Changes
	Parents bool        // Mkdir only: make missing parents, in the same way
}

// place resolves path and returns the directory that it is in.
func (c *Changes) place(op, path string) (dir *node, at, name string, err error) {
	c.begin()
	real, err := c.resolve(path)
	if err != nil {
		return nil, "", "", fmt.Errorf("%s %s: %w", op, absolute(relative(path)), err)
	}
	at, name = split(real)
	if dir, err = c.dirNode(at); err != nil {
		return nil, "", "", fmt.Errorf("%s %s: %w", op, absolute(relative(path)), err)
	}
	return dir, at, name, nil
}

// Mkdir makes a directory. Whatever exists at path is left as it is. Symbolic
// links on the way, and at path itself, are followed.
func (c *Changes) Mkdir(path string, o MakeOptions) error {
	if o.Parents {
		c.begin()
		real, err := c.resolve(path)
		if err != nil {
			return fmt.Errorf("make directory %s: %w", absolute(relative(path)), err)
		}
		_, err = c.mkdirAll(real, o.Mode, o.Owner, o.Time)
		return err
	}
	dir, at, name, err := c.place("make directory", path)
	if err != nil || name == "." {
		return err
	}
	kid, err := c.child(dir, at, name)
	if err != nil || kid.exists() {
		return err
	}
	return c.add(dir, at, name, inode{mode: fs.ModeDir | o.Mode.Perm()}, o)
}

// Mkfile makes a regular file, in the place of anything but a directory. data
// must not be changed afterwards.
func (c *Changes) Mkfile(path string, data []byte, o MakeOptions) error {
	dir, at, name, err := c.place("make file", path)
	if err != nil {
		return err
	}
	kid, err := c.child(dir, at, name)
	if err != nil {
		return err
	}
	if name == "." || kid.isDir() {
		return &fs.PathError{Op: "make file", Path: absolute(relative(path)), Err: syscall.EISDIR}
	}
	size := int64(len(data))
	return c.add(dir, at, name, inode{
		mode: o.Mode.Perm(), size: size, from: section{bytes.NewReader(data), 0, size}, at: name,
	}, o)
}

// Symlink makes a symbolic link to target at path, where nothing may be but a
// link to nothing, which is followed.
func (c *Changes) Symlink(target, path string, o MakeOptions) error {
	dir, at, name, err := c.place("make symbolic link", path)
	if err != nil {
		return err
	}
	kid, err := c.child(dir, at, name)
	if err != nil {
		return err
	}
	if name == "." || kid.exists() {
		return &fs.PathError{Op: "make symbolic link", Path: absolute(relative(path)), Err: fs.ErrExist}
	}
	return c.add(dir, at, name, inode{mode: fs.ModeSymlink | 0o777, target: target, size: int64(len(target))}, o)
}

// add makes name in dir with the owner and the time of o.
func (c *Changes) add(dir *node, at, name string, i inode, o MakeOptions) error {
	i.mtime = c.made(o.Time)
	made, err := c.fresh(dir, at, i, o.Owner)
	if err != nil {
		return err
	}
	dir.set(name, &node{inode: made})
	return nil
}

// RemoveOptions say what Remove may find.
type RemoveOptions struct {
	AllowNotFound bool // nothing there is fine
	Wildcard      bool // the path is a pattern of path.Match; no match is fine
}

// Remove removes path and all that it holds. A symbolic link at the end of path
// is removed itself.
func (c *Changes) Remove(path string, o RemoveOptions) error {
	c.begin()
	paths := []string{path}
	if o.Wildcard {
		var err error
		if paths, err = matches(c.view(), path, false); err != nil {
			return fmt.Errorf("remove %s: %w", absolute(relative(path)), err)
		}
	}
	for _, p := range paths {
		if err := c.remove(p, o.AllowNotFound); err != nil {
			return err
		}
	}
	return nil
}

func (c *Changes) remove(path string, allowNotFound bool) error {
	name := absolute(relative(path))
	if name == "/" {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrInvalid}
	}
	v := c.view()
	real, err := resolve(v.Lstat, v.ReadLink, ".", path, false)
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	_, err = v.Lstat(real)
	if isNotExist(err) {
		if allowNotFound {
			return nil
		}
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	at, last := split(real)
	dir, err := c.dirNode(at)
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return c.drop(dir, at, last)
}
