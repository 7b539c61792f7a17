package tree

import (
	"archive/tar"
	"fmt"
	"io/fs"
	"maps"
	"syscall"

	"github.com/containerd/errdefs"
)

// link makes dir/name a hard link to what the archive calls h.Linkname. The file
// takes the metadata of h. A file of the base gets into the layer by that, as it
// does on an overlay.
func (u *unpacker) link(dir *node, at, name string, h *tar.Header) error {
	meta, err := u.meta(h)
	if err != nil {
		return err
	}
	old, err := inside(h.Linkname)
	if err != nil {
		return err
	}
	oldDir, oldName, err := u.find(old)
	if err != nil {
		return err
	}
	if oldDir == at && oldName == name {
		return errdefs.ErrInvalidArgument.WithMessage("hard link to itself")
	}
	target, err := u.linkable(oldDir, oldName)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", h.Linkname, err)
	}
	target.owner = meta.owner
	if target.mode.Type() != fs.ModeSymlink {
		target.mode, target.mtime = target.mode.Type()|meta.mode, meta.mtime
	}
	for key, value := range meta.xattrs {
		target.xattrs = maps.Clone(target.xattrs)
		if target.xattrs == nil {
			target.xattrs = map[string][]byte{}
		}
		target.xattrs[key] = value
	}
	target.addLink()
	dir.set(name, &node{inode: target})
	return nil
}

// linkable returns the inode of a name, one that no other tree shows.
func (u *unpacker) linkable(at, name string) (*inode, error) {
	parent, err := u.dirNode(at)
	if err != nil {
		return nil, err
	}
	kid, err := u.child(parent, at, name)
	if err != nil {
		return nil, err
	}
	switch {
	case !kid.exists():
		return nil, errdefs.ErrNotFound
	case kid.isDir():
		return nil, syscall.EISDIR
	case kid.node != nil && kid.node.archive == u.id:
		kid.node.single = false
		return kid.node.inode, nil
	}
	var copied inode
	if kid.node != nil {
		copied = *kid.node.inode
	} else {
		path := join(at, name)
		copied = keep(kid.info)
		copied.size, copied.rdev = kid.info.Size(), statOf(kid.info).Rdev
		copied.from, copied.at = origin(u.base, path, kid.info)
		if kid.info.Mode().Type() == fs.ModeSymlink {
			if copied.target, err = u.base.ReadLink(path); err != nil {
				return nil, err
			}
		}
	}
	copied.archive = u.id
	made := u.newInode(copied)
	parent.set(name, &node{inode: made})
	return made, nil
}
