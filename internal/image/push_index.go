package image

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// whole says whether all images of an index are in the store, with their
// attestations.
func (i *Images) whole(index *ocispec.Index) bool {
	for _, m := range index.Manifests {
		if isAttestation(m) {
			if !i.hasAttestation(m) {
				return false
			}
			continue
		}
		doc, err := i.document(m)
		if err != nil || doc.manifest == nil {
			return false
		}
		img, err := i.openManifest(m, doc)
		if err != nil {
			return false
		}
		for _, d := range img.DiffIDs {
			if _, err := i.Store.Stat(d); err != nil {
				return false
			}
		}
	}
	return len(index.Manifests) > 0
}

// sendIndex sends every image of an index. If one of them had to be written
// anew, so is the index.
func (p *pushing) sendIndex(ctx context.Context, doc document) (document, error) {
	index := *doc.index
	index.Manifests = nil
	changed := false
	images := map[digest.Digest]ocispec.Descriptor{} // by the digest that they have here
	for _, m := range attestationsLast(doc.index.Manifests) {
		sent, err := p.sendEntry(ctx, m, images)
		if err != nil {
			return document{}, err
		}
		if _, err := p.dst.PushManifest(ctx, p.repo, "", sent.raw, sent.desc.MediaType); err != nil {
			return document{}, fmt.Errorf("manifest: %w", err)
		}
		if _, err := p.images.Store.Put(ctx, p.lease, sent.raw); err != nil {
			return document{}, err
		}
		if sent.desc.Digest != m.Digest {
			changed = true
			m.MediaType, m.Digest, m.Size = sent.desc.MediaType, sent.desc.Digest, sent.desc.Size
			if isAttestation(m) {
				m.Annotations = maps.Clone(m.Annotations)
				m.Annotations[attestationTarget] = sent.manifest.Subject.Digest.String()
			}
		}
		index.Manifests = append(index.Manifests, m)
	}
	if !changed {
		return doc, nil
	}
	if doc.desc.MediaType != dockerManifestList || !allDocker(index.Manifests) {
		index.MediaType = ocispec.MediaTypeImageIndex
	}
	data, err := json.Marshal(index)
	if err != nil {
		return document{}, err
	}
	return parseDocument(describe(index.MediaType, data), data)
}

func allDocker(entries []ocispec.Descriptor) bool {
	return !slices.ContainsFunc(entries, func(m ocispec.Descriptor) bool { return m.MediaType != dockerManifest })
}

// sendEntry sends what an entry of an index leads to and returns its
// manifest. images are those that were sent before.
func (p *pushing) sendEntry(ctx context.Context, m ocispec.Descriptor, images map[digest.Digest]ocispec.Descriptor) (document, error) {
	if isAttestation(m) {
		return p.sendAttestation(ctx, m, images)
	}
	img, err := p.images.open(m, nil)
	if err != nil {
		return document{}, err
	}
	sent, err := p.sendImage(ctx, img)
	images[m.Digest] = sent.desc
	return sent, err
}
