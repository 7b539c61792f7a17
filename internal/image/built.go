package image

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/store"
)

// Built is what a build has made and nobody has written yet.
type Built struct {
	Images []BuiltImage

	// Index wants an index around a single image, too. Several images have
	// one anyway, and so has what has attestations.
	Index bool

	// Annotations are those of the index.
	Annotations Annotations
}

// BuiltImage is the image of one platform.
type BuiltImage struct {
	Config []byte
	Layers []digest.Digest // DiffIDs, lowest first; a lease of the caller keeps them

	// Platform is how an index calls it; nil means as the config says.
	Platform *ocispec.Platform

	About       []Attestation
	Annotations Annotations // of its manifest
}

// Annotations are those of a document, and those of the descriptors that lead
// to it.
type Annotations struct{ Document, Descriptor map[string]string }

// Form is how the documents and layers of an image are written.
type Form struct {
	// Compression of the layers; Level 0 is its default.
	Compression layer.Compression
	Level       int

	// Docker means Docker's media types instead of OCI's. They know neither
	// zstd nor attestations.
	Docker bool
}

func (f Form) check(b Built) error {
	if !f.Docker {
		return nil
	}
	if f.Compression == layer.Zstd {
		return malformed("layers compressed by zstd need OCI's media types")
	}
	for _, img := range b.Images {
		if len(img.About) > 0 {
			return malformed("attestations need OCI's media types")
		}
	}
	if len(b.Annotations.Document)+len(b.Annotations.Descriptor) > 0 {
		return malformed("annotations of an index need OCI's media types")
	}
	return nil
}

// mediaType is t in the words of f.
func (f Form) mediaType(t string) string {
	if !f.Docker {
		return t
	}
	return inDocker(t)
}

// inDocker is Docker's word for a media type of OCI.
func inDocker(t string) string {
	switch t {
	case ocispec.MediaTypeImageIndex:
		return dockerManifestList
	case ocispec.MediaTypeImageManifest:
		return dockerManifest
	case ocispec.MediaTypeImageConfig:
		return dockerConfig
	case ocispec.MediaTypeImageLayer:
		return dockerLayer
	case ocispec.MediaTypeImageLayerGzip:
		return dockerLayerGzip
	case ocispec.MediaTypeImageLayerZstd:
		return dockerLayerZstd
	}
	return t
}

// sealed are the documents of a [Built].
type sealed struct {
	root   ocispec.Descriptor // the manifest, or the index of all
	raw    []byte
	images []sealedImage
	said   []attested
}

type sealedImage struct {
	BuiltImage
	desc     ocispec.Descriptor
	manifest []byte
	layers   []ocispec.Descriptor
}

// documents are all but the layers.
func (s sealed) documents() map[digest.Digest][]byte {
	docs := map[digest.Digest][]byte{s.root.Digest: s.raw}
	for _, img := range s.images {
		docs[img.desc.Digest], docs[digest.FromBytes(img.Config)] = img.manifest, img.Config
	}
	for _, a := range s.said {
		maps.Copy(docs, a.blobs)
		docs[a.desc.Digest] = a.raw
	}
	return docs
}

// seal writes the documents of b. packed says what the layers are in the form
// f; one that it lacks goes as it is.
func (i *Images) seal(b Built, f Form, packed map[digest.Digest]packedLayer) (sealed, error) {
	var s sealed
	if len(b.Images) == 0 {
		return s, malformed("a build without an image")
	}
	if err := f.check(b); err != nil {
		return s, err
	}
	var entries, said []ocispec.Descriptor
	for _, img := range b.Images {
		one, err := i.sealImage(img, f, packed)
		if err != nil {
			return s, err
		}
		s.images = append(s.images, one)
		entries = append(entries, one.desc)
		if len(img.About) == 0 {
			continue
		}
		a, err := attest(one.desc, img.About)
		if err != nil {
			return s, err
		}
		s.said, said = append(s.said, a), append(said, a.desc)
	}
	if len(b.Images) == 1 && len(said) == 0 && !b.Index {
		if len(b.Annotations.Document)+len(b.Annotations.Descriptor) > 0 {
			return s, malformed("index annotations not supported for single platform export")
		}
		s.root, s.raw = s.images[0].desc, s.images[0].manifest
		return s, nil
	}
	mediaType := f.mediaType(ocispec.MediaTypeImageIndex)
	raw, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType,
		Manifests: append(entries, said...), Annotations: b.Annotations.Document,
	})
	s.root, s.raw = describe(mediaType, raw), raw
	s.root.Annotations = b.Annotations.Descriptor
	return s, err
}

func (i *Images) sealImage(img BuiltImage, f Form, packed map[digest.Digest]packedLayer) (sealedImage, error) {
	s := sealedImage{BuiltImage: img, layers: make([]ocispec.Descriptor, 0, len(img.Layers))}
	for _, d := range img.Layers {
		l, ok := packed[d]
		if !ok {
			size, err := i.Store.Stat(d)
			if err != nil {
				return s, fmt.Errorf("layer %s: %w", short(d), err)
			}
			l.desc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: size}
		}
		l.desc.MediaType = f.mediaType(l.desc.MediaType)
		s.layers = append(s.layers, l.desc)
	}
	m := ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   f.mediaType(ocispec.MediaTypeImageManifest),
		Config:      describe(f.mediaType(ocispec.MediaTypeImageConfig), img.Config),
		Layers:      s.layers,
		Annotations: img.Annotations.Document,
	}
	parsed, err := parseConfig(m.Config, img.Config, len(img.Layers))
	if err != nil {
		return s, err
	}
	if !slices.Equal(parsed.RootFS.DiffIDs, img.Layers) {
		return s, malformed("config %s names other layers than it is written with", m.Config.Digest)
	}
	if s.manifest, err = json.Marshal(m); err != nil {
		return s, err
	}
	s.desc = describe(m.MediaType, s.manifest)
	s.desc.Annotations = img.Annotations.Descriptor
	if s.desc.Platform = img.Platform; img.Platform == nil {
		s.desc.Platform, err = platformOf(img.Config)
	}
	return s, err
}

// WriteBuilt puts what was built, whose layers l keeps, into the list of
// images, and points names at it. Without names it is dangling. An image that
// loses its last name to the new one becomes dangling, too. Layers stay as
// they are: the form counts for the documents.
//
// It returns the image of this machine's platform, or, if there is none, any.
func (i *Images) WriteBuilt(ctx context.Context, l *store.Lease, b Built, f Form, names []string) (*Image, error) {
	refs := make([]naming, 0, len(names))
	for _, name := range names {
		named, err := ParseName(name)
		if err != nil {
			return nil, err
		}
		refs = append(refs, naming{name: named.String()})
	}
	f.Compression = layer.None
	s, err := i.seal(b, f, nil)
	if err != nil {
		return nil, err
	}
	docs := s.documents()
	for _, d := range sorted(docs) {
		if err := i.putDocument(ctx, l, d, docs[d]); err != nil {
			return nil, err
		}
	}
	desc := s.root
	desc.Annotations, desc.Platform = nil, nil // a ref says where, not what
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

// putDocument stores a document or a statement, which may be larger than that.
func (i *Images) putDocument(ctx context.Context, l *store.Lease, d digest.Digest, data []byte) error {
	if len(data) > store.DocumentLimit {
		return i.putBlob(ctx, l, d, data)
	}
	_, err := i.Store.Put(ctx, l, data)
	return err
}
