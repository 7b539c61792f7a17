package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/failure"
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

	// Keep is how many bytes of the cache may stay; cache mounts count first.
	Keep int64
}

// Pruned is what a prune has removed.
type Pruned struct {
	Records, Mounts, Failures int
	Reclaimed                 int64 // bytes
}

// smallCache is what may stay unless all is to go, in bytes: records of
// layers that images have anyway make builds quick and cost next to nothing.
const smallCache = 16 << 20

// Prune removes cached results and cache mounts that no build is using.
func (b *Builder) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	var out Pruned
	mounts, err := b.mounts()
	if err != nil {
		return out, fmt.Errorf("prune cache mounts: %w", err)
	}
	left, err := b.pruneMounts(ctx, o, mounts, &out)
	if err != nil {
		return out, fmt.Errorf("prune cache mounts: %w", err)
	}
	if o.Keep == 0 && o.Unused == 0 { // else they go by age and size, as other records
		if err := b.pruneFailures(ctx, &out); err != nil {
			return out, fmt.Errorf("prune failed steps: %w", err)
		}
	}
	collect := store.CollectOptions{CacheBudget: max(o.Keep-left, smallCache), CacheUnused: o.Unused, Now: b.Now()}
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

// pruneFailures removes the steps that failed and that nobody is looking into.
func (b *Builder) pruneFailures(ctx context.Context, out *Pruned) error {
	all, err := failure.All(ctx, b.Store)
	if err != nil {
		return err
	}
	for _, f := range all {
		size := failure.Size(b.Store, f.ID)
		removed, err := failure.Remove(b.Store, f.ID)
		if err != nil {
			return err
		}
		if removed {
			out.Failures++
			out.Reclaimed += size
		}
	}
	return nil
}

// cacheMount is the directory of a cache mount.
type cacheMount struct {
	name string
	size int64
	used time.Time
}

// mounts returns the cache mounts, least recently used first.
func (b *Builder) mounts() ([]cacheMount, error) {
	dir := ops.CacheMounts(b.Store)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var mounts []cacheMount
	for _, e := range entries {
		name, isLock := strings.CutSuffix(e.Name(), ".lock")
		if !isLock {
			continue
		}
		if info, err := e.Info(); err == nil {
			mounts = append(mounts, cacheMount{name, sizeOf(filepath.Join(dir, name)), info.ModTime()})
		}
	}
	slices.SortFunc(mounts, func(a, b cacheMount) int { return a.used.Compare(b.used) })
	return mounts, nil
}

// pruneMounts removes the directories of cache mounts that nobody has locked,
// least recently used first, and returns the bytes of those that stay. One
// goes under another name first, so that what is left of it after a crash is
// no cache mount.
func (b *Builder) pruneMounts(ctx context.Context, o PruneOptions, mounts []cacheMount, out *Pruned) (int64, error) {
	var left int64
	for _, m := range mounts {
		left += m.size
	}
	for _, m := range mounts {
		if err := context.Cause(ctx); err != nil {
			return left, err
		}
		if o.Unused > 0 && b.Now().Sub(m.used) < o.Unused || o.Keep > 0 && left <= o.Keep {
			continue
		}
		size, err := pruneMount(ops.CacheMounts(b.Store), m.name)
		if err != nil {
			return left, err
		}
		if size >= 0 {
			out.Mounts++
			out.Reclaimed += size
			left -= m.size
		}
	}
	return left, nil
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
