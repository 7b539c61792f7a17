package layer

import (
	"archive/tar"
	"math"
	"slices"
	"strings"
)

// maxTar bounds the tar that an index can point into: 32 bits of blocks.
const maxTar = blockSize * (1<<32 - 2)

// newInode checks all that a member says about itself.
func (t *treeBuilder) newInode(m *member) (in inode, sparse *sparseMap, err error) {
	const maxID = math.MaxUint32 - 1 // the highest number is chown's "leave it"
	if m.uid < 0 || m.uid > maxID || m.gid < 0 || m.gid > maxID {
		return in, nil, refuse(m.name, "no such owner: %d:%d", m.uid, m.gid)
	}
	in = inode{
		mode: uint16(m.mode), uid: uint32(m.uid), gid: uint32(m.gid),
		mtime: m.mtime, nsec: m.nsec,
	}
	switch m.kind {
	case tar.TypeReg:
		in.mode |= typeRegular
		if m.offset+m.stored > maxTar {
			return in, nil, refuse(m.name, "ends %d bytes into the tar, more than %d", m.offset+m.stored, int64(maxTar))
		}
		in.size, in.data = m.size, uint32(m.offset>>blockShift)
		if m.holes {
			if sparse, err = newSparseMap(m); err != nil {
				return in, nil, refuse(m.name, "%s", err)
			}
			in.flags, in.data = flagSparse, uint32(len(t.sparse))
			t.sparse = append(t.sparse, sparse)
		}
	case tar.TypeDir:
		in.mode |= typeDir
	case tar.TypeSymlink:
		in.mode = typeSymlink | 0o777 // Linux has no other
		if !validTarget(m.link) {
			return in, nil, refuse(m.name, "bad target of a symbolic link")
		}
		target, err := t.keep(m.name, []byte(m.link))
		if err != nil {
			return in, nil, err
		}
		in.data, in.size = target, int64(len(m.link))
	case tar.TypeChar, tar.TypeBlock:
		in.mode |= typeChar
		if m.kind == tar.TypeBlock {
			in.mode = in.mode&^typeMask | typeBlock
		}
		if m.major < 0 || m.major >= 1<<12 || m.minor < 0 || m.minor >= 1<<20 {
			return in, nil, refuse(m.name, "no such device: %d:%d", m.major, m.minor)
		}
		in.data = uint32(m.minor&0xff | m.major<<8 | m.minor>>8<<20)
	case tar.TypeFifo:
		in.mode |= typeFifo
	default:
		return in, nil, refuse(m.name, "unknown type of member %q", m.kind)
	}
	in.xattrs, err = t.attributes(m)
	return in, sparse, err
}

// validTarget says whether Linux can make a symbolic link to target.
func validTarget(target string) bool {
	return target != "" && len(target) <= maxPath && strings.IndexByte(target, 0) < 0
}

// attributes keeps the extended attributes of m in the form of the image. Many
// files have the same set, which is kept once.
func (t *treeBuilder) attributes(m *member) (uint32, error) {
	if len(m.xattrs) == 0 {
		return 0, nil
	}
	names := make([]string, 0, len(m.xattrs))
	for name := range m.xattrs {
		if !ofOverlay(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var set []byte
	for _, name := range names {
		value := m.xattrs[name]
		if name == "" || len(name) > maxName || strings.IndexByte(name, 0) >= 0 || len(value) > math.MaxUint16 {
			return 0, refuse(m.name, "bad extended attribute %q of %d bytes", clip(name), len(value))
		}
		set = appendXattr(set, name, value)
	}
	if len(set) > maxXattrs {
		return 0, refuse(m.name, "extended attributes of %d bytes, more than %d", len(set), maxXattrs)
	}
	if ref, ok := t.xattrs[string(set)]; ok {
		return ref, nil
	}
	ref, err := t.keep(m.name, set)
	if err == nil && len(t.xattrs) < 1024 && len(set) < 4096 {
		t.xattrs[string(set)] = ref
	}
	return ref, err
}

// ofOverlay says whether an attribute steers overlayfs. A tar must not.
func ofOverlay(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}
