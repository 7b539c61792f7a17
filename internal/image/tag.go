package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/shaleproject/shale/internal/store"
)

// Tag gives the image src, a name or an id, the further name dst. An image
// that was called dst before keeps existing without a name.
func (i *Images) Tag(ctx context.Context, src, dst string) error {
	named, err := ParseName(dst)
	if err != nil {
		return err
	}
	if _, ok := named.(reference.Digested); ok {
		return malformed("tag %s: a digest can't be given to an image, a tag can", dst)
	}
	lease, err := i.Store.Lease(ctx)
	if err != nil {
		return err
	}
	defer lease.Close()
	ref, err := i.find(ctx, src)
	if err != nil {
		return err
	}
	// Between finding it and naming it another process may remove its last
	// name: hold it, then see that it is still whole.
	if err := lease.Hold(ref.desc.Digest); err != nil {
		return fmt.Errorf("tag %s: %w", src, err)
	}
	return i.name(ctx, naming{named.String(), ref.desc})
}

// naming is a name and what it is to point at.
type naming struct {
	name string
	desc ocispec.Descriptor
}

// name points names at images. An image that one of them pointed at before gets
// a ref without a name if it has no other.
//
// Names move under a lock: of two processes that move the same name the second
// one must see where the first one moved it, or the image in between would be
// lost.
func (i *Images) name(ctx context.Context, list ...naming) error {
	list = slices.DeleteFunc(list, func(n naming) bool {
		old, err := i.Store.Resolve(n.name)
		return err == nil && old.Digest == n.desc.Digest && old.MediaType == n.desc.MediaType
	})
	if len(list) == 0 {
		return nil
	}
	lock, err := i.lock(ctx, namesLock)
	if err != nil {
		return err
	}
	defer lock.Remove()
	moving := make(map[string]bool, len(list))
	for _, n := range list {
		moving[n.name] = true
	}
	for _, n := range list {
		if err := i.keepOld(ctx, n, moving); err != nil {
			return fmt.Errorf("keep the image that was %s: %w", Familiar(n.name), err)
		}
	}
	// A ref is synced when it is set; many at once share their syncs.
	group, _ := errgroup.WithContext(ctx)
	group.SetLimit(syncs)
	for _, n := range list {
		group.Go(func() error {
			if err := i.Store.SetRef(n.name, n.desc); err != nil {
				return err
			}
			return i.dropDangling(n.desc)
		})
	}
	return group.Wait()
}

// syncs is how many small files are made durable at once.
const syncs = 8

// keepOld gives the image that a name points at a ref without a name, unless
// it has a name that is not moving or is the same image.
func (i *Images) keepOld(ctx context.Context, n naming, moving map[string]bool) error {
	old, err := i.Store.Resolve(n.name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	other, err := i.hasName(ctx, old, moving)
	if err != nil || other || i.sameImage(old, n.desc) {
		return err
	}
	err = i.Store.SetRef(dangling+old.Digest.String(), old)
	if errdefs.IsNotFound(err) { // another process has removed it
		return nil
	}
	return err
}

// hasName says whether a ref that is not in except points at desc.
func (i *Images) hasName(ctx context.Context, desc ocispec.Descriptor, except map[string]bool) (bool, error) {
	refs, err := i.Store.Refs(ctx)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(refs, func(r store.Ref) bool {
		return !except[r.Name] && r.Descriptor.Digest == desc.Digest
	}), nil
}

// sameImage says whether two descriptors lead to the same config: then the
// old one needs no ref of its own.
func (i *Images) sameImage(a, b ocispec.Descriptor) bool {
	x, err := i.open(a, nil)
	if err != nil {
		return false
	}
	y, err := i.open(b, nil)
	return err == nil && x.ConfigDigest == y.ConfigDigest
}

// dropDangling removes the nameless ref of an image that has a name again.
func (i *Images) dropDangling(desc ocispec.Descriptor) error {
	err := i.Store.DeleteRef(dangling + desc.Digest.String())
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
