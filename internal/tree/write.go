package tree

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/sys"
)

// WriteLayer writes what the edits changed as a layer over the base. It does not
// close w.
//
// The order is canonical: a directory comes before what it holds, names of one
// directory are sorted byte by byte, and a whiteout stands where the name that
// it hides would.
//
// A directory of the base is in the layer, with the metadata it has there, if
// something below it is, and only then. Leaving it out would be smaller, but
// overlayfs takes the metadata of a merged directory from the topmost layer,
// where a directory that is only implied has none. BuildKit's layers have these
// directories, too, though with the time of the build.
func (c *Changes) WriteLayer(ctx context.Context, w *layer.Writer) error {
	l := newLayerWriter(w, c.Temp)
	defer l.links.Close()
	base := c.base
	if base == nil {
		base = Empty()
	}
	if err := l.enterRoot(ctx, base, c.FS()); err != nil {
		return err
	}
	return c.writeKids(ctx, l, c.root, ".")
}

func (c *Changes) writeKids(ctx context.Context, l *layerWriter, dir *node, path string) error {
	return dir.each(func(name string, kid *node) error {
		return c.writeNode(ctx, l, dir, kid, join(path, name))
	})
}

func (c *Changes) writeNode(ctx context.Context, l *layerWriter, dir, n *node, path string) error {
	if n.gone {
		return l.whiteout(ctx, path)
	}
	_, name := split(path)
	if !n.isDir() {
		return l.file(ctx, path, n.attr(name), n.target)
	}
	var below fs.FileInfo // what the base has there
	if dir.merged {
		info, err := c.base.Lstat(path)
		if err != nil && !isNotExist(err) {
			return err
		}
		if err == nil {
			below = info
		}
	}
	d := &enteredDir{path: path}
	if n.inode == nil {
		d.attr = attrOf(c.base, path, below)
	} else {
		d.attr = n.attr(name)
	}
	l.enter(d)
	defer l.leave()
	if n.inode != nil && (!n.merged || !n.sameMeta(below)) {
		if err := l.flush(ctx); err != nil {
			return err
		}
	}
	if !n.merged && below != nil && below.IsDir() {
		if err := l.w.Opaque(path); err != nil {
			return err
		}
	}
	return c.writeKids(ctx, l, n, path)
}

// attrOf is info, found at path in fsys, in our own form.
func attrOf(fsys FS, path string, info fs.FileInfo) *attr {
	from, at := origin(fsys, path, info)
	_, name := split(path)
	return &attr{
		name: name, mode: info.Mode(), size: info.Size(), mtime: info.ModTime(),
		stat: statOf(info), from: from, at: at,
	}
}

// layerWriter turns files of a tree into members of a layer.
type layerWriter struct {
	w     *layer.Writer
	links linkNames
	dirs  []*enteredDir // that lead to the current member
}

// enteredDir is a directory that is written as soon as something in it is.
type enteredDir struct {
	path    string
	attr    *attr
	written bool
}

// newLayerWriter returns a layerWriter that keeps names in temp. The caller closes
// its links.
func newLayerWriter(w *layer.Writer, temp string) *layerWriter {
	return &layerWriter{w: w, links: linkNames{Spill: sys.Spill{Dir: temp}}}
}

func (l *layerWriter) enter(d *enteredDir) { l.dirs = append(l.dirs, d) }
func (l *layerWriter) leave()              { l.dirs = l.dirs[:len(l.dirs)-1] }

// enterRoot enters the root of fsys, which is to be laid over lower. It gets a
// member if it is another than that of lower, and, since other engines don't ask
// the layer below about it, with the first file if it is none that they would
// make up. The time says nothing about a root.
func (l *layerWriter) enterRoot(ctx context.Context, lower, fsys FS) error {
	below, err := lower.Lstat(".")
	if err != nil {
		return err
	}
	info, err := fsys.Lstat(".")
	if err != nil {
		return err
	}
	usual := &attr{mode: fs.ModeDir | 0o755, stat: &layer.Stat{}}
	l.enter(&enteredDir{path: ".", attr: attrOf(fsys, ".", info), written: sameAttr(usual, info)})
	if sameAttr(below, info) {
		return nil
	}
	l.dirs[0].written = false
	return l.flush(ctx)
}

// flush writes the directories that were entered.
func (l *layerWriter) flush(ctx context.Context) error {
	for _, d := range l.dirs {
		if d.written {
			continue
		}
		d.written = true
		if err := l.member(ctx, d.path, d.attr, ""); err != nil {
			return err
		}
	}
	return nil
}

func (l *layerWriter) whiteout(ctx context.Context, path string) error {
	if err := l.flush(ctx); err != nil {
		return err
	}
	return l.w.Whiteout(path)
}

// file writes one file, which lies at path of the layer, content and all. target
// is that of a symbolic link.
func (l *layerWriter) file(ctx context.Context, path string, a *attr, target string) error {
	if err := l.flush(ctx); err != nil {
		return err
	}
	return l.member(ctx, path, a, target)
}

func (l *layerWriter) member(ctx context.Context, path string, a *attr, target string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h, err := header(path, a, target)
	if err != nil {
		return err
	}
	if a.stat.Nlink > 1 && !a.mode.IsDir() {
		first, again, err := l.links.first(a.stat.Ino, path)
		if err != nil {
			return err
		}
		if again {
			h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
		}
	}
	if err := l.w.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg || a.size == 0 {
		return nil
	}
	return l.content(path, a)
}

func (l *layerWriter) content(path string, a *attr) error {
	f, err := a.from.Open(a.at)
	if err != nil {
		return fmt.Errorf("read %s: %w", absolute(path), classed(err))
	}
	n, err := l.w.ReadFrom(f)
	if err != nil {
		f.Close()
		return fmt.Errorf("copy %s to the layer: %w", absolute(path), err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("read %s: %w", absolute(path), err)
	}
	if n != a.size {
		return fmt.Errorf("read %s: %d of %d bytes: %w: %w", absolute(path), n, a.size, io.ErrUnexpectedEOF, errdefs.ErrAborted)
	}
	return nil
}

func header(path string, a *attr, target string) (*tar.Header, error) {
	h := &tar.Header{
		Name: path, Mode: int64(unixMode(a.mode)),
		Uid: int(a.stat.UID), Gid: int(a.stat.GID), ModTime: time.Unix(a.mtime.Unix(), 0),
	}
	if len(a.stat.Xattrs) > 0 {
		h.PAXRecords = make(map[string]string, len(a.stat.Xattrs))
		for name, value := range a.stat.Xattrs {
			h.PAXRecords[xattrRecord+name] = string(value)
		}
	}
	switch a.mode.Type() {
	case 0:
		h.Typeflag, h.Size = tar.TypeReg, a.size
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, path+"/"
	case fs.ModeSymlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case fs.ModeNamedPipe:
		h.Typeflag = tar.TypeFifo
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		h.Typeflag = tar.TypeBlock
		if a.mode&fs.ModeCharDevice != 0 {
			h.Typeflag = tar.TypeChar
		}
		h.Devmajor, h.Devminor = major(a.stat.Rdev), minor(a.stat.Rdev)
	default:
		return nil, fmt.Errorf("write layer: %s: %w", absolute(path),
			errdefs.ErrInvalidArgument.WithMessage("a layer cannot hold a file of type "+a.mode.Type().String()))
	}
	return h, nil
}
