package engine

import (
	"context"
	"strings"

	"github.com/shaleproject/shale/internal/build/ops"
	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/store"
)

// PruneOptions says what [Engine.Prune] removes beside stopped containers,
// images without a name, and build cache that takes space of its own.
type PruneOptions struct {
	All     bool          // images without a container, and all build cache
	Volumes bool          // anonymous volumes that no container has
	Filters image.Filters // until, label: what containers and images must be like; the build cache then stays
}

// Pruned is what [Engine.Prune] has removed.
type Pruned struct {
	Containers []string // ids
	Volumes    []string
	Images     []image.Removed
	Records    int   // of the build cache
	Reclaimed  int64 // bytes
}

// smallCache is how many bytes the build cache keeps of its own when all that
// is removed is what takes space: records of layers that images have anyway
// make builds quick and cost next to nothing.
const smallCache = 16 << 20

// Prune removes what nobody uses. What it returns beside an error has been
// removed.
func (e *Engine) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	var out Pruned
	containers, err := e.Containers()
	if err != nil {
		return out, err
	}
	ids, freed, err := containers.Prune(ctx, o.Filters)
	out.Containers, out.Reclaimed = ids, freed
	if err != nil {
		return out, err
	}
	if o.Volumes {
		if out.Volumes, err = pruneVolumes(ctx, containers); err != nil {
			return out, err
		}
	}
	images, err := e.Images()
	if err != nil {
		return out, err
	}
	pruned, err := images.Prune(ctx, image.PruneOptions{All: o.All, Filters: o.Filters})
	out.Images = pruned.Removed
	out.Reclaimed += pruned.Reclaimed
	if err != nil {
		return out, err
	}
	collect := store.CollectOptions{CacheBudget: smallCache}
	if o.All {
		collect.CacheBudget = -1
	}
	if len(o.Filters) > 0 {
		collect.CacheBudget = 0 // the usual one: cache is neither old nor labelled
	}
	report, err := images.Store.Collect(ctx, collect)
	out.Records = report.Records
	out.Reclaimed += report.Bytes
	if err != nil || collect.CacheBudget >= 0 {
		return out, err
	}
	mounts, err := ops.PruneCacheMounts(images.Store.Root())
	out.Reclaimed += mounts
	return out, err
}

// pruneVolumes removes anonymous volumes that no container has.
func pruneVolumes(ctx context.Context, containers *container.Containers) ([]string, error) {
	volumes, err := containers.Volumes.List()
	if err != nil {
		return nil, err
	}
	var removed []string
	for _, v := range volumes {
		users, err := containers.VolumeUsers(ctx, v.Name)
		if err != nil {
			return removed, err
		}
		if len(users) > 0 || !anonymous(v.Name) {
			continue
		}
		if err := containers.RemoveVolume(ctx, v.Name); err != nil {
			return removed, err
		}
		removed = append(removed, v.Name)
	}
	return removed, nil
}

// anonymous reports whether a volume was named by shale: by an id of 64 digits.
func anonymous(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}
