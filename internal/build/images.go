package build

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/progress"
	"github.com/shaleproject/shale/internal/store"
)

// bases finds the base images of one build. What it has found stays what it
// is until the build is over, wherever names move.
type bases struct {
	images  *image.Images
	lease   *store.Lease
	layouts map[string]image.Place // by the names that the graph has for them

	mu    sync.Mutex
	found map[string]*image.Image // by digest and platform
}

func newBases(images *image.Images, lease *store.Lease, layouts map[string]image.Place) *bases {
	return &bases{images: images, lease: lease, layouts: layouts, found: map[string]*image.Image{}}
}

// Resolve returns the digest and the config of the image called name. One
// that is here is taken as it is, as Docker does; only "pull" asks first.
func (b *bases) Resolve(ctx context.Context, name, mode string, platform *ocispec.Platform, step *solver.Step) (digest.Digest, []byte, error) {
	img, err := b.find(ctx, name, mode == "pull", platform, step)
	if err != nil {
		return "", nil, err
	}
	b.note(baseKey(img.Target.Digest, platform), img)
	return img.Target.Digest, img.RawConfig, nil
}

// ResolveLayout returns the digest and the config of an image in an OCI
// layout, all of which is then in the store.
func (b *bases) ResolveLayout(ctx context.Context, layout string, platform *ocispec.Platform, step *solver.Step) (digest.Digest, []byte, error) {
	img, err := b.fromLayout(ctx, layout, platform, step)
	if err != nil {
		return "", nil, err
	}
	return img.Target.Digest, img.RawConfig, nil
}

// LayoutLayers returns the layers of an image in an OCI layout.
func (b *bases) LayoutLayers(ctx context.Context, layout string, platform *ocispec.Platform, step *solver.Step) ([]digest.Digest, error) {
	img, err := b.fromLayout(ctx, layout, platform, step)
	if err != nil {
		return nil, err
	}
	return img.DiffIDs, nil
}

func (b *bases) fromLayout(ctx context.Context, layout string, platform *ocispec.Platform, step *solver.Step) (*image.Image, error) {
	place, ok := b.layouts[layout]
	if !ok {
		return nil, fmt.Errorf("OCI layout %q: %w", layout, errdefs.ErrNotFound)
	}
	key := layout
	if platform != nil {
		key += " " + platforms.Format(*platform)
	}
	b.mu.Lock()
	img := b.found[key]
	b.mu.Unlock()
	if img != nil {
		return img, nil
	}
	img, err := b.images.Fetch(ctx, b.lease, place, platform, shown(step))
	if err != nil {
		return nil, fmt.Errorf("read OCI layout: %w", err)
	}
	b.note(key, img)
	return img, nil
}

func (b *bases) note(key string, img *image.Image) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.found[key] = img
}

// shown sends what happens to images to the display.
func shown(step *solver.Step) progress.Sink {
	return func(e progress.Event) {
		if e.ID != "" {
			step.Progress(e.ID+" "+e.Action, e.Current, e.Total, e.Total == 0 || e.Current >= e.Total)
		}
	}
}

func baseKey(d digest.Digest, platform *ocispec.Platform) string {
	if platform == nil {
		return d.String()
	}
	return d.String() + " " + platforms.Format(*platform)
}

func (b *bases) find(ctx context.Context, name string, pull bool, platform *ocispec.Platform, step *solver.Step) (*image.Image, error) {
	if !pull {
		img, err := b.get(ctx, name, platform)
		if !errdefs.IsNotFound(err) {
			return img, err
		}
	}
	if _, err := b.images.Pull(ctx, name, image.PullOptions{Platform: platform, Progress: shown(step)}); err != nil {
		return nil, err
	}
	return b.get(ctx, name, platform)
}

// get finds an image in the store and leases it.
func (b *bases) get(ctx context.Context, name string, platform *ocispec.Platform) (*image.Image, error) {
	img, err := b.images.Get(ctx, name, platform)
	if err != nil {
		return nil, err
	}
	keep := append([]digest.Digest{img.Target.Digest, img.Manifest.Digest, img.ConfigDigest}, img.DiffIDs...)
	if err := b.lease.Keep(keep...); err != nil {
		return nil, err
	}
	return img, nil
}

// Layers returns the layers of the image called name.
func (b *bases) Layers(ctx context.Context, name string, platform *ocispec.Platform, step *solver.Step) ([]digest.Digest, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fmt.Errorf("base image %q: %w", name, errdefs.ErrInvalidArgument)
	}
	if digested, ok := named.(reference.Digested); ok {
		b.mu.Lock()
		img := b.found[baseKey(digested.Digest(), platform)]
		b.mu.Unlock()
		if img != nil {
			return img.DiffIDs, nil
		}
	}
	img, err := b.find(ctx, name, false, platform, step)
	if err != nil {
		return nil, err
	}
	return img.DiffIDs, nil
}

// known are the layers of the images that this build has asked for.
func (b *bases) known() map[digest.Digest]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	layers := map[digest.Digest]bool{}
	for _, img := range b.found {
		for _, d := range img.DiffIDs {
			layers[d] = true
		}
	}
	return layers
}
