package image

import (
	"context"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// RemoveOptions says how far Remove goes.
type RemoveOptions struct {
	// Force removes an image with several names by its id, and one that a
	// stopped container uses.
	Force bool

	// NoPrune keeps the layers.
	NoPrune bool

	// Platform removes one image of an index only.
	Platform *ocispec.Platform
}

// Removed is one line of what Remove says: one of its fields is set.
type Removed struct {
	Untagged string `json:",omitempty"` // a familiar name
	Deleted  string `json:",omitempty"` // the digest of an image or a layer
}

// Remove takes a name away from an image and, with the last one, the image.
func (i *Images) Remove(ctx context.Context, name string, o RemoveOptions) ([]Removed, error) {
	return nil, errdefs.ErrNotImplemented
}
