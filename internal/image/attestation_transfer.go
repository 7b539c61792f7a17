package image

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/progress"
)

// attestations fetches what root, if it is an index, says about the image
// manifest target. An attestation is nothing that an image needs to run: one
// that can't be had is told and left out.
func (p *pulling) attestations(ctx context.Context, root document, target digest.Digest) error {
	if root.index == nil {
		return nil
	}
	for _, m := range attestationsOf(root.index, target) {
		if p.images.hasAttestation(m) {
			continue // the lease keeps the index, and the index keeps it
		}
		if err := p.attestation(ctx, m); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			p.o.Progress.Emit(progress.Event{Message: fmt.Sprintf("Attestation %s is left out: %v", short(m.Digest), err)})
		}
	}
	return nil
}

func (p *pulling) attestation(ctx context.Context, m ocispec.Descriptor) error {
	doc, err := fetchManifest(ctx, p.src, p.repo, m)
	if err == nil {
		err = checkAttestation(doc)
	}
	if err != nil {
		return err
	}
	for _, b := range attestationBlobs(doc.manifest) {
		if err := p.statement(ctx, b); err != nil {
			return fmt.Errorf("blob %s: %w", short(b.Digest), err)
		}
	}
	return p.images.putBlob(ctx, p.lease, doc.desc.Digest, doc.raw)
}

func (p *pulling) statement(ctx context.Context, b ocispec.Descriptor) error {
	if p.images.has(b.Digest) {
		return p.lease.Keep(b.Digest)
	}
	r, err := p.src.GetBlob(ctx, p.repo, b.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	in, err := p.images.Store.Ingest(p.lease)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.Copy(in, io.LimitReader(r, b.Size+1)); err != nil {
		return err
	}
	_, _, err = in.Commit(ctx, b.Digest, b.Size)
	return err
}

// hasAttestation tells whether an attestation and all of its blobs are in the
// store.
func (i *Images) hasAttestation(m ocispec.Descriptor) bool {
	doc, err := i.attestationDocument(m)
	return err == nil && !slices.ContainsFunc(attestationBlobs(doc.manifest), func(b ocispec.Descriptor) bool { return !i.has(b.Digest) })
}

// sendAttestation sends an attestation. If its image had to be written anew,
// so is what is said of it. images are the manifests that the registry has
// now, by the digests that they have here.
func (p *pushing) sendAttestation(ctx context.Context, m ocispec.Descriptor, images map[digest.Digest]ocispec.Descriptor) (document, error) {
	from := ocispec.Descriptor{Digest: digest.Digest(m.Annotations[attestationTarget])}
	to, ok := images[from.Digest]
	if !ok {
		to = from // of an image that is not in the index
	}
	a, err := p.images.about(m, from, to)
	if err != nil {
		return document{}, err
	}
	for _, d := range sorted(a.blobs) {
		desc := ocispec.Descriptor{MediaType: octets, Digest: d, Size: int64(len(a.blobs[d]))}
		if p.has(ctx, desc) {
			continue
		}
		if _, err := p.dst.PushBlob(ctx, p.repo, desc, rewindable(a.blobs[d])); err != nil {
			return document{}, fmt.Errorf("attestation %s: %w", short(a.desc.Digest), err)
		}
	}
	if err := p.images.putAttested(ctx, p.lease, a); err != nil {
		return document{}, err
	}
	return parseAny(a.desc, a.raw)
}

// attestationsLast sorts the entries of an index such that images come before
// what is said of them.
func attestationsLast(entries []ocispec.Descriptor) []ocispec.Descriptor {
	images := slices.DeleteFunc(slices.Clone(entries), isAttestation)
	said := slices.DeleteFunc(slices.Clone(entries), func(m ocispec.Descriptor) bool { return !isAttestation(m) })
	return append(images, said...)
}
