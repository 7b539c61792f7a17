package image

import (
	"context"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/progress"
)

// PushOptions says how Push sends.
type PushOptions struct {
	// Platform chooses one image of an index; nil sends what is there.
	Platform *ocispec.Platform

	// Compression of layers that have no compressed form yet. The zero
	// value means gzip; Level 0 is the compression's default.
	Compression layer.Compression
	Level       int

	// Parallel is how many layers are sent at once; 0 means 3.
	Parallel int

	Progress progress.Sink
}

// Push sends the image called name to its registry and returns what the
// registry now holds under that name.
func (i *Images) Push(ctx context.Context, name string, o PushOptions) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, errdefs.ErrNotImplemented
}

// PushAll sends every tag of a repository.
func (i *Images) PushAll(ctx context.Context, repository string, o PushOptions) ([]ocispec.Descriptor, error) {
	return nil, errdefs.ErrNotImplemented
}
