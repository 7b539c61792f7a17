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

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
)

// overlay stacks directories, into which each layer is unpacked once.
//
// The directory of a layer holds one tree a form, "trusted" or "user", and the
// file "lock". A tree is there whole or not at all: it is made aside under
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
		options: layer.UnpackOptions{UserXattr: true, NoDevices: true, NoOwner: sys.MappedIDs() <= 1},
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
	layers, root, err := visible(d.store, layers)
	if err != nil {
		return nil, err
	}
	lowers := make([]string, len(layers))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, l := range layers {
		group.Go(func() error {
			var err error
			if lowers[i], err = d.tree(ctx, l); err != nil {
				return fmt.Errorf("stack layer %s: %w", l, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := makeUpper(upper, work, root, !d.form.options.NoOwner); err != nil {
		return nil, err
	}
	return append([]sys.Mount{scratch(at)}, stack(lowers, at, upper, work, d.form.mount...)...), nil
}

// tree returns the directory that holds layer l, unpacked. It makes it if it is
// missing.
func (d overlay) tree(ctx context.Context, l digest.Digest) (string, error) {
	dir := d.store.TreeDir(l)
	tree := filepath.Join(dir, d.form.name)
	if _, err := os.Lstat(tree); !errors.Is(err, fs.ErrNotExist) {
		return tree, err
	}
	blob, err := d.store.Blob(l)
	if err != nil {
		return "", err
	}
	defer blob.Close()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	lock, err := sys.LockContext(ctx, filepath.Join(dir, "lock"), sys.Exclusive)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if _, err := os.Lstat(tree); !errors.Is(err, fs.ErrNotExist) {
		return tree, err // whoever had the lock before us made it
	}
	return tree, d.unpack(ctx, blob, tree)
}

// unpack makes tree. Its caller holds the lock.
func (d overlay) unpack(ctx context.Context, blob *store.Blob, tree string) error {
	dir, made := filepath.Dir(tree), tree+aside
	if err := os.RemoveAll(made); err != nil { // left by a process that was killed
		return err
	}
	if err := os.Mkdir(made, 0o700); err != nil {
		return err
	}
	options := d.form.options
	options.Warn = func(name string, err error) {
		slog.DebugContext(ctx, "attribute left out of an unpacked layer", "file", name, "error", err)
	}
	err := layer.Unpack(ctx, blob, made, options)
	if err == nil {
		err = sys.SyncFS(made)
	}
	if err == nil {
		err = sys.RenameNoReplace(made, tree)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(made))
	}
	return sys.SyncDir(dir)
}

// Forget removes the trees of layer l.
func (d overlay) Forget(_ context.Context, l digest.Digest) error {
	dir := d.store.TreeDir(l)
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
	if err := d.discard(dir); err != nil {
		return fmt.Errorf("forget layer %s: %w", l, err)
	}
	return nil
}

// discard removes the trees in dir, each under another name, so that half a
// tree never bears the name of a whole one.
func (d overlay) discard(dir string) error {
	for _, name := range []string{"trusted", "user", "single"} {
		tree := filepath.Join(dir, name)
		if _, err := os.Lstat(tree); errors.Is(err, fs.ErrNotExist) {
			continue
		}
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
