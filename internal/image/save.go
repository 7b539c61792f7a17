package image

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/store"
)

// SaveOptions says what Save writes.
type SaveOptions struct {
	// Platform chooses one image of an index; nil means the default one.
	Platform *ocispec.Platform
}

// Save writes the named images as one tar that is a docker-archive and an OCI
// layout at once. A repository without a tag means all its tags. Layers are
// uncompressed; the same images give the same bytes.
func (i *Images) Save(ctx context.Context, w io.Writer, names []string, o SaveOptions) error {
	lease, err := i.Store.Lease(ctx)
	if err != nil {
		return err
	}
	defer lease.Close()
	s := &saving{images: i, lease: lease}
	for _, name := range names {
		if err := s.add(ctx, name, o.Platform); err != nil {
			return fmt.Errorf("save %s: %w", name, err)
		}
	}
	if err := s.write(ctx, w); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}

// saving is one Save on its way.
type saving struct {
	images *Images
	lease  *store.Lease
	list   []*saved
}

// saved is one image in an archive, with the names that it gets there.
type saved struct {
	image    *Image
	manifest []byte
	said     []attested
	names    []reference.NamedTagged
}

// add looks name up; a repository without a tag stands for its tags.
func (s *saving) add(ctx context.Context, name string, platform *ocispec.Platform) error {
	if named, err := reference.ParseNormalizedNamed(name); err == nil && reference.IsNameOnly(named) {
		refs, err := s.images.Store.Refs(ctx)
		if err != nil {
			return err
		}
		several := false
		for _, r := range refs {
			if repo, tag, _ := splitRef(r.Name); repo == named.Name() && tag != "" {
				if err := s.addOne(ctx, r.Name, platform); err != nil {
					return err
				}
				several = true
			}
		}
		if several {
			return nil
		}
	}
	return s.addOne(ctx, name, platform)
}

func (s *saving) addOne(ctx context.Context, name string, platform *ocispec.Platform) error {
	img, err := s.images.Get(ctx, name, platform)
	if err != nil {
		return err
	}
	if err := s.lease.Hold(append([]digest.Digest{img.ConfigDigest}, img.DiffIDs...)...); err != nil {
		return err
	}
	at := slices.IndexFunc(s.list, func(o *saved) bool { return o.image.ConfigDigest == img.ConfigDigest })
	if at < 0 {
		desc, manifest, err := s.images.manifestOf(img.RawConfig, img.DiffIDs)
		if err != nil {
			return err
		}
		said, err := s.images.saidOf(img, desc)
		if err != nil {
			return err
		}
		s.list = append(s.list, &saved{image: img, manifest: manifest, said: said})
		at = len(s.list) - 1
	}
	if img.Name == "" {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(img.Name)
	if err != nil {
		return badName(img.Name, err)
	}
	if tagged, ok := named.(reference.NamedTagged); ok && !slices.Contains(s.list[at].names, tagged) {
		s.list[at].names = append(s.list[at].names, tagged)
	}
	return nil
}

// write collects what the archive holds and writes it.
func (s *saving) write(ctx context.Context, w io.Writer) error {
	c := newContents()
	c.items = []archiveItem{}
	for _, img := range s.list {
		desc := describe(ocispec.MediaTypeImageManifest, img.manifest)
		desc.Platform = &ocispec.Platform{
			Architecture: img.image.Config.Architecture, OS: img.image.Config.OS, Variant: img.image.Config.Variant,
		}
		c.docs[desc.Digest], c.docs[img.image.ConfigDigest] = img.manifest, img.image.RawConfig
		if len(img.said) > 0 {
			var err error
			if desc, err = img.index(desc, c.docs); err != nil {
				return err
			}
		}
		item := archiveItem{Config: blobPath(img.image.ConfigDigest), RepoTags: []string{}, Layers: []string{}}
		for _, d := range img.image.DiffIDs {
			c.layers[d] = nil
			item.Layers = append(item.Layers, blobPath(d))
		}
		c.name(desc, &item, img.names)
		c.items = append(c.items, item)
	}
	return s.images.writeArchive(ctx, w, c)
}

// index adds what is said of an image to docs, and an index of both, which it
// returns.
func (s *saved) index(manifest ocispec.Descriptor, docs map[digest.Digest][]byte) (ocispec.Descriptor, error) {
	all := []ocispec.Descriptor{manifest}
	for _, a := range s.said {
		maps.Copy(docs, a.blobs)
		docs[a.desc.Digest] = a.raw
		all = append(all, a.desc)
	}
	desc, data, err := indexOf(all...)
	docs[desc.Digest] = data
	return desc, err
}

func blobPath(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

func sorted[V any](m map[digest.Digest]V) []digest.Digest {
	keys := make([]digest.Digest, 0, len(m))
	for d := range m {
		keys = append(keys, d)
	}
	slices.SortFunc(keys, cmp.Compare)
	return keys
}
