package image

import (
	"context"
	"slices"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Tree is a name with the images behind it, one for each platform that is in
// the store.
type Tree struct {
	Name      string // familiar; "<untagged>" if there is none
	Target    ocispec.Descriptor
	Size      int64 // of all platforms, in bytes; layers that they share count once
	Platforms []Branch
}

// Branch is the image of one platform.
type Branch struct {
	Platform string
	ID       digest.Digest
	Size     int64 // of the uncompressed layers, in bytes
}

// Trees lists images by name, with their platforms.
func (i *Images) Trees(ctx context.Context, o ListOptions) ([]Tree, error) {
	list, err := i.List(ctx, o)
	if err != nil {
		return nil, err
	}
	var trees []Tree
	for _, s := range list {
		for _, ref := range s.names {
			_, tag, _ := splitRef(ref.Name)
			name := Familiar(ref.Name)
			switch {
			case tag != "" && !slices.Contains(s.RepoTags, name): // filtered out
				continue
			case tag == "" && len(s.RepoTags) > 0: // the digest of what a tag shows
				continue
			case tag == "":
				name = "<untagged>"
			}
			trees = append(trees, i.tree(name, ref.Descriptor))
		}
	}
	return trees, nil
}

func (i *Images) tree(name string, target ocispec.Descriptor) Tree {
	t := Tree{Name: name, Target: target}
	shared := make(map[digest.Digest]bool)
	for _, img := range i.variants(target) {
		t.Platforms = append(t.Platforms, Branch{
			Platform: platforms.Format(img.Config.Platform),
			ID:       img.ConfigDigest,
			Size:     i.size(img.DiffIDs),
		})
		for _, d := range img.DiffIDs {
			if !shared[d] {
				shared[d] = true
				t.Size += i.size([]digest.Digest{d})
			}
		}
	}
	return t
}

// variants returns the images behind target that are in the store, the
// default platform's first.
func (i *Images) variants(target ocispec.Descriptor) []*Image {
	doc, err := i.document(target)
	if err != nil {
		return nil
	}
	if doc.manifest != nil {
		img, err := i.openManifest(target, doc)
		if err != nil {
			return nil
		}
		return []*Image{img}
	}
	var all []*Image
	for _, m := range i.present(doc.index, i.Platform, true) {
		if img, err := i.open(m, nil); err == nil {
			all = append(all, img)
		}
	}
	return all
}

// Layers returns the layers of all images in the store, of every platform. An
// image that can't be read, as one that is being removed, is left out.
func (i *Images) Layers(ctx context.Context) (map[digest.Digest]bool, error) {
	refs, err := i.Store.Refs(ctx)
	if err != nil {
		return nil, err
	}
	layers, seen := make(map[digest.Digest]bool), make(map[digest.Digest]bool)
	for _, ref := range refs {
		if seen[ref.Descriptor.Digest] {
			continue
		}
		seen[ref.Descriptor.Digest] = true
		for _, img := range i.variants(ref.Descriptor) {
			for _, d := range img.DiffIDs {
				layers[d] = true
			}
		}
	}
	return layers, nil
}
