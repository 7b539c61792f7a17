package image

import (
	"context"
	"io"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/progress"
)

// LoadOptions says what Load takes from an archive.
type LoadOptions struct {
	// Platform chooses one image of an index; nil takes what is there.
	Platform *ocispec.Platform

	Progress progress.Sink
}

// Loaded is an image that Load found. Name is empty if the archive gives it
// none.
type Loaded struct {
	Name string // familiar
	ID   digest.Digest
}

// Load reads images from a docker-archive or an OCI layout in a tar, which
// may be compressed.
func (i *Images) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Loaded, error) {
	return nil, errdefs.ErrNotImplemented
}
