package image

import (
	"context"
	"fmt"
	"io"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// octets is the media type of blobs, of which a registry knows none.
const octets = "application/octet-stream"

// fetchRoot fetches what a name points at in its registry, verified and
// parsed.
func fetchRoot(ctx context.Context, src ociregistry.Reader, repo string, named reference.Named) (document, error) {
	var r ociregistry.BlobReader
	var err error
	var want digest.Digest
	switch n := named.(type) {
	case reference.Digested:
		want = n.Digest()
		r, err = src.GetManifest(ctx, repo, want)
	case reference.Tagged:
		r, err = src.GetTag(ctx, repo, n.Tag())
	default:
		panic("a parsed name has neither tag nor digest")
	}
	if err != nil {
		return document{}, err
	}
	data, err := readAll(r)
	if err != nil {
		return document{}, err
	}
	// What the registry says of its content counts as far as it is checked:
	// the digest against the bytes, the media type against what they say.
	desc := ocispec.Descriptor{MediaType: r.Descriptor().MediaType, Digest: r.Descriptor().Digest, Size: int64(len(data))}
	if want != "" {
		desc.Digest = want
	}
	if desc.Digest == "" {
		desc.Digest = digest.FromBytes(data)
	}
	if err := checkDescriptor(desc); err != nil {
		return document{}, err
	}
	return parseAny(desc, data)
}

// fetchManifest fetches a manifest or index that an index names.
func fetchManifest(ctx context.Context, src ociregistry.Reader, repo string, desc ocispec.Descriptor) (document, error) {
	if desc.Size > maxDocument {
		return document{}, malformed("manifest %s of %d bytes is too large", desc.Digest, desc.Size)
	}
	r, err := src.GetManifest(ctx, repo, desc.Digest)
	if err != nil {
		return document{}, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	data, err := readAll(r)
	if err != nil {
		return document{}, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	return parseAny(desc, data)
}

// Manifest is an index or a manifest as a registry has it.
type Manifest struct {
	Descriptor ocispec.Descriptor
	Raw        []byte

	// Config is the configuration if this is the only manifest of an image.
	Config *Config
}

// Manifests fetches what a name points at in its registry and, of an index,
// the manifests that it names. The store stays as it is.
func (i *Images) Manifests(ctx context.Context, name string) ([]Manifest, error) {
	named, err := ParseName(name)
	if err != nil {
		return nil, err
	}
	list, err := i.manifests(ctx, named)
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", reference.FamiliarString(named), err)
	}
	return list, nil
}

func (i *Images) manifests(ctx context.Context, named reference.Named) ([]Manifest, error) {
	host, repo := endpoint(named)
	src, err := i.Registries(host)
	if err != nil {
		return nil, err
	}
	doc, err := fetchRoot(ctx, src, repo, named)
	if err != nil {
		return nil, err
	}
	list := []Manifest{{Descriptor: doc.desc, Raw: doc.raw}}
	if doc.index == nil {
		if doc.checkImage() == nil {
			list[0].Config, err = fetchConfig(ctx, src, repo, doc.manifest)
		}
		return list, err
	}
	for _, m := range doc.index.Manifests {
		sub, err := fetchManifest(ctx, src, repo, m)
		if err != nil {
			return nil, err
		}
		sub.desc.Platform = m.Platform
		list = append(list, Manifest{Descriptor: sub.desc, Raw: sub.raw})
	}
	return list, nil
}

func fetchConfig(ctx context.Context, src ociregistry.Reader, repo string, m *ocispec.Manifest) (*Config, error) {
	r, err := src.GetBlob(ctx, repo, m.Config.Digest)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", short(m.Config.Digest), err)
	}
	data, err := readAll(r)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", short(m.Config.Digest), err)
	}
	return parseConfig(m.Config, data, len(m.Layers))
}

// readAll reads a document and closes it.
func readAll(r io.ReadCloser) ([]byte, error) {
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxDocument {
		return nil, malformed("document is larger than %d bytes", maxDocument)
	}
	return data, nil
}
