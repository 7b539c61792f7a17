// Package image does what can be done with whole images: pull, push, tag,
// list, inspect, save, load, import, remove.
//
// An image is a configuration and a stack of layers; its id is the digest of
// the configuration. A name (ref) points at the manifest or index as it was
// pulled, or, for an image made here, at a manifest whose layers are the
// uncompressed tars. Beside a tag, "repo@sha256:…" records under which digest
// a registry holds the image: pull and push set it.
//
// Everything that comes from outside is verified before anything in the store
// refers to it, and guarded by a lease until a name does. An operation that is
// interrupted costs disk space and nothing else.
package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/store"
)

// Images is the list of images in a store, and the registries that they come
// from and go to. Its methods may be called from any number of goroutines and
// processes at once.
type Images struct {
	Store *store.Store

	// Registries returns the registry at host ("docker.io", "localhost:5000").
	Registries func(host string) (ociregistry.Interface, error)

	// Platform is the one that is meant where none is named.
	Platform ocispec.Platform

	// Now is the clock; it reaches the configs of imported images.
	Now func() time.Time

	// Users lists the containers and what they are made of, so that Remove
	// and Prune keep images that are in use. Nil means that there are none.
	Users func(ctx context.Context) ([]User, error)
}

// User is a container, seen as the user of an image.
type User struct {
	Container string        // its id
	Image     digest.Digest // the image's id
	Running   bool
}

// Image is one image for one platform. It is a value: nothing in it changes
// when names move.
type Image struct {
	// Name is the ref it was found by; empty if it was found by id.
	Name string

	// Target is what the ref points at: the manifest or an index over it.
	Target ocispec.Descriptor

	// Manifest is the platform's manifest.
	Manifest ocispec.Descriptor

	// ConfigDigest is the image's id.
	ConfigDigest digest.Digest

	// Config is the configuration; RawConfig is the same, byte for byte.
	Config    *Config
	RawConfig []byte

	// DiffIDs are the layers, lowest first.
	DiffIDs []digest.Digest

	manifest *ocispec.Manifest
}

// Get finds an image by name, by id or by the start of an id, for platform,
// or, if that is nil, for the default one. It looks only into the store.
//
// Errors: [errdefs.ErrNotFound] if there is none, or none for the platform;
// [errdefs.ErrInvalidArgument] if the name is malformed or an id's start is
// that of several images.
func (i *Images) Get(ctx context.Context, name string, platform *ocispec.Platform) (*Image, error) {
	ref, err := i.find(ctx, name)
	if err != nil {
		return nil, err
	}
	img, err := i.open(ref.desc, platform)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	img.Name = ref.name
	return img, nil
}

// found is where a name or id leads: a ref and what it points at. name is
// empty if the image was given by id.
type found struct {
	name string
	desc ocispec.Descriptor
}

// find resolves name like Docker: a full id, then a name, then the start of
// an id.
func (i *Images) find(ctx context.Context, name string) (found, error) {
	if hex, ok := idPrefix(name); ok && (len(hex) == 64 || strings.HasPrefix(name, "sha256:")) {
		return i.findID(ctx, name, hex)
	}
	named, err := ParseName(name)
	if err == nil {
		desc, err := i.resolve(ctx, named)
		if err == nil {
			return found{named.String(), desc}, nil
		}
		if !errdefs.IsNotFound(err) {
			return found{}, err
		}
	}
	if hex, ok := idPrefix(name); ok {
		return i.findID(ctx, name, hex)
	}
	if err != nil {
		return found{}, err
	}
	return found{}, noSuchImage(reference.FamiliarString(named))
}

// resolve looks named up among the refs. A name with a digest is also found
// behind any tag of the same repository that points at that digest.
func (i *Images) resolve(ctx context.Context, named reference.Named) (ocispec.Descriptor, error) {
	desc, err := i.Store.Resolve(named.String())
	digested, ok := named.(reference.Digested)
	if err == nil || !errdefs.IsNotFound(err) || !ok {
		return desc, err
	}
	refs, err := i.Store.Refs(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, r := range refs {
		repo, _, _ := splitRef(r.Name)
		if repo == named.Name() && r.Descriptor.Digest == digested.Digest() {
			return r.Descriptor, nil
		}
	}
	return ocispec.Descriptor{}, noSuchImage(reference.FamiliarString(named))
}

// findID looks for an image whose id starts with hex.
func (i *Images) findID(ctx context.Context, name, hex string) (found, error) {
	all, err := i.records(ctx)
	if err != nil {
		return found{}, err
	}
	var hit *record
	for _, r := range all {
		if !strings.HasPrefix(r.ID.Encoded(), hex) && !strings.HasPrefix(r.desc.Digest.Encoded(), hex) {
			continue
		}
		if hit != nil && hit.ID != r.ID {
			return found{}, errdefs.ErrInvalidArgument.WithMessage(
				fmt.Sprintf("image id %s is ambiguous: %s and %s start with it", name, short(hit.ID), short(r.ID)))
		}
		hit = r
	}
	if hit == nil {
		return found{}, noSuchImage(name)
	}
	return found{desc: hit.desc}, nil
}

func noSuchImage(name string) error {
	return errdefs.ErrNotFound.WithMessage("no such image: " + name)
}

// open reads the image behind desc, an index or a manifest, for platform. A
// nil platform means the default one, or the only one that is there.
func (i *Images) open(desc ocispec.Descriptor, platform *ocispec.Platform) (*Image, error) {
	doc, err := i.document(desc)
	if err != nil {
		return nil, err
	}
	if doc.index == nil {
		img, err := i.openManifest(desc, doc)
		if err == nil && platform != nil && !serves(img.Config.Platform, *platform) {
			return nil, &otherPlatform{img.Config.Platform, *platform}
		}
		return img, err
	}
	want := i.Platform
	if platform != nil {
		want = *platform
	}
	for _, m := range i.present(doc.index, want, platform == nil) {
		sub, err := i.document(m)
		if err != nil || sub.manifest == nil {
			continue
		}
		img, err := i.openManifest(desc, sub)
		if err != nil || platform != nil && !serves(img.Config.Platform, want) {
			continue
		}
		return img, nil
	}
	if platform == nil {
		return nil, errdefs.ErrNotFound.WithMessage("no platform of it is in the store")
	}
	return nil, errdefs.ErrNotFound.WithMessage(fmt.Sprintf("platform %s of it is not in the store", platforms.Format(want)))
}

// present returns the manifests of index that are in the store: those for
// want, best first, then, if any is set, the rest.
func (i *Images) present(index *ocispec.Index, want ocispec.Platform, any bool) []ocispec.Descriptor {
	list := candidates(index, want)
	if any {
		for _, m := range index.Manifests {
			if m.Annotations[attestation] == "" && !slices.ContainsFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == m.Digest }) {
				list = append(list, m)
			}
		}
	}
	return slices.DeleteFunc(list, func(d ocispec.Descriptor) bool {
		_, err := i.Store.Stat(d.Digest)
		return err != nil
	})
}

// openManifest reads the config of a manifest.
func (i *Images) openManifest(target ocispec.Descriptor, doc document) (*Image, error) {
	raw, err := i.Store.Read(doc.manifest.Config.Digest)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	config, err := parseConfig(doc.manifest.Config, raw, len(doc.manifest.Layers))
	if err != nil {
		return nil, err
	}
	return &Image{
		Target:       target,
		Manifest:     doc.desc,
		ConfigDigest: doc.manifest.Config.Digest,
		Config:       config,
		RawConfig:    raw,
		DiffIDs:      config.RootFS.DiffIDs,
		manifest:     doc.manifest,
	}, nil
}

// document reads an index or a manifest from the store.
func (i *Images) document(desc ocispec.Descriptor) (document, error) {
	data, err := i.Store.Read(desc.Digest)
	if err != nil {
		return document{}, fmt.Errorf("read manifest: %w", err)
	}
	return parseDocument(desc, data)
}

// platform returns the wanted platform, or the default one.
func (i *Images) platform(p *ocispec.Platform) ocispec.Platform {
	if p != nil {
		return *p
	}
	return i.Platform
}
