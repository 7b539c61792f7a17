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
	"slices"
	"strconv"
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
	u := &unpacker{copier: cp, tar: tar.NewReader(count), count: count}
	cp.archives++
	u.id = cp.archives
	if compression == layer.None {
		src, at := origin(cp.src, from, info)
		u.plain = &ranges{open: part{src, at}.open}
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
	id    uint32 // of inodes that this archive made
	way   []step // to the directory of the current member

	// plain is set if the archive is not compressed: then contents stay in it.
	plain *ranges

	// spool takes the contents of any other archive, one after the other.
	spool   *os.File
	spooled *ranges
	used    int64
}

// step is a directory on the way to another.
type step struct {
	path string
	dir  *node
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
			for _, at := range slices.Backward(u.way) {
				u.pack(at.dir)
			}
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
	u.enterDir(at, dir)
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
	made.archive = u.id
	u.put(dir, last, &node{inode: u.newInode(made), single: true})
	return nil
}

// enterDir notes that the next members are in the directory at path, and packs
// those that they are not in any more.
func (u *unpacker) enterDir(path string, dir *node) {
	for last := len(u.way) - 1; last >= 0; last-- {
		at := u.way[last]
		if at.path == path {
			return
		}
		if at.path == "." || strings.HasPrefix(path, at.path+"/") {
			break
		}
		u.pack(at.dir)
		u.way = u.way[:last]
	}
	u.way = append(u.way, step{path, dir})
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
	if u.plain != nil && !isSparse(h) {
		i.from, i.at = u.plain, rangeName(u.count.n, h.Size)
		return nil
	}
	if u.spool == nil {
		f, err := sys.UnnamedFile(u.Temp)
		if err != nil {
			return err
		}
		u.Changes.spool = append(u.Changes.spool, f)
		u.spool = f
		u.spooled = &ranges{open: func(off, size int64) (fs.File, error) {
			return section{f, off, size}.Open("")
		}}
	}
	n, err := io.Copy(u.spool, u.tar)
	if err != nil {
		return err
	}
	i.from, i.at = u.spooled, rangeName(u.used, n)
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

// ranges are the contents of one archive, called by where they lie in it.
type ranges struct {
	section
	open func(off, size int64) (fs.File, error)
}

// rangeName is the name of the content that begins at off and has size bytes.
func rangeName(off, size int64) string { return fmt.Sprintf("%d+%d", off, size) }

// Open opens a content.
func (r *ranges) Open(name string) (fs.File, error) {
	begin, length, _ := strings.Cut(name, "+")
	off, err := strconv.ParseInt(begin, 10, 64)
	if err != nil {
		return nil, notExist("open", name)
	}
	size, err := strconv.ParseInt(length, 10, 64)
	if err != nil {
		return nil, notExist("open", name)
	}
	return r.open(off, size)
}

// part is a file that ranges are parts of.
type part struct {
	fsys FS
	at   string
}

// open opens size bytes of the file from off on.
func (p part) open(off, size int64) (fs.File, error) {
	f, err := p.fsys.Open(p.at)
	if err != nil {
		return nil, err
	}
	if r, ok := f.(io.ReaderAt); ok {
		return &partFile{f, io.NewSectionReader(r, off, size)}, nil
	}
	if _, err := io.CopyN(io.Discard, f, off); err != nil {
		f.Close()
		return nil, err
	}
	return &partFile{f, io.LimitReader(f, size)}, nil
}

type partFile struct {
	fs.File
	r io.Reader
}

func (p *partFile) Read(b []byte) (int, error) { return p.r.Read(b) }
