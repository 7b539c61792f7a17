package image

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/progress"
	"github.com/shaleproject/shale/internal/store"
)

// PushOptions says how Push sends.
type PushOptions struct {
	// Platform chooses one image of an index; nil sends what is there.
	Platform *ocispec.Platform

	// Compression of layers that have no compressed form yet. The zero
	// value means gzip; Level 0 is the compression's default.
	Compression layer.Compression
	Level       int

	// Plain sends layers without compression, if they have none yet.
	Plain bool

	// Force compresses layers of base images anew that somebody else has
	// compressed in the same way. It does nothing to an image that was pulled.
	Force bool

	// Parallel is how many layers are sent at once; 0 means 3.
	Parallel int

	// Progress takes Docker's words: layer by layer, then the digest.
	Progress progress.Sink
}

// Push sends the image called name to its registry and returns what the
// registry now holds under that name. The digest is remembered as a ref
// "repo@sha256:…".
//
// Layers that the registry has are not sent. The manifest of a pulled image
// is sent byte for byte as long as each of its compressed layers can be had;
// otherwise, and for images made here, layers are compressed and a manifest is
// written. Compressing the same layer always gives the same bytes.
func (i *Images) Push(ctx context.Context, name string, o PushOptions) (ocispec.Descriptor, error) {
	named, err := ParseName(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	tagged, ok := named.(reference.NamedTagged)
	if !ok {
		return ocispec.Descriptor{}, malformed("push %s: a digest can't be pushed to, a tag can", name)
	}
	desc, err := i.push(ctx, tagged, o)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("push %s: %w", reference.FamiliarString(named), err)
	}
	return desc, nil
}

// PushAll sends every tag of a repository.
func (i *Images) PushAll(ctx context.Context, repository string, o PushOptions) ([]ocispec.Descriptor, error) {
	named, err := parseRepository(repository)
	if err != nil {
		return nil, err
	}
	refs, err := i.Store.Refs(ctx)
	if err != nil {
		return nil, err
	}
	var all []ocispec.Descriptor
	for _, r := range refs {
		if repo, tag, _ := splitRef(r.Name); repo != named.Name() || tag == "" {
			continue
		}
		desc, err := i.Push(ctx, r.Name, o)
		if err != nil {
			return all, err
		}
		all = append(all, desc)
	}
	if len(all) == 0 {
		return nil, noSuchImage(reference.FamiliarName(named))
	}
	return all, nil
}

// pushing is one Push on its way.
type pushing struct {
	images *Images
	lease  *store.Lease
	dst    ociregistry.Interface
	host   string
	repo   string // as the registry calls it
	source string // "host/repo", for the notes
	o      PushOptions

	// compressing has room for the layers that may be compressed at once.
	// Each takes all cores and, where there are many, much memory.
	compressing chan struct{}

	// origins are the repositories that the image was pulled from or pushed
	// to as it is. If there are none it was made here, or loaded.
	origins []string
}

func (i *Images) push(ctx context.Context, named reference.NamedTagged, o PushOptions) (ocispec.Descriptor, error) {
	target, err := i.resolve(ctx, named)
	if errdefs.IsNotFound(err) {
		return ocispec.Descriptor{}, noSuchImage(reference.FamiliarString(named))
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return i.pushTo(ctx, target, named, named.Tag(), o)
}

// PushDigest sends target, a manifest or an index of the store, to a repository
// in which it gets no tag: for those who put it into an index of their own.
func (i *Images) PushDigest(ctx context.Context, target ocispec.Descriptor, repository string, o PushOptions) (ocispec.Descriptor, error) {
	named, err := reference.ParseNormalizedNamed(repository)
	if err != nil {
		return ocispec.Descriptor{}, badName(repository, err)
	}
	if !reference.IsNameOnly(named) {
		return ocispec.Descriptor{}, malformed("can't push tagged ref %s by digest", repository)
	}
	desc, err := i.pushTo(ctx, target, named, "", o)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("push %s: %w", reference.FamiliarString(named), err)
	}
	return desc, nil
}

// pushTo sends target to the repository of named, where it gets the tag unless
// that is empty.
func (i *Images) pushTo(ctx context.Context, target ocispec.Descriptor, named reference.Named, tag string, o PushOptions) (ocispec.Descriptor, error) {
	lease, err := i.Store.Lease(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer lease.Close()
	if err := lease.Hold(target.Digest); err != nil {
		return ocispec.Descriptor{}, err
	}
	host, repo := endpoint(named)
	dst, err := i.Registries(host)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if o.Compression == layer.None {
		o.Compression = layer.Gzip
	}
	p := &pushing{images: i, lease: lease, dst: dst, host: host, repo: repo, source: named.Name(), o: o}
	p.compressing = make(chan struct{}, max(1, min(6/runtime.GOMAXPROCS(0), defaultParallel)))
	if p.origins, err = i.origins(ctx, target); err != nil {
		return ocispec.Descriptor{}, err
	}
	o.Progress.Emit(progress.Event{Message: fmt.Sprintf("The push refers to repository [%s]", named.Name())})

	doc, err := p.send(ctx, target)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, err := dst.PushManifest(ctx, repo, tag, doc.raw, doc.desc.MediaType); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("manifest: %w", err)
	}
	if err := p.record(ctx, named, doc); err != nil {
		return ocispec.Descriptor{}, err
	}
	o.Progress.Emit(progress.Event{Message: fmt.Sprintf("%s: digest: %s size: %d", tag, doc.desc.Digest, doc.desc.Size)})
	return doc.desc, nil
}

// origins returns the repositories that are known to have target.
func (i *Images) origins(ctx context.Context, target ocispec.Descriptor) ([]string, error) {
	refs, err := i.Store.Refs(ctx)
	if err != nil {
		return nil, err
	}
	var origins []string
	for _, r := range refs {
		if repo, _, d := splitRef(r.Name); repo != "" && d == target.Digest && r.Descriptor.Digest == d {
			origins = append(origins, repo)
		}
	}
	return origins, nil
}

// record remembers under which digest the registry has the image.
func (p *pushing) record(ctx context.Context, named reference.Named, doc document) error {
	if _, err := p.images.Store.Put(ctx, p.lease, doc.raw); err != nil {
		return err
	}
	byDigest, err := reference.WithDigest(reference.TrimNamed(named), doc.desc.Digest)
	if err != nil {
		return err
	}
	return p.images.name(ctx, naming{byDigest.String(), doc.desc})
}

// send makes the registry have all that target refers to, and returns the
// manifest or index that is to be put under the tag.
func (p *pushing) send(ctx context.Context, target ocispec.Descriptor) (document, error) {
	doc, err := p.images.document(target)
	if err != nil {
		return document{}, err
	}
	if doc.index != nil && p.o.Platform == nil && p.images.whole(doc.index) {
		return p.sendIndex(ctx, doc)
	}
	img, err := p.images.open(target, p.o.Platform)
	if err != nil {
		return document{}, err
	}
	if doc.index != nil && p.o.Platform == nil {
		p.o.Progress.Emit(progress.Event{Message: "Not all platforms of the image are in the store: only " +
			platforms.Format(img.Config.Platform) + " is pushed"})
	}
	return p.sendImage(ctx, img)
}

// sendImage sends layers and config of an image and returns its manifest.
func (p *pushing) sendImage(ctx context.Context, img *Image) (document, error) {
	layers := make([]ocispec.Descriptor, len(img.DiffIDs))
	group, sending := errgroup.WithContext(ctx)
	group.SetLimit(parallel(p.o.Parallel))
	for _, d := range img.DiffIDs {
		p.o.Progress.Emit(progress.Event{ID: short(d), Action: "Preparing"})
	}
	for n, l := range img.manifest.Layers {
		group.Go(func() error {
			sent, err := p.layer(sending, l, img.DiffIDs[n])
			if err != nil {
				return fmt.Errorf("layer %s: %w", short(img.DiffIDs[n]), err)
			}
			layers[n] = sent
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return document{}, err
	}
	if err := p.config(ctx, img); err != nil {
		return document{}, fmt.Errorf("config: %w", err)
	}
	return p.manifest(img, layers)
}

func (p *pushing) config(ctx context.Context, img *Image) error {
	desc := describe(ocispec.MediaTypeImageConfig, img.RawConfig)
	if p.has(ctx, desc) {
		return nil
	}
	_, err := p.dst.PushBlob(ctx, p.repo, desc, rewindable(img.RawConfig))
	return err
}

// manifest returns the manifest of img with layers as the registry has them:
// the very one that img came with, if it says so.
func (p *pushing) manifest(img *Image, layers []ocispec.Descriptor) (document, error) {
	same := true
	for n, l := range img.manifest.Layers {
		same = same && l.Digest == layers[n].Digest
	}
	if same {
		return p.images.document(img.Manifest)
	}
	if len(p.origins) > 0 {
		p.o.Progress.Emit(progress.Event{Message: fmt.Sprintf(
			"The compressed layers of %s are no longer to be had: pushing layers compressed anew, under another digest", short(img.Manifest.Digest))})
	}
	form := Form{Docker: img.Manifest.MediaType == dockerManifest}
	for n := range layers {
		layers[n].MediaType = form.mediaType(layers[n].MediaType)
	}
	config := img.manifest.Config
	config.MediaType = form.mediaType(ocispec.MediaTypeImageConfig)
	mediaType := form.mediaType(ocispec.MediaTypeImageManifest)
	data, err := json.Marshal(ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   mediaType,
		Config:      config,
		Layers:      layers,
		Annotations: img.manifest.Annotations,
	})
	if err != nil {
		return document{}, err
	}
	return parseDocument(describe(mediaType, data), data)
}

// has asks the registry for a blob. If it can't say, it is taken not to have
// it: the upload will tell.
func (p *pushing) has(ctx context.Context, desc ocispec.Descriptor) bool {
	got, err := p.dst.ResolveBlob(ctx, p.repo, desc.Digest)
	return err == nil && (got.Size == desc.Size || got.Size == 0)
}
