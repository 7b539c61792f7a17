package tree

import (
	"io/fs"
	"maps"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
)

// makeParents makes the directories that wait for a match below them. One that
// exists takes the mode of the source if nested, as in fsutil; nothing else.
func (cp *copier) makeParents(nested bool) error {
	for _, p := range cp.parents {
		if p.at.dir != nil {
			continue
		}
		kid, err := cp.existing(p.at)
		if err != nil {
			return err
		}
		cp.required.seen(p.src)
		switch {
		case !kid.exists():
			kid.node = &node{inode: cp.newInode(cp.meta(p.info))}
			p.at.up.dir.set(p.at.name, kid.node)
		case !kid.isDir():
			return notDirectory(p.at)
		}
		p.at.dir = cp.enter(p.at.up.dir, kid, p.at.name)
		if kid.exists() && nested {
			meta := keep(kid.info)
			meta.mode = p.info.Mode()
			p.at.dir.inode = cp.newInode(meta)
		}
	}
	return nil
}

// copyDir makes the directory t, or gives it the metadata of the source if it
// exists and is nested.
func (cp *copier) copyDir(src string, info fs.FileInfo, t *target, nested bool) error {
	if err := cp.makeParents(nested); err != nil {
		return err
	}
	cp.required.seen(src)
	kid, err := cp.existing(t)
	if err != nil {
		return err
	}
	if kid.exists() && !kid.isDir() {
		if !cp.o.AlwaysReplace {
			return notDirectory(t)
		}
		kid = child{}
	}
	meta := cp.meta(info)
	if !kid.exists() {
		t.dir = &node{inode: cp.newInode(meta)}
		t.up.dir.set(t.name, t.dir)
		return nil
	}
	if t.dir == nil {
		t.dir = cp.enter(t.up.dir, kid, t.name)
	}
	if nested {
		meta.xattrs = addedTo(statOf(kid.info).Xattrs, meta.xattrs)
		t.dir.inode = cp.newInode(meta)
		return nil
	}
	// The destination itself keeps its metadata. fsutil sets its time to that
	// of the source, to undo what making files in it did; here that matters
	// only to a directory that is new in this layer.
	if t.up != nil && t.dir.inode != nil && !t.dir.merged {
		own := *t.dir.inode
		own.mtime = meta.mtime
		t.dir.inode = &own
	}
	return nil
}

// addedTo are the extended attributes of a directory that gets more.
func addedTo(old, more map[string][]byte) map[string][]byte {
	if old == nil {
		return more
	}
	all := maps.Clone(old)
	maps.Copy(all, more)
	return all
}

func notDirectory(t *target) error {
	return errdefs.ErrInvalidArgument.WithMessage("cannot copy to non-directory: " + absolute(t.path))
}

// copyFile makes anything but a directory.
func (cp *copier) copyFile(src string, info fs.FileInfo, t *target, nested bool) error {
	if err := cp.makeParents(nested); err != nil {
		return err
	}
	cp.required.seen(src)
	kid, err := cp.existing(t)
	if err != nil {
		return err
	}
	if kid.isDir() && !cp.o.AlwaysReplace {
		return errdefs.ErrInvalidArgument.WithMessage("cannot replace to directory " + absolute(t.path) + " with file")
	}
	if t.up == nil {
		return &fs.PathError{Op: "copy to", Path: "/", Err: syscall.EISDIR}
	}
	stat := statOf(info)
	meta := cp.meta(info)
	switch info.Mode().Type() {
	case 0:
		meta.size = info.Size()
		meta.from, meta.at = origin(cp.src, src, info)
	case fs.ModeSymlink:
		if meta.target, err = cp.src.ReadLink(src); err != nil {
			return err
		}
		meta.size = int64(len(meta.target))
	case fs.ModeSocket:
		meta.mode &^= fs.ModeSocket
		meta.from, meta.at = section{strings.NewReader(""), 0, 0}, src
	case fs.ModeNamedPipe:
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		if meta.rdev = stat.Rdev; meta.rdev == 0 && info.Mode()&fs.ModeCharDevice != 0 {
			return errdefs.ErrInvalidArgument.WithMessage(absolute(src) + " is a device 0/0, which means a deleted file in a layer")
		}
	default:
		return errdefs.ErrInvalidArgument.WithMessage(absolute(src) + " is of a type that a layer cannot hold: " + info.Mode().String())
	}
	made := cp.newInode(meta)
	if info.Mode().IsRegular() && stat.Nlink > 1 {
		cp.link(stat.Ino, made)
	}
	cp.put(t.up.dir, t.name, &node{inode: made, single: true})
	return nil
}

// link makes the copies of one inode of the source one inode, as far as anybody
// can see: they are equal and have one number, and all say that there is another,
// even if it is not among what is copied.
func (cp *copier) link(ino uint64, made *inode) {
	made.nlink = 2
	if first, ok := cp.links.get(ino); ok {
		made.ino = first
		return
	}
	cp.links.add(ino, made.ino)
}

// meta is the metadata that a copy of info gets.
func (cp *copier) meta(info fs.FileInfo) inode {
	i := keep(info)
	i.owner = ownerOr(cp.o.Owner, i.owner)
	if cp.mode != nil && info.Mode().Type() != fs.ModeSymlink {
		i.mode = cp.mode.apply(i.mode)
	}
	if cp.o.Time != nil {
		i.mtime = *cp.o.Time
	}
	i.mtime = cp.stamp(i.mtime)
	return i
}

// keep is the metadata of info unchanged.
func keep(info fs.FileInfo) inode {
	stat := statOf(info)
	return inode{
		mode: info.Mode(), owner: Owner{stat.UID, stat.GID},
		mtime: info.ModTime(), xattrs: stat.Xattrs,
	}
}
