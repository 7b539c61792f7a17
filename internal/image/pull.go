package image

import (
	"context"
	"errors"
	"fmt"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/progress"
	"github.com/shaleproject/shale/internal/store"
)

// PullOptions says what Pull fetches.
type PullOptions struct {
	// Platform is the wanted one; nil means the default.
	Platform *ocispec.Platform

	// Parallel is how many layers are fetched at once; 0 means 3.
	Parallel int

	// Progress takes Docker's words: layer by layer, then the digest and
	// the status.
	Progress progress.Sink
}

// Pull fetches the image called name, and all that it refers to, from its
// registry and points name at it.
//
// Content that the store already has is not fetched again. A lease guards new
// content from collection until the name points at it, so an interrupted Pull
// costs disk space and nothing else; the next one goes on with the layers
// that are complete.
//
// Errors: [errdefs.ErrNotFound] for an unknown name or a platform that the
// image does not have, [errdefs.ErrDataLoss] for content that is not what its
// digest says, [errdefs.ErrInvalidArgument] and [errdefs.ErrNotImplemented]
// for documents that are malformed or of another kind, and those of the
// registry.
func (i *Images) Pull(ctx context.Context, name string, o PullOptions) (ocispec.Descriptor, error) {
	named, err := ParseName(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := i.pull(ctx, named, o)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("pull %s: %w", reference.FamiliarString(named), err)
	}
	return desc, nil
}

// PullAll fetches every tag of a repository.
func (i *Images) PullAll(ctx context.Context, repository string, o PullOptions) ([]ocispec.Descriptor, error) {
	named, err := parseRepository(repository)
	if err != nil {
		return nil, err
	}
	host, repo := endpoint(named)
	src, err := i.Registries(host)
	if err != nil {
		return nil, fmt.Errorf("pull %s: %w", reference.FamiliarString(named), err)
	}
	var all []ocispec.Descriptor
	for tag, err := range src.Tags(ctx, repo, "") {
		if err != nil {
			return all, fmt.Errorf("list tags of %s: %w", reference.FamiliarString(named), err)
		}
		tagged, err := reference.WithTag(named, tag)
		if err != nil {
			return all, badName(tag, err)
		}
		desc, err := i.Pull(ctx, tagged.String(), o)
		if err != nil {
			return all, err
		}
		all = append(all, desc)
	}
	return all, nil
}

// pulling is one Pull on its way.
type pulling struct {
	images *Images
	lease  *store.Lease
	src    ociregistry.Reader
	repo   string // as the registry calls it
	source string // "host/repo", for the notes
	o      PullOptions

	documents [][]byte // verified, to be stored before the ref
	looked    int      // manifests of indexes that were looked at
}

// maxLooks bounds how many manifests of an index are fetched in search of one
// for the platform. Only those that name no platform need a look.
const maxLooks = 64

func (i *Images) pull(ctx context.Context, named reference.Named, o PullOptions) (ocispec.Descriptor, error) {
	host, repo := endpoint(named)
	src, err := i.Registries(host)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	lease, err := i.Store.Lease(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer lease.Close()
	p := &pulling{images: i, lease: lease, src: src, repo: repo, source: named.Name(), o: o}

	doc, err := p.root(ctx, named)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m, config, err := p.choose(ctx, doc, 0)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := p.layers(ctx, m.manifest.Layers, config.RootFS.DiffIDs); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := p.attestations(ctx, doc, m.desc.Digest); err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, data := range p.documents {
		if _, err := i.Store.Put(ctx, lease, data); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	return doc.desc, p.finish(ctx, named, doc.desc)
}

// root fetches what the name points at and notes it for the store.
func (p *pulling) root(ctx context.Context, named reference.Named) (document, error) {
	what := ""
	switch n := named.(type) {
	case reference.Digested:
		what = n.Digest().String()
	case reference.Tagged:
		what = n.Tag()
	}
	p.o.Progress.Emit(progress.Event{ID: what, Action: "Pulling from " + reference.Path(named)})
	doc, err := fetchRoot(ctx, p.src, p.repo, named)
	if err == nil {
		err = doc.checkImage()
	}
	if err != nil {
		return document{}, err
	}
	return doc, p.keep(doc.desc.Digest, doc.raw)
}

func (p *pulling) keep(d digest.Digest, data []byte) error {
	p.documents = append(p.documents, data)
	return p.lease.Keep(d)
}

// choose walks from doc to the manifest for the platform and its config.
func (p *pulling) choose(ctx context.Context, doc document, depth int) (document, *Config, error) {
	const maxDepth = 4
	want := p.images.platform(p.o.Platform)
	if doc.manifest != nil {
		config, err := p.config(ctx, doc.manifest)
		if err != nil {
			return document{}, nil, err
		}
		// A tag that is no index is the only image there is: only a
		// platform that somebody asked for can be missing from it.
		if (depth > 0 || p.o.Platform != nil) && !serves(config.Platform, want) {
			return document{}, nil, &otherPlatform{config.Platform, want}
		}
		return doc, config, nil
	}
	if depth == maxDepth {
		return document{}, nil, malformed("index %s is nested deeper than %d levels", doc.desc.Digest, maxDepth)
	}
	for _, c := range candidates(doc.index, want) {
		if p.looked++; p.looked > maxLooks {
			return document{}, nil, malformed("index %s has too many manifests that name no platform", doc.desc.Digest)
		}
		sub, err := p.manifest(ctx, c)
		if err != nil {
			return document{}, nil, err
		}
		known := len(p.documents)
		if err := p.keep(sub.desc.Digest, sub.raw); err != nil {
			return document{}, nil, err
		}
		m, config, err := p.choose(ctx, sub, depth+1)
		if other := new(otherPlatform); errors.As(err, &other) {
			p.documents = p.documents[:known]
			continue
		}
		return m, config, err
	}
	return document{}, nil, noPlatform(doc.index, want)
}

// manifest returns a manifest or index that an index names.
func (p *pulling) manifest(ctx context.Context, desc ocispec.Descriptor) (document, error) {
	if data, err := p.images.Store.Read(desc.Digest); err == nil {
		return parseDocument(desc, data)
	}
	doc, err := fetchManifest(ctx, p.src, p.repo, desc)
	if err != nil {
		return document{}, err
	}
	return doc, doc.checkImage()
}

func (p *pulling) config(ctx context.Context, m *ocispec.Manifest) (*Config, error) {
	data, err := p.images.Store.Read(m.Config.Digest)
	if err != nil {
		r, err := p.src.GetBlob(ctx, p.repo, m.Config.Digest)
		if err != nil {
			return nil, fmt.Errorf("config %s: %w", short(m.Config.Digest), err)
		}
		if data, err = readAll(r); err != nil {
			return nil, fmt.Errorf("config %s: %w", short(m.Config.Digest), err)
		}
	}
	config, err := parseConfig(m.Config, data, len(m.Layers))
	if err != nil {
		return nil, err
	}
	return config, p.keep(m.Config.Digest, data)
}

// finish points the names at desc and says so.
func (p *pulling) finish(ctx context.Context, named reference.Named, desc ocispec.Descriptor) error {
	i := p.images
	byDigest, err := reference.WithDigest(reference.TrimNamed(named), desc.Digest)
	if err != nil {
		return err
	}
	old, err := i.Store.Resolve(named.String())
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	names := []naming{{byDigest.String(), desc}}
	if named.String() != byDigest.String() {
		names = append(names, naming{named.String(), desc})
	}
	if err := i.name(ctx, names...); err != nil {
		return err
	}
	status := "Downloaded newer image for "
	if old.Digest == desc.Digest {
		status = "Image is up to date for "
	}
	p.o.Progress.Emit(progress.Event{Message: "Digest: " + desc.Digest.String()})
	p.o.Progress.Emit(progress.Event{Message: "Status: " + status + reference.FamiliarString(named)})
	return nil
}
