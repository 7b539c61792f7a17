package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shaleproject/shale/internal/sys"
)

// withLease runs f with a lease that lasts as long.
func (r *registry) withLease(ctx context.Context, f func(*Lease) error) error {
	l, err := r.store.Lease(ctx)
	if err != nil {
		return err
	}
	return errors.Join(f(l), l.Close())
}

// link makes content part of a repository, in a registry that has links.
func (r *registry) link(dir string, d digest.Digest) error {
	if !r.linked() {
		return nil
	}
	return r.store.shared(func() error { return r.store.link(dir, d) })
}

// PushBlob takes in a blob.
func (r *registry) PushBlob(ctx context.Context, repo string, desc ocispec.Descriptor, content io.Reader) (ocispec.Descriptor, error) {
	dir, err := r.dir(repo)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, _, err := splitDigest(desc.Digest); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %w", ociregistry.ErrDigestInvalid, err)
	}
	if desc.Size >= 0 {
		content = io.LimitReader(content, desc.Size+1)
	}
	err = r.withLease(ctx, func(l *Lease) error {
		in, err := r.store.Ingest(l)
		if err != nil {
			return err
		}
		defer in.Close()
		if _, err := io.Copy(in, content); err != nil {
			return err
		}
		if desc.Size >= 0 && in.size != desc.Size {
			return fmt.Errorf("%w: at least %d bytes, not %d", ociregistry.ErrSizeInvalid, in.size, desc.Size)
		}
		if _, desc.Size, err = in.Commit(ctx, desc.Digest, -1); err != nil {
			return mismatch(err)
		}
		return r.link(dir, desc.Digest)
	})
	return desc, err
}

// mismatch tells a client that its content is not what its digest says.
func mismatch(err error) error {
	if errdefs.IsFailedPrecondition(err) {
		return fmt.Errorf("%w: %w", ociregistry.ErrDigestInvalid, err)
	}
	return err
}

// MountBlob makes a blob of one repository part of another.
func (r *registry) MountBlob(ctx context.Context, fromRepo, toRepo string, d digest.Digest) (ocispec.Descriptor, error) {
	from, err := r.dir(fromRepo)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	to, err := r.dir(toRepo)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if !r.linked() {
		return ocispec.Descriptor{}, fmt.Errorf("mount blob: %w", ociregistry.ErrUnsupported)
	}
	var size int64
	err = r.store.shared(func() error {
		if err := r.hasBlob(ctx, from, d); err != nil {
			return err
		}
		if err := r.store.link(to, d); err != nil {
			return err
		}
		size, err = r.store.Stat(d)
		return err
	})
	return ocispec.Descriptor{MediaType: mediaTypeBlob, Digest: d, Size: size}, err
}

// PushManifest takes in a manifest or an index. What it refers to must be in
// the repository before, its subject excepted.
func (r *registry) PushManifest(ctx context.Context, repo, tag string, data []byte, mediaType string) (ocispec.Descriptor, error) {
	if tag != "" && !validTag(tag) {
		return ocispec.Descriptor{}, fmt.Errorf("%w: invalid tag %.200q", ociregistry.ErrManifestInvalid, tag)
	}
	return r.pushManifest(ctx, repo, tag, digest.FromBytes(data), data, mediaType)
}

// PushManifestAs takes in a manifest under a digest of the client's choice. It
// is not part of the Interface; the server looks for it when a manifest comes
// under another digest than SHA-256.
func (r *registry) PushManifestAs(ctx context.Context, repo string, d digest.Digest, data []byte, mediaType string) (ocispec.Descriptor, error) {
	if _, _, err := splitDigest(d); err != nil || d.Algorithm().FromBytes(data) != d {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %.140s", ociregistry.ErrDigestInvalid, d)
	}
	return r.pushManifest(ctx, repo, "", d, data, mediaType)
}

func (r *registry) pushManifest(ctx context.Context, repo, tag string, d digest.Digest, data []byte, mediaType string) (ocispec.Descriptor, error) {
	dir, err := r.dir(repo)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	doc, err := parseManifest(data, mediaType)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %w", ociregistry.ErrManifestInvalid, err)
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	err = r.withLease(ctx, func(l *Lease) error {
		if err := l.Keep(doc.children()...); err != nil {
			return err
		}
		if err := r.hasChildren(ctx, dir, doc); err != nil {
			return err
		}
		if _, err := r.store.put(ctx, l, d, data); err != nil {
			return err
		}
		// The links must not be lost when the ref is not.
		if err := sys.SyncDir(r.store.path(linksDir, dir)); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		return r.setRefs(dir, tag, desc, doc)
	})
	return desc, err
}

// hasChildren makes sure that the repository has what the manifest refers to,
// and goes on to have it until the manifest keeps it.
func (r *registry) hasChildren(ctx context.Context, dir string, doc *document) error {
	return r.store.shared(func() error {
		for _, m := range doc.Manifests {
			if _, err := r.store.readRef(refName{dir, "@" + string(m.Digest)}); err != nil && r.linked() {
				return fmt.Errorf("%w: manifest %s", ociregistry.ErrManifestBlobUnknown, m.Digest)
			}
			if err := r.store.present(m.Digest, m.Size); err != nil {
				return unknownChild(err, m.Digest)
			}
		}
		blobs := doc.Layers
		if doc.Config != nil {
			blobs = append(blobs[:len(blobs):len(blobs)], *doc.Config)
		}
		for _, b := range blobs {
			err := r.store.present(b.Digest, b.Size)
			if errdefs.IsNotFound(err) && foreign(b) {
				continue
			}
			if err == nil && r.linked() {
				if err = r.store.linked(dir, b.Digest); err == nil {
					err = r.store.link(dir, b.Digest)
				}
			}
			if err != nil {
				return unknownChild(err, b.Digest)
			}
		}
		return context.Cause(ctx)
	})
}

func unknownChild(err error, d digest.Digest) error {
	switch {
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%w: blob %s", ociregistry.ErrManifestBlobUnknown, d)
	case errdefs.IsDataLoss(err): // another size than the descriptor says
		return fmt.Errorf("%w: %w", ociregistry.ErrManifestInvalid, err)
	}
	return err
}

// setRefs names the manifest: by digest where the registry has links or there
// is no tag, and by tag.
func (r *registry) setRefs(dir, tag string, desc ocispec.Descriptor, doc *document) error {
	if r.linked() || tag == "" {
		if err := r.store.SetRef(dir+"@"+string(desc.Digest), desc); err != nil {
			return err
		}
	}
	if doc.Subject != nil && r.linked() {
		// After the ref: an entry without one is garbage.
		path := r.store.referrerPath(dir, doc.Subject.Digest, desc.Digest)
		if err := r.store.shared(func() error { return r.store.makeLink(path) }); err != nil {
			return err
		}
	}
	if tag == "" {
		return nil
	}
	return r.store.SetRef(dir+":"+tag, desc)
}
