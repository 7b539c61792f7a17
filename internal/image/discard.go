package image

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// discard removes what the images behind targets refer to and nothing else
// does. It returns the layers that went, topmost first, and the bytes that were
// freed.
func (i *Images) discard(ctx context.Context, targets []ocispec.Descriptor) ([]digest.Digest, int64, error) {
	var layers []digest.Digest
	roots := make([]digest.Digest, 0, len(targets))
	seen := make(map[digest.Digest]bool)
	for _, t := range targets {
		roots = append(roots, t.Digest)
		img, err := i.open(t, nil)
		if err != nil {
			continue
		}
		for n := len(img.DiffIDs) - 1; n >= 0; n-- {
			if d := img.DiffIDs[n]; !seen[d] && i.has(d) {
				seen[d] = true
				layers = append(layers, d)
			}
		}
	}
	report, err := i.Store.Release(ctx, roots...)
	if err != nil {
		return nil, 0, err
	}
	gone := layers[:0]
	for _, d := range layers {
		if !i.has(d) {
			gone = append(gone, d)
		}
	}
	return gone, report.Bytes, nil
}

func (i *Images) has(d digest.Digest) bool {
	_, err := i.Store.Stat(d)
	return err == nil
}

// drop removes layers of an operation that failed, unless something else
// refers to them.
func (i *Images) drop(ctx context.Context, layers []digest.Digest) error {
	if len(layers) == 0 {
		return nil
	}
	_, err := i.Store.Release(ctx, layers...)
	return err
}
