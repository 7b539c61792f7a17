package image

import (
	"context"
	"fmt"
	"io"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// SaveBuilt writes what was built in the form of [Images.Save], with names,
// without putting it into the list. Layers, which a lease of the caller keeps,
// have the form f. A single image can be read as a docker-archive, too. What
// comes back is the image or the index.
func (i *Images) SaveBuilt(ctx context.Context, w io.Writer, b Built, f Form, names []string) (ocispec.Descriptor, error) {
	desc, err := i.saveBuilt(ctx, b, f, names, func(c *contents) error { return i.writeArchive(ctx, w, c) })
	if err != nil {
		return desc, fmt.Errorf("save image: %w", err)
	}
	return desc, nil
}

// LayoutBuilt is SaveBuilt into a directory, an OCI layout, which is made if it
// is missing. What it has already stays; names move.
func (i *Images) LayoutBuilt(ctx context.Context, dir string, b Built, f Form, names []string) (ocispec.Descriptor, error) {
	desc, err := i.saveBuilt(ctx, b, f, names, func(c *contents) error { return i.writeLayout(ctx, newLayoutDir(dir), c) })
	if err != nil {
		return desc, fmt.Errorf("write layout %s: %w", dir, err)
	}
	return desc, nil
}

func (i *Images) saveBuilt(ctx context.Context, b Built, f Form, names []string, write func(*contents) error) (ocispec.Descriptor, error) {
	if err := f.check(b); err != nil {
		return ocispec.Descriptor{}, err
	}
	tags, err := tagged(names)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	packed, err := i.pack(ctx, b, f)
	defer func() {
		for _, p := range packed {
			p.file.Close() // it was only read
		}
	}()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	s, err := i.seal(b, f, packed)
	if err != nil {
		return s.root, err
	}
	c := newContents()
	c.docs = s.documents()
	for _, img := range s.images {
		for n, d := range img.Layers {
			c.layers[img.layers[n].Digest] = packed[d].file
		}
	}
	item := s.images[0].item()
	c.name(s.root, &item, tags)
	if len(s.images) == 1 {
		c.items = []archiveItem{item}
	}
	return s.root, write(c)
}

// item is the entry of a docker-archive without names.
func (s sealedImage) item() archiveItem {
	item := archiveItem{Config: blobPath(digest.FromBytes(s.Config)), RepoTags: []string{}, Layers: []string{}}
	for _, l := range s.layers {
		item.Layers = append(item.Layers, blobPath(l.Digest))
	}
	return item
}

func tagged(names []string) ([]reference.NamedTagged, error) {
	var tags []reference.NamedTagged
	for _, name := range names {
		named, err := ParseName(name)
		if err != nil {
			return nil, err
		}
		if tag, ok := named.(reference.NamedTagged); ok {
			tags = append(tags, tag)
		}
	}
	return tags, nil
}

// writeLayout adds c to a directory.
func (i *Images) writeLayout(ctx context.Context, l *layoutDir, c *contents) error {
	for _, d := range sorted(c.layers) {
		err := i.layerTo(ctx, c, d, func(size int64, r io.Reader) error {
			_, err := l.PushBlob(ctx, "", ocispec.Descriptor{Digest: d, Size: size}, r)
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, d := range sorted(c.docs) {
		if _, err := l.PushBlob(ctx, "", ocispec.Descriptor{Digest: d, Size: int64(len(c.docs[d]))}, rewindable(c.docs[d])); err != nil {
			return err
		}
	}
	return l.enter(c.index...)
}
