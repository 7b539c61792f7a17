package image

import (
	"context"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/progress"
)

// PullOptions says what Pull fetches.
type PullOptions struct {
	// Platform is the wanted one; nil means the default.
	Platform *ocispec.Platform

	// Parallel is how many layers are fetched at once; 0 means 3.
	Parallel int

	// Progress takes Docker's words: layer by layer, then the digest and
	// the status.
	Progress progress.Sink
}

// Pull fetches the image called name from its registry.
func (i *Images) Pull(ctx context.Context, name string, o PullOptions) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, errdefs.ErrNotImplemented
}

// PullAll fetches every tag of a repository.
func (i *Images) PullAll(ctx context.Context, repository string, o PullOptions) ([]ocispec.Descriptor, error) {
	return nil, errdefs.ErrNotImplemented
}
