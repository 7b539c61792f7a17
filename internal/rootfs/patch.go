package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
	"github.com/shaleproject/shale/internal/tree"
)

// A patch is a tree of directories, mostly tiny, that goes between two layers
// of a stack. overlayfs takes the attributes of a directory from the topmost
// layer that has it, even if the tar of that layer only implies it; the patch
// right above has those of the layer below ([tree.Patch]).
//
// It depends on all layers below it, lies in the directory of trees of the
// highest of them, and goes with that. Where nothing differs it is an empty
// file, so that nobody searches again.
type patch struct {
	dir string // "" if the stack needs none
	at  int    // it lies over that many lowers
}

// over returns lowers with the patch in its place.
func (p patch) over(lowers []string) []string {
	if p.dir == "" {
		return lowers
	}
	return slices.Insert(slices.Clone(lowers), p.at, p.dir)
}

// patch returns the patch that s needs, and makes it if it is missing. The
// root needs one only where no upper directory covers it.
func (at *shown) patch(ctx context.Context, s *store.Store, f form, rootToo bool) (patch, error) {
	over := at.implies
	if rootToo && at.implied && !usualRoot(at.root) {
		over = len(at.layers)
	}
	if over <= 1 { // the lowest layer has no other to take attributes from
		return patch{}, nil
	}
	below := at.layers[:over]
	name := digest.FromString("shale patch 1 " + fmt.Sprint(below)).Encoded()
	p := patch{
		dir: filepath.Join(s.TreeDir(below[over-1]), f.name+"-patch-"+name),
		at:  over - (len(at.layers) - len(at.visible)),
	}
	info, err := os.Lstat(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		info, err = makePatch(ctx, s, f, below, p.dir)
	}
	if err != nil {
		return patch{}, fmt.Errorf("patch layer %s: %w", below[over-1], err)
	}
	if !info.IsDir() {
		return patch{}, nil
	}
	return p, nil
}

// usualRoot reports whether an implied root looks like root. Its time tells
// nobody anything.
func usualRoot(root fs.FileInfo) bool {
	st := root.Sys().(*layer.Stat)
	return root.Mode() == fs.ModeDir|0o755 && st.UID == 0 && st.GID == 0 && len(st.Xattrs) == 0
}

// makePatch makes the patch over layers at path.
func makePatch(ctx context.Context, s *store.Store, f form, layers []digest.Digest, path string) (info fs.FileInfo, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := sys.LockContext(ctx, filepath.Join(dir, "lock"), sys.Exclusive)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if info, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return info, err // whoever had the lock before us made it
	}
	if err := os.RemoveAll(path + aside); err != nil { // left by a process that was killed
		return nil, err
	}
	if err := unpackPatch(ctx, s, f, layers, path+aside); err != nil {
		return nil, errors.Join(err, os.RemoveAll(path+aside))
	}
	if err := sys.RenameNoReplace(path+aside, path); err != nil {
		return nil, err
	}
	if err := sys.SyncDir(dir); err != nil {
		return nil, err
	}
	return os.Lstat(path)
}

// unpackPatch writes the patch over layers to path, and to the disk.
func unpackPatch(ctx context.Context, s *store.Store, f form, layers []digest.Digest, path string) error {
	var archive bytes.Buffer
	w := layer.NewWriter(&archive)
	needed, err := writePatch(ctx, s, w, layers)
	if err != nil {
		return err
	}
	if !needed {
		return os.WriteFile(path, nil, 0o400)
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if err := layer.Unpack(ctx, bytes.NewReader(archive.Bytes()), path, f.unpacking(ctx)); err != nil {
		return err
	}
	return sys.SyncFS(s.Root())
}

func writePatch(ctx context.Context, s *store.Store, w *layer.Writer, layers []digest.Digest) (needed bool, err error) {
	var open []tree.FS
	for _, d := range layers {
		l, err := s.Layer(d)
		if err != nil {
			return false, err
		}
		defer l.Close()
		open = append(open, l)
	}
	return tree.Patch(ctx, w, open...)
}
