package image

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layoutManifests reads the layout that comes with a docker-archive, so that
// the digests of manifests survive. What can't be used of it is left out.
func (a *archive) layoutManifests() map[digest.Digest]*archived {
	byConfig := make(map[digest.Digest]*archived)
	data, ok := a.document(ocispec.ImageIndexFile)
	if !ok {
		return byConfig
	}
	var index ocispec.Index
	if json.Unmarshal(data, &index) != nil {
		return byConfig
	}
	for _, m := range index.Manifests {
		if img, err := a.layoutImage(m, nil, 0); err == nil && byConfig[img.id] == nil {
			byConfig[img.id] = img
		}
	}
	return byConfig
}

// layout reads an OCI layout (image-spec, image-layout.md).
func (a *archive) layout(platform *ocispec.Platform) ([]*archived, error) {
	if err := a.layoutVersion(); err != nil {
		return nil, err
	}
	data, _ := a.document(ocispec.ImageIndexFile)
	index, err := parseDocument(describe(ocispec.MediaTypeImageIndex, data), data)
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	var list []*archived
	for _, m := range index.index.Manifests {
		if m.Annotations[attestation] != "" {
			continue
		}
		img, err := a.layoutImage(m, platform, 0)
		if err != nil {
			return nil, err
		}
		if img.names, err = layoutNames(m); err != nil {
			return nil, err
		}
		at := slices.IndexFunc(list, func(o *archived) bool { return o.target.Digest == img.target.Digest })
		if at >= 0 {
			list[at].names = append(list[at].names, img.names...)
			continue
		}
		list = append(list, img)
	}
	if len(list) == 0 {
		return nil, malformed("index.json names no image")
	}
	return list, nil
}

func (a *archive) layoutVersion() error {
	data, ok := a.document(ocispec.ImageLayoutFile)
	if !ok {
		return nil // some tools leave it out
	}
	var l ocispec.ImageLayout
	if err := json.Unmarshal(data, &l); err != nil {
		return malformed("oci-layout: %s", err)
	}
	if !strings.HasPrefix(l.Version, "1.") {
		return errdefs.ErrNotImplemented.WithMessage(fmt.Sprintf("OCI layout of version %.20q", l.Version))
	}
	return nil
}

// layoutNames returns the name that a layout gives to a manifest: Docker's
// annotation, or the specification's if that holds a whole name, as podman and
// skopeo write it.
func layoutNames(m ocispec.Descriptor) ([]reference.Named, error) {
	name := m.Annotations[containerdName]
	if name == "" {
		name = m.Annotations[refName]
		if !strings.ContainsAny(name, "/:") {
			return nil, nil
		}
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, badName(name, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, nil
	}
	return []reference.Named{reference.TagNameOnly(named)}, nil
}

// layoutImage reads what desc of a layout leads to: a manifest, or an index of
// which at least one image for platform is there.
func (a *archive) layoutImage(desc ocispec.Descriptor, platform *ocispec.Platform, depth int) (*archived, error) {
	const maxDepth = 4
	if err := checkDescriptor(desc); err != nil {
		return nil, err
	}
	data, ok := a.blob(desc.Digest)
	if !ok {
		return nil, malformed("the archive has no manifest %s", desc.Digest)
	}
	doc, err := parseDocument(ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}, data)
	if err != nil {
		return nil, err
	}
	if doc.manifest != nil {
		return a.layoutManifestImage(doc)
	}
	if depth == maxDepth {
		return nil, malformed("index %s is nested deeper than %d levels", desc.Digest, maxDepth)
	}
	want := a.images.platform(platform)
	list := candidates(doc.index, want)
	if platform == nil { // whatever is there will do; the default first
		list = append(list, doc.index.Manifests...)
	}
	var img *archived
	seen := make(map[digest.Digest]bool)
	for _, m := range list {
		if _, ok := a.blob(m.Digest); !ok || m.Annotations[attestation] != "" || seen[m.Digest] {
			continue
		}
		seen[m.Digest] = true
		one, err := a.layoutImage(m, platform, depth+1)
		switch {
		case err != nil:
			return nil, err
		case img == nil:
			img = one
			img.target = doc.desc
		default:
			img.documents = append(img.documents, one.documents...)
			img.layers = append(img.layers, one.layers...)
		}
	}
	if img == nil {
		return nil, noPlatform(doc.index, want)
	}
	img.documents = append(img.documents, a.attestations(doc.index, seen)...)
	img.documents = append(img.documents, doc.raw)
	return img, nil
}

// attestations are the documents of what index says of its images, as far as
// the archive has them.
func (a *archive) attestations(index *ocispec.Index, images map[digest.Digest]bool) [][]byte {
	var list [][]byte
	for _, m := range index.Manifests {
		if !isAttestation(m) || !images[digest.Digest(m.Annotations[attestationTarget])] {
			continue
		}
		raw, ok := a.blob(m.Digest)
		if !ok {
			continue
		}
		doc, err := parseAny(m, raw)
		if err != nil || checkAttestation(doc) != nil {
			continue
		}
		for _, b := range attestationBlobs(doc.manifest) {
			if data, ok := a.blob(b.Digest); ok {
				list = append(list, data)
			}
		}
		list = append(list, raw)
	}
	return list
}

func (a *archive) layoutManifestImage(doc document) (*archived, error) {
	m := doc.manifest
	raw, ok := a.blob(m.Config.Digest)
	if !ok {
		return nil, malformed("the archive has no config %s", m.Config.Digest)
	}
	config, err := parseConfig(m.Config, raw, len(m.Layers))
	if err != nil {
		return nil, err
	}
	img := &archived{id: m.Config.Digest, target: doc.desc, documents: [][]byte{raw, doc.raw}}
	for n, desc := range m.Layers {
		diffID := config.RootFS.DiffIDs[n]
		l, err := a.find(blobPath(desc.Digest))
		if err != nil {
			return nil, err
		}
		if l.size != desc.Size || l.diffID != diffID {
			return nil, malformed("layer %s holds %s, the config says %s", desc.Digest, l.diffID, diffID)
		}
		if desc.Digest != diffID {
			img.layers = append(img.layers, layerForm{desc, diffID})
		}
	}
	return img, nil
}
