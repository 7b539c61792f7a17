package tree

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/layer"
)

// WriteLayer writes what the edits changed as a layer over the base. It does not
// close w.
//
// The order is canonical: a directory comes before what it holds, names of one
// directory are sorted byte by byte, and a whiteout stands where the name that
// it hides would. Directories of the base are in the layer only if their own
// metadata changed.
func (c *Changes) WriteLayer(ctx context.Context, w *layer.Writer) error {
	l := newLayerWriter(w)
	if c.root.inode != nil && c.base != nil {
		info, err := c.base.Lstat(".")
		if err != nil {
			return err
		}
		if !c.root.sameMeta(info) {
			if err := l.file(ctx, ".", c.root.attr("."), ""); err != nil {
				return err
			}
		}
	}
	return c.writeKids(ctx, l, c.root, ".")
}

func (c *Changes) writeKids(ctx context.Context, l *layerWriter, dir *node, path string) error {
	for _, name := range slices.Sorted(maps.Keys(dir.kids)) {
		if err := c.writeNode(ctx, l, dir, dir.kids[name], join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

func (c *Changes) writeNode(ctx context.Context, l *layerWriter, dir, n *node, path string) error {
	if n.gone {
		return l.whiteout(path)
	}
	if n.inode != nil {
		var below fs.FileInfo
		if dir.merged && n.mode.IsDir() {
			var err error
			if below, err = c.base.Lstat(path); err != nil && !isNotExist(err) {
				return err
			}
		}
		if !n.merged || below == nil || !n.sameMeta(below) {
			_, name := split(path)
			if err := l.file(ctx, path, n.attr(name), n.target); err != nil {
				return err
			}
		}
		if n.mode.IsDir() && !n.merged && below != nil && below.IsDir() {
			if err := l.opaque(path); err != nil {
				return err
			}
		}
	}
	return c.writeKids(ctx, l, n, path)
}

// layerWriter turns files of a tree into members of a layer.
type layerWriter struct {
	w     *layer.Writer
	links map[uint64]string
}

func newLayerWriter(w *layer.Writer) *layerWriter {
	return &layerWriter{w: w, links: map[uint64]string{}}
}

func (l *layerWriter) whiteout(path string) error {
	if err := l.w.Whiteout(path); err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	return nil
}

func (l *layerWriter) opaque(path string) error {
	if err := l.w.Opaque(path); err != nil {
		return fmt.Errorf("write layer: %w", err)
	}
	return nil
}

// file writes one file, which lies at path of the layer, content and all. target
// is that of a symbolic link.
func (l *layerWriter) file(ctx context.Context, path string, a *attr, target string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, name := split(path)
	if strings.HasPrefix(name, ".wh.") {
		return fmt.Errorf("write layer: %s: %w", absolute(path),
			errdefs.ErrInvalidArgument.WithMessage("names that begin with .wh. mean deleted files in a layer"))
	}
	h, err := header(path, a, target)
	if err != nil {
		return err
	}
	if a.stat.Nlink > 1 && !a.mode.IsDir() {
		if first, ok := l.links[a.stat.Ino]; ok {
			h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
		} else {
			l.links[a.stat.Ino] = path
		}
	}
	if err := l.w.WriteHeader(h); err != nil {
		return fmt.Errorf("write layer: %w", err)
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
	n, err := l.w.ReadFrom(io.LimitReader(f, a.size))
	if err != nil {
		f.Close()
		return fmt.Errorf("write %s to the layer: %w", absolute(path), err)
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
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, target, 0o777
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
