package image

import (
	"context"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/progress"
)

// CopyOptions says what Copy copies.
type CopyOptions struct {
	// Platform copies one image of an index; nil copies all of it.
	Platform *ocispec.Platform

	Progress progress.Sink
}

// Copy sends an image from one registry to another without keeping it.
func (i *Images) Copy(ctx context.Context, src, dst string, o CopyOptions) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, errdefs.ErrNotImplemented
}
