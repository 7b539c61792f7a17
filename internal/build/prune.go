package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/ops"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
)

// PruneOptions say what of the build cache goes. The zero value takes what
// costs space and is not in use.
type PruneOptions struct {
	// All takes records that cost nothing, too: images have their layers.
	All bool

	// Unused keeps what was used since then; 0 is no limit.
	Unused time.Duration

	// Keep is how many bytes of the cache may stay.
	Keep int64
}

// Pruned is what a prune has removed.
type Pruned struct {
	Records, Mounts int
	Reclaimed       int64 // bytes
}

// smallCache is what may stay unless all is to go, in bytes: records of
// layers that images have anyway make builds quick and cost next to nothing.
const smallCache = 16 << 20

// Prune removes cached results and cache mounts that no build is using.
func (b *Builder) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	var out Pruned
	if o.Keep == 0 {
		mounts, freed, err := b.pruneMounts(ctx, o.Unused)
		out.Mounts, out.Reclaimed = mounts, freed
		if err != nil {
			return out, fmt.Errorf("prune cache mounts: %w", err)
		}
	}
	collect := store.CollectOptions{CacheBudget: max(o.Keep, smallCache), CacheUnused: o.Unused, Now: b.Now()}
	switch {
	case o.Unused > 0 && o.Keep == 0:
		collect.CacheBudget = 1<<63 - 1 // age alone decides
	case o.All && o.Keep == 0:
		collect.CacheBudget = -1
	}
	report, err := b.Store.Collect(ctx, collect)
	out.Records = report.Records
	out.Reclaimed += report.Bytes
	if err == nil && report.Records > 0 {
		err = cache.Pruned(b.Store, b.Now())
	}
	return out, err
}

// pruneMounts removes the directories of cache mounts that nobody has locked.
// One goes under another name first, so that what is left of it after a crash
// is no cache mount.
func (b *Builder) pruneMounts(ctx context.Context, unused time.Duration) (n int, freed int64, err error) {
	dir := ops.CacheMounts(b.Store)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return n, freed, err
		}
		name, isLock := strings.CutSuffix(e.Name(), ".lock")
		if !isLock {
			continue
		}
		if info, err := e.Info(); err != nil || unused > 0 && b.Now().Sub(info.ModTime()) < unused {
			continue
		}
		size, err := pruneMount(dir, name)
		if err != nil {
			return n, freed, err
		}
		if size >= 0 {
			n++
			freed += size
		}
	}
	return n, freed, nil
}

// pruneMount returns the size of what it has removed; -1 if it was in use.
func pruneMount(dir, name string) (int64, error) {
	lock, err := sys.TryLock(filepath.Join(dir, name+".lock"), sys.Exclusive)
	if errdefs.IsUnavailable(err) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	defer lock.Close()
	place, aside := filepath.Join(dir, name), filepath.Join(dir, "new-"+name)
	if err := os.RemoveAll(aside); err != nil {
		return -1, err
	}
	if err := os.Rename(place, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return -1, err
	}
	size := sizeOf(aside)
	if err := os.RemoveAll(aside); err != nil {
		return -1, err
	}
	return size, lock.Remove()
}

// sizeOf adds up the files below dir; what can't be looked at counts nothing.
func sizeOf(dir string) (size int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			size += info.Size()
		}
		return nil
	})
	return size
}
