package image

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/store"
)

// ImportOptions says what becomes of an imported file system.
type ImportOptions struct {
	Name     string   // reference; empty: the image gets no name
	Changes  []string // Dockerfile instructions for the config
	Message  string   // the comment in the history
	Platform *ocispec.Platform
	Source   string // where the tar comes from, for errors
}

// Import makes an image of one layer from a tar, which may be compressed, and
// returns its id. The layer is the tar as it is.
func (i *Images) Import(ctx context.Context, r io.Reader, o ImportOptions) (digest.Digest, error) {
	id, err := i.importImage(ctx, r, o)
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.TrimSpace("import "+o.Source), err)
	}
	return id, nil
}

func (i *Images) importImage(ctx context.Context, r io.Reader, o ImportOptions) (digest.Digest, error) {
	now := i.Now().UTC()
	config := Config{Image: ocispec.Image{
		Created:  &now,
		Platform: i.platform(o.Platform),
		RootFS:   ocispec.RootFS{Type: "layers"},
		History:  []ocispec.History{{Created: &now, Comment: o.Message}},
	}}
	if err := Change(&config, o.Changes); err != nil {
		return "", err
	}
	var names []string
	if o.Name != "" {
		if _, err := ParseName(o.Name); err != nil {
			return "", err
		}
		names = []string{o.Name}
	}
	lease, err := i.Store.Lease(ctx)
	if err != nil {
		return "", err
	}
	defer lease.Close()
	diffID, err := i.importLayer(ctx, lease, r)
	if err != nil {
		return "", err
	}
	config.RootFS.DiffIDs = []digest.Digest{diffID}
	raw, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	img, err := i.Write(ctx, lease, raw, config.RootFS.DiffIDs, names)
	if err != nil {
		return "", err
	}
	return img.ConfigDigest, nil
}

// importLayer takes in a layer that nobody knows the digest of.
func (i *Images) importLayer(ctx context.Context, l *store.Lease, r io.Reader) (digest.Digest, error) {
	tar, _, err := layer.Decompress(cancelable{ctx, r})
	if err != nil {
		return "", err
	}
	defer tar.Close()
	in, err := i.Store.IngestLayer(l)
	if err != nil {
		return "", err
	}
	defer in.Close()
	n, err := io.Copy(in, tar)
	if err != nil {
		return "", err
	}
	if n == 0 { // the end of a pipe whose other side failed
		return "", malformed("archive is empty")
	}
	diffID, _, err := in.Commit(ctx, "")
	return diffID, err
}
