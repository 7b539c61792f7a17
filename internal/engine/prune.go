package engine

import (
	"context"
	"strings"

	"github.com/shaleproject/shale/internal/build"
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
	Cache      int   // results and cache mounts of builds
	Reclaimed  int64 // bytes
}

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
	if len(o.Filters) > 0 {
		// Cache is neither old nor labelled in the way that images are.
		report, err := images.Store.Collect(ctx, store.CollectOptions{})
		out.Reclaimed += report.Bytes
		return out, err
	}
	builder, err := e.Builder()
	if err != nil {
		return out, err
	}
	cache, err := builder.Prune(ctx, build.PruneOptions{All: o.All})
	out.Cache = cache.Records + cache.Mounts + cache.Failures
	out.Reclaimed += cache.Reclaimed
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
