package tree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/layer"
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
		made.xattrs = addedTo(statOf(kid.info).Xattrs, made.xattrs)
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
