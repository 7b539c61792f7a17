package image

import (
	"context"
	"encoding/json"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/store"
)

// Write makes an image of config and layers, lowest first, which l keeps, and
// points names at it, as [Images.WriteBuilt] does.
func (i *Images) Write(ctx context.Context, l *store.Lease, config []byte, layers []digest.Digest, names []string) (*Image, error) {
	return i.WriteBuilt(ctx, l, Built{Images: []BuiltImage{{Config: config, Layers: layers}}}, Form{}, names)
}

// nameless gives desc a ref without a name unless something points at it.
func (i *Images) nameless(ctx context.Context, desc ocispec.Descriptor) error {
	ref := dangling + desc.Digest.String()
	if other, err := i.hasName(ctx, desc, map[string]bool{ref: true}); err != nil || other {
		return err
	}
	return i.Store.SetRef(ref, desc)
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
	s, err := i.sealImage(BuiltImage{Config: config, Layers: layers}, Form{}, nil)
	return describe(ocispec.MediaTypeImageManifest, s.manifest), s.manifest, err
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}
