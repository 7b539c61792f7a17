package image

import (
	"context"
	"fmt"
	"io"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// SaveBuilt writes an image that is not in the list, of config and layers,
// lowest first, with its attestations, if any, in the form of [Images.Save]
// and with names. The caller has a lease on the layers. It returns the
// image's id.
func (i *Images) SaveBuilt(ctx context.Context, w io.Writer, config []byte, layers []digest.Digest, about []Attestation, names []string) (digest.Digest, error) {
	desc, manifest, err := i.manifestOf(config, layers)
	if err != nil {
		return "", fmt.Errorf("save image: %w", err)
	}
	one := &saved{manifest: manifest, image: &Image{
		Target: desc, Manifest: desc,
		ConfigDigest: digest.FromBytes(config), RawConfig: config, DiffIDs: layers,
	}}
	if one.image.Config, err = parseConfig(describe("", config), config, len(layers)); err != nil {
		return "", fmt.Errorf("save image: %w", err)
	}
	if len(about) > 0 {
		said, err := attest(desc, about)
		if err != nil {
			return "", fmt.Errorf("save image: %w", err)
		}
		one.said = []attested{said}
	}
	for _, name := range names {
		named, err := ParseName(name)
		if err != nil {
			return "", err
		}
		if tagged, ok := named.(reference.NamedTagged); ok {
			one.names = append(one.names, tagged)
		}
	}
	s := &saving{images: i, list: []*saved{one}}
	if err := s.write(ctx, w); err != nil {
		return "", fmt.Errorf("save image: %w", err)
	}
	return one.image.ConfigDigest, nil
}
