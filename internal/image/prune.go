package image

import (
	"context"

	"github.com/containerd/errdefs"
)

// PruneOptions says what Prune removes.
type PruneOptions struct {
	// All includes images that have a name but no container.
	All bool

	// Filters are until, label, label!, dangling.
	Filters Filters
}

// Pruned is what Prune removed.
type Pruned struct {
	Removed   []Removed
	Reclaimed int64 // bytes
}

// Prune removes images that no container uses: those without a name, or all.
func (i *Images) Prune(ctx context.Context, o PruneOptions) (Pruned, error) {
	return Pruned{}, errdefs.ErrNotImplemented
}
