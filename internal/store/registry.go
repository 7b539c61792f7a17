package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// registry is the repositories "<prefix>/<repo>" of a store.
//
// In a hidden namespace (a prefix that begins with "_") it is a registry of
// its own: a repository has the blobs that were pushed to it or mounted into
// it, as links remember, and each of its manifests has a ref by digest beside
// those by tag. Elsewhere a repository has what its refs reach.
//
// A layer of which the store has only the tar is absent here: a registry
// gives what was pushed, byte for byte.
type registry struct {
	*ociregistry.Funcs
	store  *Store
	prefix string

	mu     sync.Mutex
	hashes map[string]hashState // of uploads that wait for their next chunk
	busy   map[string]bool      // uploads that a request writes to
}

// Registry returns the repositories "<prefix>/<repo>" of s as a registry. The
// prefix is a host or a hidden namespace, such as "_served"; any other is a
// mistake of the program. Uploads can be resumed after the server was
// restarted; one that nobody resumes goes with the grace of [CollectOptions].
func (s *Store) Registry(prefix string) ociregistry.Interface {
	if !validHost(prefix) {
		panic("store: invalid prefix of a registry: " + prefix)
	}
	return &registry{store: s, prefix: prefix, hashes: map[string]hashState{}, busy: map[string]bool{}}
}

// maxRepo is the length of a repository's name that everybody takes.
const maxRepo = 255

// dir returns the directory of a repository below refs/ and links/.
func (r *registry) dir(repo string) (string, error) {
	if len(repo) > maxRepo || !validRepo(repo) {
		return "", fmt.Errorf("%w: %.300q", ociregistry.ErrNameInvalid, repo)
	}
	return r.prefix + "/" + repo, nil
}

// linked reports whether blobs of this registry need a link.
func (r *registry) linked() bool { return strings.HasPrefix(r.prefix, "_") }

// unknown explains why something of a repository isn't there: because there is
// no such repository, or for the reason given.
func (r *registry) unknown(dir string, why ociregistry.Error, what string) error {
	for _, top := range []string{refsDir, linksDir} {
		if _, err := os.Lstat(r.store.path(top, dir)); err == nil {
			return fmt.Errorf("%w: %s", why, what)
		}
	}
	return fmt.Errorf("%w: %s", ociregistry.ErrNameUnknown, strings.TrimPrefix(dir, r.prefix+"/"))
}

// hasBlob returns nil if the repository has the blob.
func (r *registry) hasBlob(ctx context.Context, dir string, d digest.Digest) error {
	if _, _, err := splitDigest(d); err != nil {
		return fmt.Errorf("%w: %w", ociregistry.ErrDigestInvalid, err)
	}
	var err error
	if r.linked() {
		err = r.store.linked(dir, d)
	} else {
		err = r.reaches(ctx, dir, d)
	}
	if errdefs.IsNotFound(err) {
		return r.unknown(dir, ociregistry.ErrBlobUnknown, string(d))
	}
	return err
}

// reaches looks for a blob below the refs of a repository.
func (r *registry) reaches(ctx context.Context, dir string, d digest.Digest) error {
	refs, err := r.store.refsOf(ctx, dir)
	if err != nil {
		return err
	}
	m := newMarker(r.store)
	for _, ref := range refs {
		if err := m.mark(ref.Descriptor.Digest); err != nil {
			return err
		}
		if m.live[d] {
			return r.store.present(d, -1)
		}
	}
	return fmt.Errorf("blob %s: %w", d, errdefs.ErrNotFound)
}

// findManifest returns the ref of a manifest by its digest.
func (r *registry) findManifest(ctx context.Context, dir string, d digest.Digest) (Ref, error) {
	if _, _, err := splitDigest(d); err != nil {
		return Ref{}, fmt.Errorf("%w: %w", ociregistry.ErrDigestInvalid, err)
	}
	ref, err := r.store.readRef(refName{dir, "@" + string(d)})
	if errdefs.IsNotFound(err) && !r.linked() {
		ref, err = r.scanManifest(ctx, dir, d)
	}
	if errdefs.IsNotFound(err) {
		return Ref{}, r.unknown(dir, ociregistry.ErrManifestUnknown, string(d))
	}
	return ref, err
}

// scanManifest looks for a manifest among what tags point at, and among the
// children of indexes.
func (r *registry) scanManifest(ctx context.Context, dir string, d digest.Digest) (Ref, error) {
	refs, err := r.store.refsOf(ctx, dir)
	if err != nil {
		return Ref{}, err
	}
	for _, ref := range refs {
		if ref.Descriptor.Digest == d {
			return ref, nil
		}
	}
	for _, ref := range refs {
		doc, err := r.store.readDocument(ref.Descriptor.Digest)
		if err != nil {
			continue
		}
		for _, m := range doc.Manifests {
			if m.Digest == d && r.store.present(d, m.Size) == nil {
				return Ref{Descriptor: m}, nil
			}
		}
	}
	return Ref{}, fmt.Errorf("manifest %s: %w", d, errdefs.ErrNotFound)
}

// findTag returns the ref of a tag.
func (r *registry) findTag(dir, tag string) (Ref, error) {
	if !validTag(tag) {
		return Ref{}, fmt.Errorf("%w: invalid tag %.200q", ociregistry.ErrManifestUnknown, tag)
	}
	ref, err := r.store.readRef(refName{dir, ":" + tag})
	if errdefs.IsNotFound(err) {
		return Ref{}, r.unknown(dir, ociregistry.ErrManifestUnknown, tag)
	}
	return ref, err
}

// DeleteBlob takes a blob out of the repository. Others that have it keep it.
func (r *registry) DeleteBlob(ctx context.Context, repo string, d digest.Digest) error {
	dir, err := r.dir(repo)
	if err != nil {
		return err
	}
	if err := r.hasBlob(ctx, dir, d); err != nil {
		return err
	}
	if !r.linked() {
		return fmt.Errorf("%w: blobs of images go when no name needs them", ociregistry.ErrDenied)
	}
	path := r.store.linkPath(dir, d)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return removeUpwards(path, r.store.path(linksDir))
}

// DeleteTag removes a tag. The manifest stays, by its digest.
func (r *registry) DeleteTag(_ context.Context, repo, tag string) error {
	dir, err := r.dir(repo)
	if err != nil {
		return err
	}
	if _, err := r.findTag(dir, tag); err != nil && !errdefs.IsDataLoss(err) {
		return err
	}
	return r.store.deleteRef(refName{dir, ":" + tag})
}

// DeleteManifest removes a manifest and the tags that point at it.
func (r *registry) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	dir, err := r.dir(repo)
	if err != nil {
		return err
	}
	if _, err := r.findManifest(ctx, dir, d); err != nil && !errdefs.IsDataLoss(err) {
		return err
	}
	refs, err := r.store.refsOf(ctx, dir)
	if err != nil {
		return err
	}
	// The ref by digest is the last in order, and the manifest is there for
	// as long as that is.
	for _, ref := range refs {
		if ref.Descriptor.Digest != d {
			continue
		}
		n, err := parseName(ref.Name)
		if err == nil {
			err = r.store.deleteRef(n)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	if doc, err := r.store.readDocument(d); err == nil && doc.Subject != nil {
		path := r.store.referrerPath(dir, doc.Subject.Digest, d)
		if os.Remove(path) == nil {
			return removeUpwards(path, r.store.path(linksDir))
		}
	}
	return nil
}
