package image

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/progress"
	"github.com/shaleproject/shale/internal/store"
)

// Place is where an artifact can be: a name in a registry, or a tag in a
// directory with an OCI layout.
type Place struct {
	registry ociregistry.Interface
	named    reference.Named
	host     string
	repo     string
	source   string // for the notes; empty if no other process can look there
}

// Remote is the place of that name in its registry.
func (i *Images) Remote(name string) (Place, error) {
	named, err := ParseName(name)
	if err != nil {
		return Place{}, err
	}
	host, repo := endpoint(named)
	r, err := i.Registries(host)
	if err != nil {
		return Place{}, err
	}
	return Place{registry: r, named: named, host: host, repo: repo, source: named.Name()}, nil
}

// Layout is the place of that tag, or of the digest, in a directory. An empty
// tag is "latest".
func (i *Images) Layout(dir, tag string) (Place, error) {
	name := "localhost/layout:" + tag
	if tag == "" {
		name += "latest"
	}
	if _, err := digest.Parse(tag); err == nil {
		name = "localhost/layout@" + tag
	}
	named, err := ParseName(name)
	if err != nil {
		return Place{}, err
	}
	return Place{registry: newLayoutDir(dir), named: named, repo: "layout"}, nil
}

// At is a place of its own in r, which takes every tag for the same.
func (i *Images) At(r ociregistry.Interface) (Place, error) {
	named, err := ParseName("localhost/cache:latest")
	return Place{registry: r, named: named, repo: "cache"}, err
}

// ArtifactOptions say what PushArtifact sends beside the layers.
type ArtifactOptions struct {
	Type        string // of the artifact
	ConfigType  string
	Config      []byte
	Compression layer.Compression // the zero value means gzip
	Level       int
	Parallel    int // layers that travel at once; 0 means 3
	Progress    progress.Sink
}

// PushArtifact sends a document and layers, compressed as in an image, to a
// place. The caller has a lease l on the layers.
func (i *Images) PushArtifact(ctx context.Context, l *store.Lease, to Place, layers []digest.Digest, o ArtifactOptions) (ocispec.Descriptor, error) {
	tagged, ok := to.named.(reference.NamedTagged)
	if !ok {
		return ocispec.Descriptor{}, malformed("push %s: a digest can't be pushed to, a tag can", to.named)
	}
	if len(o.Config) > maxDocument {
		return ocispec.Descriptor{}, malformed("config has more than %d bytes", maxDocument)
	}
	if o.Compression == layer.None {
		o.Compression = layer.Gzip
	}
	p := &pushing{
		images: i, lease: l, dst: to.registry, host: to.host, repo: to.repo, source: to.source,
		o: PushOptions{Compression: o.Compression, Level: o.Level, Progress: o.Progress},
	}
	p.compressing = make(chan struct{}, max(1, min(6/runtime.GOMAXPROCS(0), defaultParallel)))
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: o.Type,
		Config: describe(o.ConfigType, o.Config), Layers: make([]ocispec.Descriptor, len(layers)),
	}
	group, sending := errgroup.WithContext(ctx)
	group.SetLimit(parallel(o.Parallel))
	for n, d := range layers {
		group.Go(func() error {
			sent, err := p.layer(sending, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d}, d)
			if err != nil {
				return fmt.Errorf("layer %s: %w", short(d), err)
			}
			m.Layers[n] = sent
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return ocispec.Descriptor{}, err
	}
	if !p.has(ctx, m.Config) {
		if _, err := p.dst.PushBlob(ctx, p.repo, m.Config, rewindable(o.Config)); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("config: %w", err)
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, err := p.dst.PushManifest(ctx, p.repo, tagged.Tag(), data, m.MediaType); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("manifest: %w", err)
	}
	return describe(m.MediaType, data), nil
}

// Artifact is a manifest, of an image or not, whose config is here and whose
// layers can be fetched one by one.
type Artifact struct {
	Descriptor ocispec.Descriptor
	ConfigType string
	Config     []byte

	// DiffIDs are the layers as the config has them, under "rootfs".
	DiffIDs []digest.Digest

	layers []ocispec.Descriptor
	from   *pulling
}

// OpenArtifact fetches the manifest at a place, for platform if there are
// several, and its config, both verified. l is to keep the layers.
func (i *Images) OpenArtifact(ctx context.Context, l *store.Lease, from Place, platform *ocispec.Platform) (*Artifact, error) {
	doc, err := fetchRoot(ctx, from.registry, from.repo, from.named)
	if err != nil {
		return nil, err
	}
	if doc.index != nil {
		if err := foreignCache(doc.index.Manifests...); err != nil {
			return nil, err
		}
		found := candidates(doc.index, i.platform(platform))
		if len(found) == 0 {
			return nil, noPlatform(doc.index, i.platform(platform))
		}
		if doc, err = fetchManifest(ctx, from.registry, from.repo, found[0]); err != nil {
			return nil, err
		}
	}
	if doc.manifest == nil {
		return nil, malformed("%s is an index of indexes", doc.desc.Digest)
	}
	if err := foreignCache(doc.manifest.Config); err != nil {
		return nil, err
	}
	a := &Artifact{
		Descriptor: doc.desc, ConfigType: doc.manifest.Config.MediaType, layers: doc.manifest.Layers,
		from: &pulling{images: i, lease: l, src: from.registry, repo: from.repo, source: from.source},
	}
	return a, a.readConfig(ctx, doc.manifest.Config)
}

func (a *Artifact) readConfig(ctx context.Context, desc ocispec.Descriptor) error {
	if desc.Size > maxDocument {
		return malformed("config %s of %d bytes is too large", desc.Digest, desc.Size)
	}
	r, err := a.from.src.GetBlob(ctx, a.from.repo, desc.Digest)
	if err != nil {
		return fmt.Errorf("config %s: %w", short(desc.Digest), err)
	}
	if a.Config, err = readAll(r); err != nil {
		return fmt.Errorf("config %s: %w", short(desc.Digest), err)
	}
	if err := verify(desc, a.Config); err != nil {
		return err
	}
	var config struct {
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(a.Config, &config); err != nil {
		return malformed("config %s: %s", desc.Digest, err)
	}
	for _, d := range config.RootFS.DiffIDs {
		if err := checkDescriptor(ocispec.Descriptor{Digest: d}); err != nil {
			return err
		}
	}
	if a.DiffIDs = config.RootFS.DiffIDs; len(a.DiffIDs) != len(a.layers) {
		return malformed("config %s names %d layers, the manifest %d", desc.Digest, len(a.DiffIDs), len(a.layers))
	}
	return nil
}

// Fetch makes the store have a layer of a, verified, and the lease keep it.
// One that a does not have is an [errdefs.ErrNotFound].
func (a *Artifact) Fetch(ctx context.Context, diffID digest.Digest) error {
	n := slices.Index(a.DiffIDs, diffID)
	if n < 0 {
		return fmt.Errorf("layer %s: %w", short(diffID), errdefs.ErrNotFound)
	}
	return a.from.layers(ctx, a.layers[n:n+1], a.DiffIDs[n:n+1])
}

// buildkitCache is the media type of the config of a build cache of BuildKit
// (cache/remotecache/v1/spec.go).
const buildkitCache = "application/vnd.buildkit.cacheconfig.v0"

func foreignCache(ds ...ocispec.Descriptor) error {
	if slices.ContainsFunc(ds, func(d ocispec.Descriptor) bool { return d.MediaType == buildkitCache }) {
		return errdefs.ErrNotImplemented.WithMessage("it is a build cache of BuildKit, whose format is not read here")
	}
	return nil
}
