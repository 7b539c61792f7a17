package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/shaleproject/shale/internal/progress"
)

// LoadOptions says what Load takes from an archive.
type LoadOptions struct {
	// Platform chooses one image of an index; nil takes what is there.
	Platform *ocispec.Platform

	// Source is where the archive comes from, for errors.
	Source string

	Progress progress.Sink
}

// Loaded is an image that Load found. Name is empty if the archive gives it
// none.
type Loaded struct {
	Name string // familiar
	ID   digest.Digest
}

// Load reads images from a docker-archive or an OCI layout in a tar, which
// may be compressed, in one pass: r may be a pipe.
//
// Nothing that the archive says is believed: ids are computed, layers compared
// with the config that lists them. If anything is wrong no name moves and what
// was taken in is dropped.
func (i *Images) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Loaded, error) {
	loaded, err := i.load(ctx, r, o)
	if err != nil {
		return loaded, fmt.Errorf("%s: %w", strings.TrimSpace("load "+o.Source), err)
	}
	return loaded, nil
}

func (i *Images) load(ctx context.Context, r io.Reader, o LoadOptions) ([]Loaded, error) {
	lease, err := i.Store.Lease(ctx)
	if err != nil {
		return nil, err
	}
	defer lease.Close()
	a, err := i.readArchive(ctx, lease, r, o.Progress)
	var list []*archived
	if err == nil {
		list, err = a.interpret(o.Platform)
	}
	if err == nil {
		err = a.store(ctx, list)
	}
	if err != nil {
		// The lease keeps what was taken in; without it, it can go.
		err = errors.Join(err, lease.Close())
		err = errors.Join(err, i.drop(context.WithoutCancel(ctx), a.made))
		return nil, err
	}
	return i.nameLoaded(ctx, list, o.Progress)
}

// nameLoaded points the names that an archive gives at its images, and says
// so if one was another's.
func (i *Images) nameLoaded(ctx context.Context, list []*archived, tell progress.Sink) ([]Loaded, error) {
	var out []Loaded
	var names []naming
	seen := make(map[string]bool)
	for _, img := range list {
		if len(img.names) == 0 {
			if err := i.nameless(ctx, img.target); err != nil {
				return out, err
			}
			out = append(out, Loaded{ID: img.id})
		}
		for _, name := range img.names {
			if seen[name.String()] {
				return out, malformed("the archive calls two images %s", reference.FamiliarString(name))
			}
			seen[name.String()] = true
			i.tellRenamed(name, img, tell)
			names = append(names, naming{name.String(), img.target})
			out = append(out, Loaded{Name: reference.FamiliarString(name), ID: img.id})
		}
	}
	return out, i.name(ctx, names...)
}

func (i *Images) tellRenamed(name reference.Named, img *archived, tell progress.Sink) {
	old, err := i.Store.Resolve(name.String())
	if err != nil {
		return
	}
	if was, err := i.open(old, nil); err == nil && was.ConfigDigest != img.id {
		tell.Emit(progress.Event{Message: fmt.Sprintf("The image %s already exists, renaming the old one with ID %s to empty string",
			reference.FamiliarString(name), was.ConfigDigest)})
	}
}

// archived is an image that an archive describes, checked.
type archived struct {
	id        digest.Digest
	target    ocispec.Descriptor
	documents [][]byte // config, manifest, index
	layers    []layerForm
	names     []reference.Named
}

// layerForm is a compressed form of a layer that the archive had.
type layerForm struct {
	desc   ocispec.Descriptor
	diffID digest.Digest
}

// interpret finds the images. An archive of both formats is read as the
// docker-archive, whose names are plain, with the manifests of the layout.
func (a *archive) interpret(platform *ocispec.Platform) ([]*archived, error) {
	if _, ok := a.document("manifest.json"); ok {
		return a.dockerArchive(platform)
	}
	if _, ok := a.document(ocispec.ImageIndexFile); ok {
		return a.layout(platform)
	}
	return nil, malformed("the archive has neither manifest.json nor index.json; a file system becomes an image by import")
}

// store keeps the documents of the images, many at once: they share syncs.
func (a *archive) store(ctx context.Context, list []*archived) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(syncs)
	seen := make(map[digest.Digest]bool)
	for _, img := range list {
		for _, data := range img.documents {
			if d := digest.FromBytes(data); seen[d] {
				continue
			} else {
				seen[d] = true
			}
			group.Go(func() error {
				_, err := a.images.Store.Put(ctx, a.lease, data)
				return err
			})
		}
		for _, l := range img.layers {
			group.Go(func() error {
				a.images.remember(l.desc.Digest, note{DiffID: l.diffID, MediaType: l.desc.MediaType, Size: l.desc.Size})
				return nil
			})
		}
	}
	return group.Wait()
}

// dockerArchive reads manifest.json (moby, image/spec/v1.2.md).
func (a *archive) dockerArchive(platform *ocispec.Platform) ([]*archived, error) {
	data, _ := a.document("manifest.json")
	var items []archiveItem
	if err := json.Unmarshal(data, &items); err != nil {
		return nil, malformed("manifest.json: %s", err)
	}
	var list []*archived
	layout := a.layoutManifests()
	for _, item := range items {
		img, err := a.dockerImage(item, layout)
		if err != nil {
			return nil, err
		}
		if platform != nil {
			if err := a.wants(img, *platform); err != nil {
				return nil, err
			}
		}
		list = append(list, img)
	}
	if len(list) == 0 {
		return nil, malformed("manifest.json names no image")
	}
	return list, nil
}

func (a *archive) dockerImage(item archiveItem, layout map[digest.Digest]*archived) (*archived, error) {
	raw, ok := a.document(item.Config)
	if !ok {
		return nil, malformed("the archive has no config %.200q", item.Config)
	}
	desc := describe(ocispec.MediaTypeImageConfig, raw)
	if err := configName(item.Config, desc.Digest); err != nil {
		return nil, err
	}
	config, err := parseConfig(desc, raw, len(item.Layers))
	if err != nil {
		return nil, err
	}
	for n, name := range item.Layers {
		l, err := a.find(name)
		if err != nil {
			return nil, err
		}
		if l.diffID != config.RootFS.DiffIDs[n] {
			return nil, malformed("layer %.200q has DiffID %s, the config says %s", name, l.diffID, config.RootFS.DiffIDs[n])
		}
	}
	img := &archived{id: desc.Digest}
	for _, tag := range item.RepoTags {
		named, err := reference.ParseNormalizedNamed(tag)
		if err != nil {
			return nil, badName(tag, err)
		}
		img.names = append(img.names, reference.TagNameOnly(named))
	}
	if from := layout[desc.Digest]; from != nil {
		img.target, img.documents, img.layers = from.target, from.documents, from.layers
		return img, nil
	}
	target, manifest, err := a.images.manifestOf(raw, config.RootFS.DiffIDs)
	img.target, img.documents = target, [][]byte{raw, manifest}
	return img, err
}

// configName refuses a config whose name is the id of something else. Names
// that are no digests say nothing.
func configName(name string, d digest.Digest) error {
	base := strings.TrimSuffix(path.Base(name), ".json")
	if claimed := digest.NewDigestFromEncoded(digest.SHA256, base); claimed.Validate() == nil && claimed != d {
		return malformed("config %.200q has digest %s", name, d)
	}
	return nil
}

// wants says whether an image is for a platform.
func (a *archive) wants(img *archived, platform ocispec.Platform) error {
	var c Config
	if err := json.Unmarshal(img.documents[0], &c); err != nil {
		return malformed("config %s: %s", img.id, err)
	}
	if !serves(c.Platform, platform) {
		return &otherPlatform{c.Platform, platform}
	}
	return nil
}

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
	img.documents = append(img.documents, doc.raw)
	return img, nil
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
