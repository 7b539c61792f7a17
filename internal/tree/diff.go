package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"

	"github.com/shaleproject/shale/internal/layer"
)

// Diff writes the layer that turns lower into upper, in the order that
// [Changes.WriteLayer] describes. It does not close w.
//
// Files are equal if type, mode, owner, time, extended attributes and content
// are. The content is read unless both trees take it from the same place.
func Diff(ctx context.Context, lower, upper FS, w *layer.Writer) error {
	d := &differ{newLayerWriter(w, ""), lower, upper}
	defer d.links.Close()
	if err := d.enterRoot(ctx, lower, upper); err != nil {
		return err
	}
	return d.kids(ctx, ".")
}

// Archive writes all of fsys as one layer. It does not close w.
func Archive(ctx context.Context, fsys FS, w *layer.Writer) error {
	return Diff(ctx, Empty(), fsys, w)
}

type differ struct {
	*layerWriter
	lower, upper FS
}

// kids compares what a directory holds that both trees have.
func (d *differ) kids(ctx context.Context, path string) error {
	old, err := d.lower.ReadDir(path)
	if err != nil {
		return fmt.Errorf("compare %s: %w", absolute(path), err)
	}
	cur, err := d.upper.ReadDir(path)
	if err != nil {
		return fmt.Errorf("compare %s: %w", absolute(path), err)
	}
	for len(old) > 0 || len(cur) > 0 {
		switch {
		case len(cur) == 0 || len(old) > 0 && old[0].Name() < cur[0].Name():
			err, old = d.whiteout(ctx, join(path, old[0].Name())), old[1:]
		case len(old) == 0 || cur[0].Name() < old[0].Name():
			err, cur = d.addAll(ctx, join(path, cur[0].Name()), cur[0]), cur[1:]
		default:
			err = d.both(ctx, join(path, cur[0].Name()), old[0], cur[0])
			old, cur = old[1:], cur[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// both compares a name that both trees have.
func (d *differ) both(ctx context.Context, path string, oldEntry, curEntry fs.DirEntry) error {
	old, err := oldEntry.Info()
	if err != nil {
		return err
	}
	cur, err := curEntry.Info()
	if err != nil {
		return err
	}
	same := sameAttr(old, cur) && old.ModTime().Unix() == cur.ModTime().Unix()
	if old.IsDir() && cur.IsDir() {
		d.enter(&enteredDir{path: path, attr: attrOf(d.upper, path, cur)})
		defer d.leave()
		if !same {
			if err := d.flush(ctx); err != nil {
				return err
			}
		}
		return d.kids(ctx, path)
	}
	if cur.IsDir() {
		return d.addAll(ctx, path, curEntry)
	}
	if same {
		if same, err = d.sameContent(path, old, cur); err != nil {
			return fmt.Errorf("compare %s: %w", absolute(path), err)
		}
	}
	if same {
		return nil
	}
	return d.add(ctx, path, cur)
}

func (d *differ) addAll(ctx context.Context, path string, e fs.DirEntry) error {
	info, err := e.Info()
	if err != nil {
		return err
	}
	if err := d.add(ctx, path, info); err != nil || !info.IsDir() {
		return err
	}
	entries, err := d.upper.ReadDir(path)
	if err != nil {
		return fmt.Errorf("archive %s: %w", absolute(path), err)
	}
	for _, e := range entries {
		if err := d.addAll(ctx, join(path, e.Name()), e); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) add(ctx context.Context, path string, info fs.FileInfo) error {
	a := attrOf(d.upper, path, info)
	target := ""
	if a.mode.Type() == fs.ModeSymlink {
		var err error
		if target, err = d.upper.ReadLink(path); err != nil {
			return err
		}
	}
	return d.file(ctx, path, a, target)
}

func sameAttr(a, b fs.FileInfo) bool {
	x, y := statOf(a), statOf(b)
	return a.Mode() == b.Mode() && x.UID == y.UID && x.GID == y.GID && x.Rdev == y.Rdev &&
		(a.IsDir() || a.Size() == b.Size()) && maps.EqualFunc(x.Xattrs, y.Xattrs, bytes.Equal)
}

func (d *differ) sameContent(path string, old, cur fs.FileInfo) (bool, error) {
	switch cur.Mode().Type() {
	case 0:
	case fs.ModeSymlink:
		a, err := d.lower.ReadLink(path)
		if err != nil {
			return false, err
		}
		b, err := d.upper.ReadLink(path)
		return a == b, err
	default:
		return true, nil
	}
	oldFS, oldPath := origin(d.lower, path, old)
	curFS, curPath := origin(d.upper, path, cur)
	if oldPath == curPath && sameFS(oldFS, curFS) {
		return true, nil
	}
	a, err := oldFS.Open(oldPath)
	if err != nil {
		return false, err
	}
	defer a.Close()
	b, err := curFS.Open(curPath)
	if err != nil {
		return false, err
	}
	defer b.Close()
	return sameBytes(a, b)
}

func sameBytes(a, b io.Reader) (bool, error) {
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if errA != nil {
			return true, nil
		}
	}
}
