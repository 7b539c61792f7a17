package image

import (
	"context"
	"fmt"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/containerd/errdefs"
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
	return i.name(ctx, named.String(), ref.desc)
}

// name points name at desc. The image that it pointed at before gets a ref
// without a name if that was its last.
func (i *Images) name(ctx context.Context, name string, desc ocispec.Descriptor) error {
	old, err := i.Store.Resolve(name)
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if err == nil && old.Digest == desc.Digest && old.MediaType == desc.MediaType {
		return nil
	}
	if err := i.move(ctx, name, desc); err != nil {
		return err
	}
	return i.dropDangling(desc)
}

// move points a name that may be another image's at desc. Of two processes that
// move the same name the second one must see where the first one moved it, or
// the image in between would be lost.
func (i *Images) move(ctx context.Context, name string, desc ocispec.Descriptor) error {
	lock, err := i.lock(ctx, namesLock)
	if err != nil {
		return err
	}
	defer lock.Remove()
	old, err := i.Store.Resolve(name)
	if err == nil {
		err = i.keepOld(ctx, name, old, desc)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("keep the image that was %s: %w", Familiar(name), err)
	}
	return i.Store.SetRef(name, desc)
}

// keepOld gives the image that name pointed at a ref without a name, unless
// it has another name or is the same image.
func (i *Images) keepOld(ctx context.Context, name string, old, desc ocispec.Descriptor) error {
	other, err := i.otherName(ctx, name, old)
	if err != nil || other || i.sameImage(old, desc) {
		return err
	}
	err = i.Store.SetRef(dangling+old.Digest.String(), old)
	if errdefs.IsNotFound(err) { // another process has removed it
		return nil
	}
	return err
}

// otherName says whether a ref other than name points at desc.
func (i *Images) otherName(ctx context.Context, name string, desc ocispec.Descriptor) (bool, error) {
	refs, err := i.Store.Refs(ctx)
	if err != nil {
		return false, err
	}
	for _, r := range refs {
		if r.Name != name && r.Descriptor.Digest == desc.Digest {
			return true, nil
		}
	}
	return false, nil
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
