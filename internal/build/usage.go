package build

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/failure"
	"github.com/shaleproject/shale/internal/store"
)

// CacheEntry is one thing that the build cache keeps.
type CacheEntry struct {
	ID          string // of the step's record, or the cache mount
	Kind        string // in BuildKit's words: "regular" (a step), "exec.cachemount", "internal"
	Description string
	Size        int64 // bytes that the step added; of a mount, all of it
	Shared      bool  // an image has its layers, too: removing it frees nothing
	Created     time.Time
	Used        time.Time
}

// Usage lists what the build cache keeps, the most recently used first.
// Records of one result count once.
func (b *Builder) Usage(ctx context.Context) ([]CacheEntry, error) {
	entries, err := b.stepUsage(ctx)
	if err != nil {
		return nil, fmt.Errorf("measure build cache: %w", err)
	}
	mounts, err := b.mounts()
	if err != nil {
		return nil, fmt.Errorf("measure build cache: %w", err)
	}
	for _, m := range mounts {
		entries = append(entries, CacheEntry{
			ID: m.name, Kind: "exec.cachemount", Description: "RUN --mount=type=cache", Size: m.size, Created: m.used, Used: m.used,
		})
	}
	failures, err := b.Failures(ctx)
	if err != nil {
		return nil, fmt.Errorf("measure build cache: %w", err)
	}
	for _, f := range failures {
		entries = append(entries, CacheEntry{
			ID: f.ID, Kind: "exec.failed", Description: f.Step, Size: failure.Size(b.Store, f.ID), Created: f.At, Used: f.At,
		})
	}
	for kind, what := range map[string]string{"stat": "digests of the files of a context", "journal": "what the keys of steps were made of"} {
		err := b.Store.Cache(kind).Walk(ctx, func(key string, r *store.RecordFile) error {
			entries = append(entries, CacheEntry{ID: key, Kind: "internal", Description: what, Size: r.Size(), Created: r.Updated, Used: r.Used})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(entries, func(a, b CacheEntry) int {
		return cmp.Or(b.Used.Compare(a.Used), cmp.Compare(a.ID, b.ID))
	})
	return entries, nil
}

// stepUsage lists the steps. A step counts with the layer that it added: the
// topmost one of each output.
func (b *Builder) stepUsage(ctx context.Context) ([]CacheEntry, error) {
	inImages, err := b.Images.Layers(ctx)
	if err != nil {
		return nil, err
	}
	records, err := cache.Records(ctx, b.Store)
	if err != nil {
		return nil, err
	}
	var entries []CacheEntry
	for _, r := range records {
		e := CacheEntry{ID: r.Key, Kind: "regular", Description: r.By, Shared: true, Created: r.Created, Used: r.Used}
		for _, d := range r.Added {
			size, err := b.Store.Stat(d)
			if err != nil && !errdefs.IsNotFound(err) {
				return nil, err
			}
			e.Size += size
			e.Shared = e.Shared && inImages[d]
		}
		entries = append(entries, e)
	}
	return entries, nil
}
