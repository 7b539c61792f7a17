package image

import (
	"context"
	"fmt"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/shaleproject/shale/internal/progress"
)

// CopyOptions says what Copy copies.
type CopyOptions struct {
	// Platform copies one image of an index; nil copies all of it.
	Platform *ocispec.Platform

	// Parallel is how many blobs travel at once; 0 means 3.
	Parallel int

	Progress progress.Sink
}

// Copy sends an image from one registry to another, byte for byte, with all
// platforms and what else its index names, and keeps nothing of it.
func (i *Images) Copy(ctx context.Context, src, dst string, o CopyOptions) (ocispec.Descriptor, error) {
	from, err := ParseName(src)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	to, err := ParseName(dst)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := i.copy(ctx, from, to, o)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("copy %s to %s: %w", reference.FamiliarString(from), reference.FamiliarString(to), err)
	}
	return desc, nil
}

// copying is one Copy on its way.
type copying struct {
	src              ociregistry.Reader
	dst              ociregistry.Interface
	srcRepo, dstRepo string
	sameHost         bool
	o                CopyOptions
	done             map[digest.Digest]bool
}

func (i *Images) copy(ctx context.Context, from, to reference.Named, o CopyOptions) (ocispec.Descriptor, error) {
	c := &copying{o: o, done: make(map[digest.Digest]bool)}
	var srcHost, dstHost string
	srcHost, c.srcRepo = endpoint(from)
	dstHost, c.dstRepo = endpoint(to)
	c.sameHost = srcHost == dstHost
	src, err := i.Registries(srcHost)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	c.src = src
	if c.dst, err = i.Registries(dstHost); err != nil {
		return ocispec.Descriptor{}, err
	}
	doc, err := fetchRoot(ctx, src, c.srcRepo, from)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if doc.index != nil && o.Platform != nil {
		list := candidates(doc.index, *o.Platform)
		if len(list) == 0 {
			return ocispec.Descriptor{}, noPlatform(doc.index, *o.Platform)
		}
		if doc, err = fetchManifest(ctx, src, c.srcRepo, list[0]); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	tag := ""
	if tagged, ok := to.(reference.Tagged); ok {
		tag = tagged.Tag()
	}
	if digested, ok := to.(reference.Digested); ok && digested.Digest() != doc.desc.Digest {
		return ocispec.Descriptor{}, malformed("the image has digest %s", doc.desc.Digest)
	}
	if err := c.document(ctx, doc, tag, 0); err != nil {
		return ocispec.Descriptor{}, err
	}
	o.Progress.Emit(progress.Event{Message: fmt.Sprintf("%s: digest: %s size: %d", reference.FamiliarString(to), doc.desc.Digest, doc.desc.Size)})
	return doc.desc, nil
}

// document sends what doc refers to, then doc.
func (c *copying) document(ctx context.Context, doc document, tag string, depth int) error {
	const maxDepth = 4
	if depth > maxDepth {
		return malformed("index %s is nested deeper than %d levels", doc.desc.Digest, maxDepth)
	}
	if doc.index != nil {
		for _, m := range doc.index.Manifests {
			if c.done[m.Digest] {
				continue
			}
			c.done[m.Digest] = true
			sub, err := fetchManifest(ctx, c.src, c.srcRepo, m)
			if err != nil {
				return err
			}
			if err := c.document(ctx, sub, "", depth+1); err != nil {
				return err
			}
		}
	} else if err := c.blobs(ctx, append([]ocispec.Descriptor{doc.manifest.Config}, doc.manifest.Layers...)); err != nil {
		return err
	}
	if _, err := c.dst.PushManifest(ctx, c.dstRepo, tag, doc.raw, doc.desc.MediaType); err != nil {
		return fmt.Errorf("manifest %s: %w", doc.desc.Digest, err)
	}
	return nil
}

func (c *copying) blobs(ctx context.Context, blobs []ocispec.Descriptor) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel(c.o.Parallel))
	for _, b := range blobs {
		if c.done[b.Digest] {
			continue
		}
		c.done[b.Digest] = true
		group.Go(func() error {
			if err := c.blob(ctx, b); err != nil {
				return fmt.Errorf("blob %s: %w", short(b.Digest), err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (c *copying) blob(ctx context.Context, desc ocispec.Descriptor) error {
	id := short(desc.Digest)
	if _, err := c.dst.ResolveBlob(ctx, c.dstRepo, desc.Digest); err == nil {
		c.o.Progress.Emit(progress.Event{ID: id, Action: "Layer already exists"})
		return nil
	}
	if c.sameHost {
		if _, err := c.dst.MountBlob(ctx, c.srcRepo, c.dstRepo, desc.Digest); err == nil {
			c.o.Progress.Emit(progress.Event{ID: id, Action: "Mounted from " + c.srcRepo})
			return nil
		}
	}
	r, err := c.src.GetBlob(ctx, c.srcRepo, desc.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	blob := newVerifier(r, desc, func(n int64) {
		c.o.Progress.Emit(progress.Event{ID: id, Action: "Copying", Current: n, Total: desc.Size})
	})
	if _, err := c.dst.PushBlob(ctx, c.dstRepo, ocispec.Descriptor{MediaType: octets, Digest: desc.Digest, Size: desc.Size}, blob); err != nil {
		return blob.blame(err)
	}
	c.o.Progress.Emit(progress.Event{ID: id, Action: "Copied"})
	return nil
}
