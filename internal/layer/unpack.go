package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/shaleproject/shale/internal/sys"
)

// UnpackOptions says how the files of a layer become files of the host. The
// zero value is for root.
type UnpackOptions struct {
	// UserXattr marks opaque directories with user.overlay.opaque, for
	// overlayfs mounted with "userxattr", instead of trusted.overlay.opaque.
	UserXattr bool

	// NoOwner leaves every file to the calling user.
	NoOwner bool

	// NoDevices leaves block and character devices out. Whiteouts stay.
	NoDevices bool

	// Warn, if not nil, hears of extended attributes that the file system
	// or the kernel did not take. If it is nil, they are errors.
	Warn func(name string, err error)
}

// Unpack writes the layer tar into dir, which must be empty, in the form that
// overlayfs wants of a lower directory: whiteouts are devices 0/0, opaque
// directories have an attribute. It never leaves dir, and what it makes
// equals what [FS] shows for the same tar, because it is made from that: all
// decisions about names are made before the first file.
//
// A tar that is an [io.ReaderAt] is read in place; any other is first copied
// to a file without a name in dir. Who has an index already uses [UnpackFS].
func Unpack(ctx context.Context, tar io.Reader, dir string, o UnpackOptions) (err error) {
	index, err := sys.UnnamedFile(dir)
	if err != nil {
		return fmt.Errorf("unpack layer: %w", err)
	}
	defer index.Close()
	x := NewIndexer(dir)
	defer x.Close()

	at, ok := tar.(io.ReaderAt)
	if ok {
		tar = &atReader{at, 0}
	} else {
		spool, err := sys.UnnamedFile(dir)
		if err != nil {
			return fmt.Errorf("unpack layer: %w", err)
		}
		defer spool.Close()
		at, tar = spool, io.TeeReader(tar, spool)
	}
	buf := make([]byte, 256<<10)
	if _, err := io.CopyBuffer(struct{ io.Writer }{x}, struct{ io.Reader }{withContext{ctx, tar}}, buf); err != nil {
		return fmt.Errorf("unpack layer: %w", err)
	}
	info, err := x.Finish(index)
	if err != nil {
		return fmt.Errorf("unpack layer: %w", err)
	}
	fsys, err := Open(index, info.IndexSize, at)
	if err != nil {
		return fmt.Errorf("unpack layer: %w", err)
	}
	return UnpackFS(ctx, fsys, dir, o)
}

// atReader reads a ReaderAt from its beginning.
type atReader struct {
	r   io.ReaderAt
	off int64
}

func (a *atReader) Read(p []byte) (int, error) {
	n, err := a.r.ReadAt(p, a.off)
	a.off += int64(n)
	return n, err
}

// withContext ends reading when ctx is done.
type withContext struct {
	ctx context.Context
	r   io.Reader
}

func (c withContext) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// UnpackFS does what [Unpack] does with a layer that is open.
func UnpackFS(ctx context.Context, layer *FS, dir string, o UnpackOptions) error {
	root, err := sys.OpenDir(dir)
	if err != nil {
		return fmt.Errorf("unpack layer: %w", err)
	}
	defer root.Close()
	u := &unpacker{
		ctx: ctx, o: o, fsys: layer, root: root,
		linked: map[uint64]string{}, buf: make([]byte, 256<<10),
	}
	fi, err := layer.Lstat(".")
	if err == nil {
		err = u.fill(root, ".", fi)
	}
	if err != nil {
		return fmt.Errorf("unpack layer: %w", err)
	}
	return nil
}

type unpacker struct {
	ctx    context.Context
	o      UnpackOptions
	fsys   *FS
	root   *sys.Dir
	linked map[uint64]string // the first name of each file with several
	buf    []byte
}

// fill makes all that a directory holds, then gives it its attributes. Until
// then nobody else may enter it.
func (u *unpacker) fill(dir *sys.Dir, name string, fi fs.FileInfo) error {
	list, err := u.fsys.ReadDir(name)
	if err != nil {
		return err
	}
	veils := false
	for _, e := range list {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		fi, err := e.Info()
		if err == nil {
			veils = veils || fi.Sys().(*Stat).Whiteout
			err = u.make(dir, path.Join(name, e.Name()), fi)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", path.Join(name, e.Name()), err)
		}
	}
	s := fi.Sys().(*Stat)
	uid, gid := int(s.UID), int(s.GID)
	if u.o.NoOwner {
		uid, gid = -1, -1
	}
	for attr, value := range s.Xattrs {
		if err := u.refused(name, dir.SetSelfXattr(attr, value)); err != nil {
			return err
		}
	}
	if s.Opaque {
		if err := u.mark(dir, opaqueXattr, "y"); err != nil {
			return err
		}
	}
	if veils {
		if err := u.mark(dir, originXattr, ""); err != nil {
			return err
		}
	}
	return noSuchOwner(s, dir.SetSelf(uid, gid, unixMode(fi.Mode())&0o7777, fi.ModTime()))
}

// noSuchOwner says what the kernel means with EINVAL: user_namespaces(7), "Set
// of user and group IDs".
func noSuchOwner(s *Stat, err error) error {
	if errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("owner %d:%d has no place in this user namespace: %w", s.UID, s.GID, err)
	}
	return err
}

// mark gives a directory an attribute that overlayfs reads.
func (u *unpacker) mark(dir *sys.Dir, attr, value string) error {
	if u.o.UserXattr {
		attr = "user." + strings.TrimPrefix(attr, "trusted.")
	}
	return dir.SetSelfXattr(attr, []byte(value))
}

// make makes one file in dir.
func (u *unpacker) make(dir *sys.Dir, name string, fi fs.FileInfo) error {
	s, base, mode := fi.Sys().(*Stat), fi.Name(), unixMode(fi.Mode())
	if s.Whiteout {
		return dir.Mknod(base, typeChar, 0)
	}
	if s.Nlink > 1 && !fi.IsDir() {
		if first, ok := u.linked[s.Ino]; ok {
			return u.link(dir, first, base)
		}
		u.linked[s.Ino] = name
	}
	var err error
	switch mode & typeMask {
	case typeDir:
		if err := dir.Mkdir(base, 0o700); err != nil {
			return err
		}
		sub, err := dir.Dir(base)
		if err != nil {
			return err
		}
		defer sub.Close()
		return u.fill(sub, name, fi)
	case typeRegular:
		err = u.write(dir, name)
	case typeSymlink:
		var target string
		if target, err = u.fsys.ReadLink(name); err == nil {
			err = dir.Symlink(target, base)
		}
	case typeFifo:
		err = dir.Mknod(base, typeFifo|0o600, 0)
	default:
		if u.o.NoDevices {
			delete(u.linked, s.Ino)
			return nil
		}
		err = dir.Mknod(base, mode&typeMask|0o600, s.Rdev)
	}
	if err != nil {
		return err
	}
	return u.attributes(dir, name, fi, mode)
}

// attributes gives a new file what belongs to it. The order matters: a change
// of the owner takes setuid and capabilities away.
func (u *unpacker) attributes(dir *sys.Dir, name string, fi fs.FileInfo, mode uint32) error {
	s, base := fi.Sys().(*Stat), fi.Name()
	if !u.o.NoOwner {
		if err := dir.Chown(base, s.UID, s.GID); err != nil {
			return noSuchOwner(s, err)
		}
	}
	if mode&typeMask != typeSymlink {
		if err := dir.Chmod(base, mode&0o7777); err != nil {
			return err
		}
	}
	for attr, value := range s.Xattrs {
		if err := u.refused(name, dir.SetXattr(base, attr, value)); err != nil {
			return err
		}
	}
	return dir.SetModTime(base, fi.ModTime())
}

// refused makes a warning of an error, if somebody listens.
func (u *unpacker) refused(name string, err error) error {
	if err == nil || u.o.Warn == nil {
		return err
	}
	u.o.Warn(name, err)
	return nil
}

// write makes a regular file. Holes stay holes.
func (u *unpacker) write(dir *sys.Dir, name string) (err error) {
	src, err := u.fsys.Open(name)
	if err != nil {
		return err
	}
	from := src.(*File)
	to, err := dir.Open(path.Base(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := to.Close(); err == nil {
			err = closeErr
		}
	}()
	var off int64
	for off < from.Size() {
		e, err := u.fsys.extent(from.in, off)
		if err != nil {
			return err
		}
		if e.where == nothing {
			off += e.size
			continue
		}
		for left := e.size; left > 0; {
			n := min(left, int64(len(u.buf)))
			if _, err := u.fsys.readExtent(u.buf[:n], e); err != nil {
				return err
			}
			if _, err := to.WriteAt(u.buf[:n], off); err != nil {
				return err
			}
			off, left, e.at = off+n, left-n, e.at+n
		}
	}
	if n := to.Truncate; from.in.size > 0 && u.endsInHole(from) {
		return n(from.in.size)
	}
	return nil
}

func (u *unpacker) endsInHole(f *File) bool {
	e, err := u.fsys.extent(f.in, f.in.size-1)
	return err == nil && e.where == nothing
}

// link gives a file that has been made one more name.
func (u *unpacker) link(dir *sys.Dir, first, base string) error {
	at := u.root
	parts := strings.Split(first, "/")
	for _, part := range parts[:len(parts)-1] {
		next, err := at.Dir(part)
		if at != u.root {
			at.Close()
		}
		if err != nil {
			return err
		}
		at = next
	}
	if at != u.root {
		defer at.Close()
	}
	return dir.Link(at, parts[len(parts)-1], base)
}

// unixMode translates a mode of io/fs.
func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for _, bit := range []struct {
		flag fs.FileMode
		mode uint32
	}{{fs.ModeSetuid, syscall.S_ISUID}, {fs.ModeSetgid, syscall.S_ISGID}, {fs.ModeSticky, syscall.S_ISVTX}} {
		if m&bit.flag != 0 {
			mode |= bit.mode
		}
	}
	switch m.Type() {
	case fs.ModeDir:
		mode |= typeDir
	case fs.ModeSymlink:
		mode |= typeSymlink
	case fs.ModeNamedPipe:
		mode |= typeFifo
	case fs.ModeDevice:
		mode |= typeBlock
	case fs.ModeDevice | fs.ModeCharDevice:
		mode |= typeChar
	case 0:
		mode |= typeRegular
	}
	return mode
}
