package image

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/progress"
	"github.com/shaleproject/shale/internal/store"
)

// LayoutImage is the place of an image in a directory with an OCI layout. With
// neither a tag nor a digest it is the one called "latest" or, if there is none
// of that name, the only one.
func (i *Images) LayoutImage(dir, tag string) (Place, error) {
	if tag != "" {
		return i.Layout(dir, tag)
	}
	index, err := newLayoutDir(dir).index()
	if err != nil {
		return Place{}, err
	}
	if len(index.Manifests) != 1 {
		return i.Layout(dir, "")
	}
	if err := checkDescriptor(index.Manifests[0]); err != nil {
		return Place{}, fmt.Errorf("%s: %w", dir, err)
	}
	return i.Layout(dir, index.Manifests[0].Digest.String())
}

// Resolve returns the digest of the manifest or index at p, which is verified.
func (p Place) Resolve(ctx context.Context) (digest.Digest, error) {
	doc, err := fetchRoot(ctx, p.registry, p.repo, p.named)
	return doc.desc.Digest, err
}

// Fetch makes the store have the image at a place, for platform or, if that is
// nil, the default one, and l keep it. No name points at it. Errors are those
// of [Images.Pull].
func (i *Images) Fetch(ctx context.Context, l *store.Lease, from Place, platform *ocispec.Platform, sink progress.Sink) (*Image, error) {
	p := &pulling{
		images: i, lease: l, src: from.registry, repo: from.repo, source: from.source,
		o: PullOptions{Platform: platform, Progress: sink},
	}
	root, err := p.root(ctx, from.named)
	if err != nil {
		return nil, err
	}
	doc, config, err := p.choose(ctx, root, 0)
	if err != nil {
		return nil, err
	}
	if err := p.layers(ctx, doc.manifest.Layers, config.RootFS.DiffIDs); err != nil {
		return nil, err
	}
	for _, data := range p.documents {
		if _, err := i.Store.Put(ctx, l, data); err != nil {
			return nil, err
		}
	}
	return i.openManifest(root.desc, doc)
}
