package tree

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/shaleproject/shale/internal/layer"
)

// Patch writes a layer of directories that makes overlayfs show layers as
// [Stack] does. overlayfs believes the topmost layer that has a directory, even
// where the layer only implies it; over such a directory the patch puts one
// with the right attributes, and those that lead to it. It reports whether
// there is any. It does not close w.
//
// A layer is searched only if it says that it [layer.FS.Implies] directories.
func Patch(ctx context.Context, w *layer.Writer, layers ...FS) (bool, error) {
	if len(layers) == 0 {
		return false, nil
	}
	s := Stack(layers...).(*stack)
	p := &patch{stack: s, dirs: map[string]fs.FileInfo{}}
	root, err := s.root()
	if err != nil {
		return false, err
	}
	if statOf(root.top).Implied && !sameAttr(root.top, root.info) {
		p.dirs["."] = root.info
	}
	for _, l := range layers {
		if i, ok := l.(interface{ Implies() bool }); ok && !i.Implies() {
			continue
		}
		if err := p.search(ctx, l, "."); err != nil {
			return false, fmt.Errorf("look for implied directories: %w", err)
		}
	}
	if len(p.dirs) == 0 {
		return false, nil
	}
	p.dirs["."] = root.info
	l := newLayerWriter(w, "")
	defer l.links.Close()
	return true, p.write(ctx, l)
}

type patch struct {
	stack *stack
	dirs  map[string]fs.FileInfo // to be written
}

// search looks at the directories below dir of one layer.
func (p *patch) search(ctx context.Context, l FS, dir string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := l.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		path := join(dir, e.Name())
		m, err := p.stack.lookup("lstat", path)
		if gone(err) || err == nil && !m.info.IsDir() {
			continue // a layer above hides it
		}
		if err != nil {
			return err
		}
		if !sameAttr(m.top, m.info) || !m.top.ModTime().Equal(m.info.ModTime()) {
			if err := p.add(path, m.info); err != nil {
				return err
			}
		}
		if err := p.search(ctx, l, path); err != nil {
			return err
		}
	}
	return nil
}

// add notes a directory and those that lead there.
func (p *patch) add(path string, info fs.FileInfo) error {
	p.dirs[path] = info
	for {
		path, _ = split(path)
		if _, known := p.dirs[path]; known || path == "." {
			return nil
		}
		m, err := p.stack.lookup("lstat", path)
		if err != nil {
			return err
		}
		p.dirs[path] = m.info
	}
}

// write writes the directories.
func (p *patch) write(ctx context.Context, l *layerWriter) error {
	for _, path := range slices.Sorted(maps.Keys(p.dirs)) {
		if err := l.member(ctx, path, attrOf(p.stack, path, p.dirs[path]), ""); err != nil {
			return err
		}
	}
	return nil
}
