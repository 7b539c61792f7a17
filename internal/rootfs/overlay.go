package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
)

// overlay stacks directories, into which each layer is unpacked once.
//
// The directory of a layer holds one tree a form, "trusted" or "user", patches
// and the file "lock". A tree is there whole or not at all: it is made aside under
// the lock, synced and renamed.
type overlay struct {
	store *store.Store
	form  form
}

// aside is the end of the names of trees that are being made or removed.
const aside = ".aside"

// form is what a tree has to be like for whoever mounts it.
type form struct {
	name    string
	options layer.UnpackOptions
	mount   []string
}

// ownForm returns the form that this process can make and mount.
func ownForm() form {
	if !sys.InUserNamespace() {
		return form{name: "trusted"}
	}
	f := form{
		name:    "user",
		options: layer.UnpackOptions{UserXattr: true, NoDevices: true, NoOwner: sys.OneID()},
		mount:   []string{"userxattr"},
	}
	if f.options.NoOwner {
		f.name = "single"
	}
	return f
}

func newOverlay(s *store.Store) overlay { return overlay{store: s, form: ownForm()} }

func (d overlay) Name() string { return "overlay" }

func (d overlay) Stack(ctx context.Context, layers []digest.Digest, at, upper, work string) ([]sys.Mount, error) {
	s, err := look(d.store, layers)
	if err != nil {
		return nil, err
	}
	if err := d.unpackMissing(ctx, s.visible); err != nil {
		return nil, err
	}
	patch, err := s.patch(ctx, d.store, d.form, upper == "")
	if err != nil {
		return nil, err
	}
	var lowers []string
	for _, l := range s.visible {
		lowers = append(lowers, d.tree(l))
	}
	if err := makeUpper(upper, work, s.root, !d.form.options.NoOwner); err != nil {
		return nil, err
	}
	return append([]sys.Mount{scratch(at)}, stack(patch.over(lowers), at, upper, work, d.form.mount...)...), nil
}

// tree is where layer l lies unpacked, or will.
func (d overlay) tree(l digest.Digest) string {
	return filepath.Join(d.store.TreeDir(l), d.form.name)
}

func (d overlay) has(l digest.Digest) (bool, error) {
	_, err := os.Lstat(d.tree(l))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// unpackMissing makes the trees that are missing among those of layers. They
// are synced together: syncfs takes as long for one as for all.
func (d overlay) unpackMissing(ctx context.Context, layers []digest.Digest) (err error) {
	missing, locks, err := d.lockMissing(ctx, layers)
	defer func() {
		for _, lock := range locks {
			err = errors.Join(err, lock.Close())
		}
	}()
	if err != nil || len(missing) == 0 {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, l := range missing {
		group.Go(func() error {
			if err := d.unpack(ctx, l); err != nil {
				return fmt.Errorf("unpack layer %s: %w", l, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		for _, l := range missing {
			err = errors.Join(err, os.RemoveAll(d.tree(l)+aside))
		}
		return err
	}
	if err := sys.SyncFS(d.store.Root()); err != nil {
		return err
	}
	for _, l := range missing {
		if err := sys.RenameNoReplace(d.tree(l)+aside, d.tree(l)); err != nil {
			return err
		}
		if err := sys.SyncDir(d.store.TreeDir(l)); err != nil {
			return err
		}
	}
	return nil
}

// lockMissing returns those of layers that have no tree, each locked. Locks
// are taken in the order of the digests, so that no two processes wait for each
// other. They belong to the caller, after an error too.
func (d overlay) lockMissing(ctx context.Context, layers []digest.Digest) (missing []digest.Digest, locks []*sys.FileLock, err error) {
	for _, l := range slices.Sorted(slices.Values(layers)) {
		if there, err := d.has(l); there || err != nil {
			if err != nil {
				return nil, locks, err
			}
			continue
		}
		dir := d.store.TreeDir(l)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, locks, err
		}
		lock, err := sys.LockContext(ctx, filepath.Join(dir, "lock"), sys.Exclusive)
		if err != nil {
			return nil, locks, err
		}
		there, err := d.has(l)
		if there || err != nil { // whoever had the lock before us made it
			err = errors.Join(err, lock.Close())
			if err != nil {
				return nil, locks, err
			}
			continue
		}
		missing, locks = append(missing, l), append(locks, lock)
	}
	return missing, locks, nil
}

// unpack unpacks layer l beside the place of its tree. Its caller holds the lock.
func (d overlay) unpack(ctx context.Context, l digest.Digest) error {
	source, err := d.store.Layer(l)
	if err != nil {
		return err
	}
	defer source.Close()
	made := d.tree(l) + aside
	if err := os.RemoveAll(made); err != nil { // left by a process that was killed
		return err
	}
	if err := os.Mkdir(made, 0o700); err != nil {
		return err
	}
	return layer.UnpackFS(ctx, source.FS, made, d.form.unpacking(ctx))
}

// unpacking returns the options of f with attributes that can't be kept logged.
func (f form) unpacking(ctx context.Context) layer.UnpackOptions {
	o := f.options
	o.Warn = func(name string, err error) {
		slog.DebugContext(ctx, "attribute left out of an unpacked layer", "file", name, "error", err)
	}
	return o
}

// Forget removes the trees of layer l.
func (d overlay) Forget(_ context.Context, l digest.Digest) error { return forget(d.store, l) }

// forget removes what lies in the directory of trees of layer l.
func forget(s *store.Store, l digest.Digest) error {
	dir := s.TreeDir(l)
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := sys.TryLock(filepath.Join(dir, "lock"), sys.Exclusive)
	if errdefs.IsUnavailable(err) {
		return fmt.Errorf("forget layer %s: it is being unpacked: %w", l, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return fmt.Errorf("forget layer %s: %w", l, err)
	}
	defer lock.Close()
	used, err := sys.Mounted(dir)
	if err != nil {
		return fmt.Errorf("forget layer %s: %w", l, err)
	}
	if used {
		return fmt.Errorf("forget layer %s: it is mounted: %w", l, errdefs.ErrFailedPrecondition)
	}
	if err := discard(dir); err != nil {
		return fmt.Errorf("forget layer %s: %w", l, err)
	}
	return nil
}

// discard removes the trees in dir, each under another name, so that half a
// tree never bears the name of a whole one.
func discard(dir string) error {
	trees, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, t := range trees {
		if t.Name() == "lock" || strings.HasSuffix(t.Name(), aside) {
			continue
		}
		tree := filepath.Join(dir, t.Name())
		if err := os.RemoveAll(tree + aside); err != nil {
			return err
		}
		if err := os.Rename(tree, tree+aside); err != nil {
			return err
		}
	}
	if err := sys.SyncDir(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}
