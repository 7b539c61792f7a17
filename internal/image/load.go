package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

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
