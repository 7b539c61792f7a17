package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const mediaTypeBlob = "application/octet-stream"

// blobReader is a blob as a registry gives it.
type blobReader struct {
	*Blob
	desc ocispec.Descriptor
	left int64 // bytes of the range that was asked for
}

func (b *blobReader) Descriptor() ocispec.Descriptor { return b.desc }

func (b *blobReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	n, err := b.Blob.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// WriteTo lets a socket take the bytes from the file without a copy.
func (b *blobReader) WriteTo(w io.Writer) (int64, error) {
	n, err := io.Copy(w, &io.LimitedReader{R: b.Blob.File(), N: b.left})
	b.left -= n
	return n, err
}

// documentReader is a manifest as a registry gives it.
type documentReader struct {
	*bytes.Reader
	desc ocispec.Descriptor
}

func (d *documentReader) Descriptor() ocispec.Descriptor { return d.desc }

func (d *documentReader) Close() error { return nil }

func (r *registry) GetBlob(ctx context.Context, repo string, d digest.Digest) (ociregistry.BlobReader, error) {
	return r.blob(ctx, repo, d)
}

func (r *registry) blob(ctx context.Context, repo string, d digest.Digest) (*blobReader, error) {
	dir, err := r.dir(repo)
	if err != nil {
		return nil, err
	}
	if err := r.hasBlob(ctx, dir, d); err != nil {
		return nil, err
	}
	b, err := r.store.Blob(d)
	if err != nil {
		return nil, err
	}
	desc := ocispec.Descriptor{MediaType: mediaTypeBlob, Digest: d, Size: b.Size()}
	return &blobReader{b, desc, b.Size()}, nil
}

func (r *registry) GetBlobRange(ctx context.Context, repo string, d digest.Digest, from, to int64) (ociregistry.BlobReader, error) {
	b, err := r.blob(ctx, repo, d)
	if err != nil {
		return nil, err
	}
	if to < 0 || to > b.Size() {
		to = b.Size()
	}
	if from < 0 || from >= to {
		b.Close()
		return nil, fmt.Errorf("%w: %d to %d of %d bytes", ociregistry.ErrRangeInvalid, from, to, b.Size())
	}
	if _, err := b.Seek(from, io.SeekStart); err != nil {
		b.Close()
		return nil, err
	}
	b.left = to - from
	return b, nil
}

// ResolveBlob makes the link of the blob young again: who is told that a blob
// is there won't push it, and names it in a manifest soon.
func (r *registry) ResolveBlob(ctx context.Context, repo string, d digest.Digest) (ocispec.Descriptor, error) {
	dir, err := r.dir(repo)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var size int64
	err = r.store.shared(func() error {
		if err := r.hasBlob(ctx, dir, d); err != nil {
			return err
		}
		if r.linked() {
			if err := r.store.link(dir, d); err != nil {
				return err
			}
		}
		size, err = r.store.Stat(d)
		return err
	})
	return ocispec.Descriptor{MediaType: mediaTypeBlob, Digest: d, Size: size}, err
}

func (r *registry) GetManifest(ctx context.Context, repo string, d digest.Digest) (ociregistry.BlobReader, error) {
	desc, err := r.ResolveManifest(ctx, repo, d)
	if err != nil {
		return nil, err
	}
	return r.document(desc)
}

func (r *registry) GetTag(ctx context.Context, repo, tag string) (ociregistry.BlobReader, error) {
	desc, err := r.ResolveTag(ctx, repo, tag)
	if err != nil {
		return nil, err
	}
	return r.document(desc)
}

func (r *registry) document(desc ocispec.Descriptor) (ociregistry.BlobReader, error) {
	data, err := r.store.Read(desc.Digest)
	if errdefs.IsNotFound(err) {
		err = fmt.Errorf("%w: %w", ociregistry.ErrManifestUnknown, err)
	}
	if err != nil {
		return nil, err
	}
	return &documentReader{bytes.NewReader(data), desc}, nil
}

func (r *registry) ResolveManifest(ctx context.Context, repo string, d digest.Digest) (ocispec.Descriptor, error) {
	dir, err := r.dir(repo)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	ref, err := r.findManifest(ctx, dir, d)
	return plain(ref.Descriptor), err
}

func (r *registry) ResolveTag(_ context.Context, repo, tag string) (ocispec.Descriptor, error) {
	dir, err := r.dir(repo)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	ref, err := r.findTag(dir, tag)
	return plain(ref.Descriptor), err
}

// plain leaves what a registry says of content.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// Repositories lists repositories that have a manifest, in the order of bytes.
func (r *registry) Repositories(ctx context.Context, startAfter string) iter.Seq2[string, error] {
	names, err := r.store.names(ctx, r.prefix, true)
	if err != nil {
		return ociregistry.ErrorSeq[string](err)
	}
	var repos []string
	for _, n := range names {
		if repo := strings.TrimPrefix(n.dir, r.prefix+"/"); repo > startAfter {
			repos = append(repos, repo)
		}
	}
	slices.Sort(repos)
	return ociregistry.SliceSeq(slices.Compact(repos))
}

// Tags lists the tags of a repository in the order of bytes.
func (r *registry) Tags(_ context.Context, repo, startAfter string) iter.Seq2[string, error] {
	dir, err := r.dir(repo)
	if err != nil {
		return ociregistry.ErrorSeq[string](err)
	}
	entries, err := readDir(r.store.path(refsDir, dir))
	if err != nil {
		return ociregistry.ErrorSeq[string](err)
	}
	var tags []string
	leaves := 0
	for _, e := range entries {
		tag, ok := strings.CutPrefix(e.Name(), ":")
		if ok && tag > startAfter {
			tags = append(tags, tag)
		}
		if ok || strings.HasPrefix(e.Name(), "@") {
			leaves++
		}
	}
	if leaves == 0 {
		return ociregistry.ErrorSeq[string](r.unknown(dir, ociregistry.ErrNameUnknown, repo))
	}
	slices.Sort(tags)
	return ociregistry.SliceSeq(tags)
}

// Referrers lists the manifests whose subject is d, sorted by digest. Of a
// subject that isn't there, there may be some.
func (r *registry) Referrers(ctx context.Context, repo string, d digest.Digest, artifactType string) iter.Seq2[ocispec.Descriptor, error] {
	refs, err := r.referrers(ctx, repo, d)
	if err != nil {
		return ociregistry.ErrorSeq[ocispec.Descriptor](err)
	}
	var found []ocispec.Descriptor
	for _, ref := range refs {
		doc, err := r.store.readDocument(ref.Descriptor.Digest)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return ociregistry.ErrorSeq[ocispec.Descriptor](err)
		}
		if doc.Subject == nil || doc.Subject.Digest != d {
			continue
		}
		desc := plain(ref.Descriptor)
		desc.Annotations = doc.Annotations
		// distribution-spec, "Listing Referrers".
		if desc.ArtifactType = doc.ArtifactType; doc.Config != nil {
			desc.ArtifactType = cmp.Or(doc.ArtifactType, doc.Config.MediaType)
		}
		if artifactType == "" || artifactType == desc.ArtifactType {
			found = append(found, desc)
		}
	}
	slices.SortFunc(found, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	found = slices.CompactFunc(found, func(a, b ocispec.Descriptor) bool { return a.Digest == b.Digest })
	return ociregistry.SliceSeq(found)
}

// referrers returns the refs of manifests that may have d as their subject.
func (r *registry) referrers(ctx context.Context, repo string, d digest.Digest) ([]Ref, error) {
	dir, err := r.dir(repo)
	if err != nil {
		return nil, err
	}
	if _, _, err := splitDigest(d); err != nil {
		return nil, fmt.Errorf("%w: %w", ociregistry.ErrDigestInvalid, err)
	}
	if !r.linked() {
		return r.store.refsOf(ctx, dir)
	}
	entries, err := readDir(r.store.path(linksDir, dir, "^"+string(d)))
	if err != nil {
		return nil, err
	}
	var refs []Ref
	for _, e := range entries {
		ref, err := r.store.readRef(refName{dir, e.Name()})
		if err == nil {
			refs = append(refs, ref)
		}
	}
	return refs, nil
}
