package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/sys"
)

// UpperOptions says how an upper directory becomes a layer.
type UpperOptions struct {
	// Epoch, if not nil, is the latest modification time that a member may
	// have; later ones are set to it (SOURCE_DATE_EPOCH).
	Epoch *time.Time

	// Below, if not nil, is what the upper lay over. The layer has a member
	// for its root if the upper's is another by now than the one below: in
	// mode, owner or extended attributes, not in time alone. In a user
	// namespace with a single id, where every file seems to belong to root,
	// what was there before has the owner that it has below.
	Below interface {
		Lstat(name string) (fs.FileInfo, error)
	}

	// Skip, if not nil, says of a name whether to leave it out, together
	// with what lies below it: mount points that the run made, say.
	Skip func(name string) bool

	// Warn, if not nil, hears of what a layer cannot hold: sockets, and
	// extended attributes with an equals sign in their name.
	Warn func(name string, err error)
}

// FromUpper writes what the upper directory of an overlayfs holds as a layer,
// sorted by name: its whiteouts and opaque directories become those of the
// layer, its own attributes are dropped. The upper must not be mounted for
// writing meanwhile.
//
// An upper that refers to lower layers, as overlayfs makes it with redirect_dir
// or metacopy, is an [errdefs.ErrFailedPrecondition].
func FromUpper(ctx context.Context, w *Writer, upper string, o UpperOptions) error {
	dir, err := sys.OpenDir(upper)
	if err != nil {
		return fmt.Errorf("read upper directory: %w", err)
	}
	defer dir.Close()
	u := &upperReader{ctx: ctx, w: w, o: o, linked: map[[2]uint64]string{}, alone: sys.OneID()}
	if err := u.root(dir); err != nil {
		return fmt.Errorf("read upper directory: %w", err)
	}
	if err := u.dir(dir, "."); err != nil {
		return fmt.Errorf("read upper directory: %w", err)
	}
	return nil
}

type upperReader struct {
	ctx    context.Context
	w      *Writer
	o      UpperOptions
	linked map[[2]uint64]string // device and inode to the first name
	alone  bool                 // there is a single id
}

// overlayAttrs is what overlayfs says about a file in an upper directory, in
// the name space of root or of users (Documentation/filesystems/overlayfs.rst).
type overlayAttrs struct {
	opaque   bool
	whiteout bool
	copied   bool   // it was copied up, and is no new file
	refers   string // the attribute that makes the file incomplete
}

// split takes the attributes of overlayfs, and those that belong to the
// machine, out of attrs.
func splitAttrs(attrs map[string][]byte) (o overlayAttrs) {
	for name, value := range attrs {
		rest, user := strings.CutPrefix(name, "user.overlay.")
		if !user {
			var trusted bool
			if rest, trusted = strings.CutPrefix(name, "trusted.overlay."); !trusted {
				if name == "security.selinux" {
					delete(attrs, name)
				}
				continue
			}
		}
		delete(attrs, name)
		switch rest {
		case "opaque":
			o.opaque = o.opaque || string(value) == "y"
		case "whiteout":
			o.whiteout = true
		case "origin":
			o.copied = true
		case "redirect", "metacopy":
			o.refers = name
		}
	}
	return o
}

// root writes the root directory if it changed.
func (u *upperReader) root(d *sys.Dir) error {
	if u.o.Below == nil {
		return nil
	}
	below, err := u.o.Below.Lstat(".")
	if err != nil {
		return err
	}
	st, err := d.Self()
	if err != nil {
		return err
	}
	attrs, err := d.SelfXattrs()
	if err != nil {
		return err
	}
	splitAttrs(attrs)
	was := below.Sys().(*Stat)
	if u.alone {
		st.UID, st.GID = was.UID, was.GID
	}
	if sys.InUserNamespace() {
		for name, value := range was.Xattrs {
			if !strings.HasPrefix(name, "user.") { // only root could have kept it
				attrs[name] = value
			}
		}
	}
	if st.Mode&0o7777 == unixMode(below.Mode())&0o7777 && st.UID == was.UID && st.GID == was.GID &&
		maps.EqualFunc(attrs, was.Xattrs, bytes.Equal) {
		return nil
	}
	h := u.header(".", st, attrs)
	h.Typeflag = tar.TypeDir
	return u.w.WriteHeader(h)
}

// dir writes what a directory holds.
func (u *upperReader) dir(d *sys.Dir, name string) error {
	names, err := d.Names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, base := range names {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		full := path.Join(name, base)
		if u.o.Skip != nil && u.o.Skip(full) {
			continue
		}
		if err := u.file(d, base, full); err != nil {
			return err
		}
	}
	return nil
}

// file writes one file, and what is below it.
func (u *upperReader) file(d *sys.Dir, base, full string) error {
	st, err := d.Stat(base)
	if err != nil {
		return err
	}
	if st.Mode&typeMask == typeChar && st.Rdev == 0 {
		return u.w.Whiteout(full)
	}
	attrs, err := d.Xattrs(base)
	if err != nil {
		return err
	}
	o := splitAttrs(attrs)
	switch {
	case o.refers != "":
		return fmt.Errorf("%q: %s refers to another layer: %w", full, o.refers, errdefs.ErrFailedPrecondition)
	case o.whiteout && st.Mode&typeMask == typeRegular && st.Size == 0:
		return u.w.Whiteout(full)
	}
	if o.copied && u.alone {
		u.ownerBelow(full, &st)
	}
	h := u.header(full, st, attrs)
	key := [2]uint64{st.Dev, st.Ino}
	if first, ok := u.linked[key]; ok {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		return u.w.WriteHeader(h)
	}
	if st.Nlink > 1 && st.Mode&typeMask != typeDir {
		u.linked[key] = full
	}
	switch st.Mode & typeMask {
	case typeRegular:
		return u.regular(d, base, h)
	case typeDir:
		return u.directory(d, base, h, o.opaque)
	case typeSymlink:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = d.Readlink(base); err != nil {
			return err
		}
	case typeChar, typeBlock:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(st.Major), int64(st.Minor)
		if st.Mode&typeMask == typeBlock {
			h.Typeflag = tar.TypeBlock
		}
	case typeFifo:
		h.Typeflag = tar.TypeFifo
	default:
		delete(u.linked, key)
		u.warn(full, fmt.Errorf("a layer cannot hold a socket: %w", errdefs.ErrNotImplemented))
		return nil
	}
	return u.w.WriteHeader(h)
}

// ownerBelow gives st the owner that the file has below, if it is there.
func (u *upperReader) ownerBelow(full string, st *sys.Inode) {
	if u.o.Below == nil {
		return
	}
	below, err := u.o.Below.Lstat(full)
	if err != nil || uint32(unixMode(below.Mode()))&typeMask != st.Mode&typeMask {
		return // it had another name
	}
	was := below.Sys().(*Stat)
	st.UID, st.GID = was.UID, was.GID
}

func (u *upperReader) warn(full string, err error) {
	if u.o.Warn != nil {
		u.o.Warn(full, err)
	}
}

func (u *upperReader) header(full string, st sys.Inode, attrs map[string][]byte) *tar.Header {
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: full, Mode: int64(st.Mode & 0o7777),
		Uid: int(st.UID), Gid: int(st.GID), ModTime: st.ModTime,
	}
	if u.o.Epoch != nil && h.ModTime.After(*u.o.Epoch) {
		h.ModTime = *u.o.Epoch
	}
	if len(attrs) > 0 {
		h.PAXRecords = make(map[string]string, len(attrs))
		for name, value := range attrs {
			if strings.Contains(name, "=") { // a record ends its key there
				u.warn(full, fmt.Errorf("a layer cannot hold the extended attribute %s: %w", name, errdefs.ErrNotImplemented))
				continue
			}
			h.PAXRecords[paxXattr+name] = string(value)
		}
	}
	return h
}

func (u *upperReader) directory(d *sys.Dir, base string, h *tar.Header, opaque bool) error {
	h.Typeflag = tar.TypeDir
	if err := u.w.WriteHeader(h); err != nil {
		return err
	}
	if opaque {
		if err := u.w.Opaque(h.Name); err != nil {
			return err
		}
	}
	sub, err := d.Dir(base)
	if err != nil {
		return err
	}
	defer sub.Close()
	return u.dir(sub, h.Name)
}

func (u *upperReader) regular(d *sys.Dir, base string, h *tar.Header) error {
	f, err := d.Open(base, 0, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	h.Size = fi.Size()
	if err := u.w.WriteHeader(h); err != nil {
		return err
	}
	n, err := u.w.ReadFrom(f)
	if err == nil && n < h.Size {
		err = fmt.Errorf("read %q: %w", h.Name, io.ErrUnexpectedEOF)
	}
	return err
}
