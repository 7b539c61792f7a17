package image

import (
	"context"
	"io"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// SaveOptions says what Save writes.
type SaveOptions struct {
	// Platform chooses one image of an index; nil means the default one.
	Platform *ocispec.Platform
}

// Save writes the named images as one tar that is a docker-archive and an OCI
// layout at once.
func (i *Images) Save(ctx context.Context, w io.Writer, names []string, o SaveOptions) error {
	return errdefs.ErrNotImplemented
}
