package image

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/store"
)

// Write makes an image of config and layers, lowest first, which l keeps, and
// points names at it. Without names the image is dangling. An image that
// loses its last name to the new one becomes dangling, too.
func (i *Images) Write(ctx context.Context, l *store.Lease, config []byte, layers []digest.Digest, names []string) (*Image, error) {
	return i.WriteAttested(ctx, l, config, layers, nil, names)
}

// WriteAttested is Write of an image with attestations, if there are any:
// the names point at an index of both. The manifest of the image is the same
// with and without them.
func (i *Images) WriteAttested(ctx context.Context, l *store.Lease, config []byte, layers []digest.Digest, about []Attestation, names []string) (*Image, error) {
	refs := make([]naming, 0, len(names))
	for _, name := range names {
		named, err := ParseName(name)
		if err != nil {
			return nil, err
		}
		refs = append(refs, naming{name: named.String()})
	}
	desc, err := i.writeManifest(ctx, l, config, layers)
	if err == nil && len(about) > 0 {
		desc, err = i.writeIndex(ctx, l, config, desc, about)
	}
	if err != nil {
		return nil, err
	}
	img, err := i.open(desc, nil)
	if err != nil {
		return nil, fmt.Errorf("write image: %w", err)
	}
	if len(refs) == 0 {
		return img, i.nameless(ctx, desc)
	}
	for n := range refs {
		refs[n].desc = desc
	}
	img.Name = refs[0].name
	if err := i.name(ctx, refs...); err != nil {
		return nil, fmt.Errorf("name image %s: %w", Familiar(img.Name), err)
	}
	return img, nil
}

// nameless gives desc a ref without a name unless something points at it.
func (i *Images) nameless(ctx context.Context, desc ocispec.Descriptor) error {
	ref := dangling + desc.Digest.String()
	if other, err := i.hasName(ctx, desc, map[string]bool{ref: true}); err != nil || other {
		return err
	}
	return i.Store.SetRef(ref, desc)
}

// writeManifest stores config and a manifest over the uncompressed layers.
func (i *Images) writeManifest(ctx context.Context, l *store.Lease, config []byte, layers []digest.Digest) (ocispec.Descriptor, error) {
	desc, data, err := i.manifestOf(config, layers)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, doc := range [][]byte{config, data} {
		if _, err := i.Store.Put(ctx, l, doc); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	return desc, nil
}

// writeIndex stores the attestations of an image and an index of both.
func (i *Images) writeIndex(ctx context.Context, l *store.Lease, config []byte, manifest ocispec.Descriptor, about []Attestation) (ocispec.Descriptor, error) {
	a, err := attest(manifest, about)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := i.putAttested(ctx, l, a); err != nil {
		return ocispec.Descriptor{}, err
	}
	if manifest.Platform, err = platformOf(config); err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, data, err := indexOf(manifest, a.desc)
	if err == nil {
		_, err = i.Store.Put(ctx, l, data)
	}
	return desc, err
}

// platformOf is the platform that a config says.
func platformOf(config []byte) (*ocispec.Platform, error) {
	p := new(ocispec.Platform)
	if err := json.Unmarshal(config, p); err != nil {
		return nil, malformed("config: %s", err)
	}
	return p, nil
}

// manifestOf makes a manifest of config and the uncompressed layers.
func (i *Images) manifestOf(config []byte, layers []digest.Digest) (ocispec.Descriptor, []byte, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    describe(ocispec.MediaTypeImageConfig, config),
		Layers:    make([]ocispec.Descriptor, 0, len(layers)),
	}
	parsed, err := parseConfig(m.Config, config, len(layers))
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	if !slices.Equal(parsed.RootFS.DiffIDs, layers) {
		return ocispec.Descriptor{}, nil, malformed("config %s names other layers than it is written with", m.Config.Digest)
	}
	for _, d := range layers {
		size, err := i.Store.Stat(d)
		if err != nil {
			return ocispec.Descriptor{}, nil, fmt.Errorf("layer %s: %w", short(d), err)
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: size})
	}
	data, err := json.Marshal(m)
	return describe(ocispec.MediaTypeImageManifest, data), data, err
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}
