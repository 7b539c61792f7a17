package image

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
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

// Annotations by which Docker and containerd find the name of an image in an
// OCI layout.
const (
	containerdName = "io.containerd.image.name"
	refName        = ocispec.AnnotationRefName
)

// archiveItem is an entry of docker-archive's manifest.json.
type archiveItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// write lays the archive out: what says what is in it comes first, so that it
// can be loaded from a pipe.
func (s *saving) write(ctx context.Context, w io.Writer) error {
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
	items := []archiveItem{}
	docs := make(map[digest.Digest][]byte)
	layers := make(map[digest.Digest]bool)
	for _, img := range s.list {
		desc := describe(ocispec.MediaTypeImageManifest, img.manifest)
		desc.Platform = &ocispec.Platform{
			Architecture: img.image.Config.Architecture, OS: img.image.Config.OS, Variant: img.image.Config.Variant,
		}
		docs[desc.Digest], docs[img.image.ConfigDigest] = img.manifest, img.image.RawConfig
		if len(img.said) > 0 {
			var err error
			if desc, err = img.index(desc, docs); err != nil {
				return err
			}
		}
		item := archiveItem{Config: blobPath(img.image.ConfigDigest), RepoTags: []string{}, Layers: []string{}}
		for _, d := range img.image.DiffIDs {
			layers[d] = true
			item.Layers = append(item.Layers, blobPath(d))
		}
		for _, name := range img.names {
			item.RepoTags = append(item.RepoTags, reference.FamiliarString(name))
			desc.Annotations = map[string]string{containerdName: name.String(), refName: name.Tag()}
			index.Manifests = append(index.Manifests, desc)
		}
		if len(img.names) == 0 {
			index.Manifests = append(index.Manifests, desc)
		}
		items = append(items, item)
	}
	a := &archiveWriter{tar: tar.NewWriter(w)}
	a.json("oci-layout", ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	a.json("index.json", index)
	a.json("manifest.json", items)
	a.dir("blobs/")
	a.dir("blobs/sha256/")
	for _, d := range sorted(docs) {
		a.file(blobPath(d), docs[d])
	}
	for _, d := range sorted(layers) {
		if a.err == nil {
			a.err = s.layer(ctx, a, d)
		}
	}
	if a.err != nil {
		return a.err
	}
	return a.tar.Close()
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

// layer copies a layer into the archive and verifies it on the way.
func (s *saving) layer(ctx context.Context, a *archiveWriter, d digest.Digest) error {
	blob, err := s.images.Store.Blob(d)
	if err != nil {
		return err
	}
	defer blob.Close()
	a.header(&tar.Header{Typeflag: tar.TypeReg, Name: blobPath(d), Mode: 0o644, Size: blob.Size()})
	if a.err != nil {
		return a.err
	}
	in := newVerifier(blob, ocispec.Descriptor{Digest: d, Size: blob.Size()}, nil)
	if _, err := io.CopyBuffer(onlyWriter{a.tar}, cancelable{ctx, in}, make([]byte, 256<<10)); err != nil {
		return err
	}
	return in.check()
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

// archiveWriter writes members without anything that depends on the machine.
// It remembers the first error.
type archiveWriter struct {
	tar *tar.Writer
	err error
}

func (a *archiveWriter) header(h *tar.Header) {
	if a.err == nil {
		h.ModTime = time.Unix(0, 0)
		a.err = a.tar.WriteHeader(h)
	}
}

func (a *archiveWriter) dir(name string) {
	a.header(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755})
}

func (a *archiveWriter) file(name string, data []byte) {
	a.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))})
	if a.err == nil {
		_, a.err = a.tar.Write(data)
	}
}

func (a *archiveWriter) json(name string, v any) {
	data, err := json.Marshal(v)
	if a.err == nil {
		a.err = err
	}
	a.file(name, data)
}
