package image

import (
	"context"
	"io"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImportOptions says what becomes of an imported file system.
type ImportOptions struct {
	Name     string   // reference; empty: the image gets no name
	Changes  []string // Dockerfile instructions for the config
	Message  string   // the comment in the history
	Platform *ocispec.Platform
}

// Import makes an image of one layer from a tar, which may be compressed.
func (i *Images) Import(ctx context.Context, r io.Reader, o ImportOptions) (digest.Digest, error) {
	return "", errdefs.ErrNotImplemented
}

// Change applies Dockerfile instructions to a config: CMD, ENTRYPOINT, ENV,
// EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and
// WORKDIR, as `docker import -c` and `docker commit -c` take them.
func Change(c *Config, changes []string) error { return errdefs.ErrNotImplemented }
