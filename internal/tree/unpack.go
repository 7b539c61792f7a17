package tree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/sys"
)

// xattrRecord is the prefix of a PAX record that holds an extended attribute.
const xattrRecord = "SCHILY.xattr."

// unpack unpacks source into the directory dst if it is an archive, which is
// known by its first header behind any compression, and says whether it did.
//
// As in BuildKit the owner of the options applies to the members, mode and time
// don't; links of the destination are followed as if it were the root.
func (cp *copier) unpack(ctx context.Context, source, dst string) (bool, error) {
	// BuildKit follows a link here even if it was told not to; the digest of
	// the source would not cover what is unpacked then.
	from, err := resolve(cp.src.Lstat, cp.src.ReadLink, ".", source, cp.o.FollowSymlink)
	if err != nil {
		return false, err
	}
	info, err := cp.src.Lstat(from)
	if err != nil || !info.Mode().IsRegular() {
		return false, nil
	}
	f, err := cp.src.Open(from)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	plain, compression, err := layer.Decompress(f)
	if err != nil {
		return false, nil
	}
	defer plain.Close()
	count := &counter{r: plain}
	u := &unpacker{copier: cp, tar: tar.NewReader(count), count: count, own: map[*inode]bool{}}
	if compression == layer.None {
		u.from, u.at = origin(cp.src, from, info)
	}
	first, err := u.tar.Next()
	if err != nil {
		return false, nil
	}
	cp.required.seen(from)
	if u.root, err = cp.resolve(dst); err != nil {
		return false, err
	}
	if _, err = cp.mkdirAll(u.root, 0o755, cp.o.Owner, cp.o.Time); err != nil {
		return false, err
	}
	return true, u.all(ctx, first)
}

// unpacker makes the members of an archive below root.
type unpacker struct {
	*copier
	tar   *tar.Reader
	count *counter
	root  string
	own   map[*inode]bool // that this archive made

	// from is set if the archive is not compressed: then contents stay in it.
	from FS
	at   string

	// spool takes the contents of any other archive, one after the other.
	spool *os.File
	used  int64
}

// counter says how far the archive is read. It hides Seek from [tar.Reader],
// so that its figure is the place of the content after each header.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (u *unpacker) all(ctx context.Context, h *tar.Header) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if h.Typeflag != tar.TypeXGlobalHeader {
			if err := u.member(h); err != nil {
				return fmt.Errorf("unpack %q: %w", h.Name, classed(err))
			}
		}
		var err error
		if h, err = u.tar.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read archive: %w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
}

// inside is a name of the archive below its root. Those that begin with a
// slash are taken as tar(1) takes them, without it.
func inside(name string) (string, error) {
	clean := path.Clean(name)
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("name %q leaves the destination", name))
	}
	for part := range strings.SplitSeq(clean, "/") {
		if len(part) > 255 {
			return "", &fs.PathError{Op: "unpack", Path: part[:40] + "…", Err: syscall.ENAMETOOLONG}
		}
	}
	if len(clean) > 4095 { // what limits.h calls NAME_MAX and PATH_MAX
		return "", &fs.PathError{Op: "unpack", Path: clean[:40] + "…", Err: syscall.ENAMETOOLONG}
	}
	return relative(clean), nil
}

// find resolves the directory of name below the root of the archive.
func (u *unpacker) find(name string) (dir, last string, err error) {
	dir, last = split(name)
	v := u.view()
	dir, err = resolve(v.Lstat, v.ReadLink, u.root, dir, true)
	return dir, last, err
}

func (u *unpacker) member(h *tar.Header) error {
	name, err := inside(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return nil // the destination keeps its metadata, as with go-archive
	}
	at, last, err := u.find(name)
	if err != nil {
		return err
	}
	dir, err := u.mkdirAll(at, 0o755, &Owner{}, nil)
	if err != nil {
		return err
	}
	kid, err := u.child(dir, at, last)
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return u.link(dir, at, last, h)
	}
	made, err := u.inode(h)
	if err != nil {
		return err
	}
	if kid.isDir() && made.mode.IsDir() {
		xattrs := maps.Clone(statOf(kid.info).Xattrs)
		if xattrs == nil {
			xattrs = made.xattrs
		} else {
			maps.Copy(xattrs, made.xattrs)
		}
		made.xattrs = xattrs
		u.enter(dir, kid, last).inode = u.newInode(made)
		return nil
	}
	n := &node{inode: u.newInode(made)}
	u.own[n.inode] = true
	dir.set(last, n)
	return nil
}

// inode is what the member that h begins becomes.
func (u *unpacker) inode(h *tar.Header) (inode, error) {
	i, err := u.meta(h)
	if err != nil {
		return i, err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return i, u.content(h, &i)
	case tar.TypeDir:
		i.mode |= fs.ModeDir
	case tar.TypeSymlink:
		i.mode = fs.ModeSymlink | 0o777
		i.target, i.size = h.Linkname, int64(len(h.Linkname))
	case tar.TypeFifo:
		i.mode |= fs.ModeNamedPipe
	case tar.TypeBlock:
		i.mode |= fs.ModeDevice
	case tar.TypeChar:
		i.mode |= fs.ModeDevice | fs.ModeCharDevice
	default:
		return inode{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("type %q of the member is unknown", h.Typeflag))
	}
	if i.mode&fs.ModeDevice != 0 {
		if i.rdev = makedev(h.Devmajor, h.Devminor); i.rdev == 0 && h.Typeflag == tar.TypeChar {
			return inode{}, errdefs.ErrInvalidArgument.WithMessage("device 0/0 means a deleted file in a layer")
		}
	}
	return i, nil
}

// meta is the metadata that a header gives.
func (u *unpacker) meta(h *tar.Header) (inode, error) {
	if h.Uid < 0 || h.Uid > 1<<32-1 || h.Gid < 0 || h.Gid > 1<<32-1 {
		return inode{}, errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf("owner %d:%d is out of range", h.Uid, h.Gid))
	}
	return inode{
		owner:  ownerOr(u.o.Owner, Owner{uint32(h.Uid), uint32(h.Gid)}),
		mode:   withUnixMode(0, uint16(h.Mode&0o7777)),
		mtime:  u.stamp(h.ModTime),
		xattrs: xattrsOf(h),
	}, nil
}

// content says where the content of the current member lies, or puts it into
// the spool.
func (u *unpacker) content(h *tar.Header, i *inode) error {
	i.size = h.Size
	if u.from != nil && !isSparse(h) {
		i.from, i.at = part{u.from, u.at, u.count.n, h.Size}, h.Name
		return nil
	}
	if u.spool == nil {
		f, err := sys.UnnamedFile(u.Temp)
		if err != nil {
			return err
		}
		u.Changes.spool = append(u.Changes.spool, f)
		u.spool = f
	}
	n, err := io.Copy(u.spool, u.tar)
	if err != nil {
		return err
	}
	i.from, i.at = section{u.spool, u.used, n}, h.Name
	u.used += n
	return nil
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

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
	case kid.node != nil && u.own[kid.node.inode]:
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
	made := u.newInode(copied)
	u.own[made] = true
	parent.set(name, &node{inode: made})
	return made, nil
}

// xattrsOf reads the extended attributes of a member. Those of overlayfs say
// something about the machine that packed it, and would be obeyed by ours.
func xattrsOf(h *tar.Header) map[string][]byte {
	var xattrs map[string][]byte
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrRecord)
		if !ok || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if xattrs == nil {
			xattrs = map[string][]byte{}
		}
		xattrs[name] = []byte(value)
	}
	return xattrs
}

// part is a range of a file, as a tree of that file alone.
type part struct {
	FS
	at   string
	off  int64
	size int64
}

// Open opens the range, whatever the name.
func (p part) Open(name string) (fs.File, error) {
	f, err := p.FS.Open(p.at)
	if err != nil {
		return nil, err
	}
	if r, ok := f.(io.ReaderAt); ok {
		return &partFile{f, io.NewSectionReader(r, p.off, p.size)}, nil
	}
	if _, err := io.CopyN(io.Discard, f, p.off); err != nil {
		f.Close()
		return nil, err
	}
	return &partFile{f, io.LimitReader(f, p.size)}, nil
}

type partFile struct {
	fs.File
	r io.Reader
}

func (p *partFile) Read(b []byte) (int, error) { return p.r.Read(b) }
