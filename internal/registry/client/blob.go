package client

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociauth"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	noProgress = 3  // times that reading may break without a byte in between
	maxResumes = 64 // times that it may break at all
)

// GetBlob returns a reader of the blob. Where the connection breaks, the reader
// goes on with a range request; at the last byte it has verified the digest.
func (r *registry) GetBlob(ctx context.Context, repo string, dig ociregistry.Digest) (ociregistry.BlobReader, error) {
	return r.blob(ctx, repo, dig, 0, -1)
}

// GetBlobRange returns a reader of the bytes from o0 up to o1, or to the end if
// o1 is negative. A piece of a blob has no digest to verify.
func (r *registry) GetBlobRange(ctx context.Context, repo string, dig ociregistry.Digest, o0, o1 int64) (ociregistry.BlobReader, error) {
	if o0 < 0 || o1 >= 0 && o1 < o0 {
		return nil, fmt.Errorf("get bytes %d to %d of blob %s: %w: %w", o0, o1, dig, ociregistry.ErrRangeInvalid, errdefs.ErrOutOfRange)
	}
	return r.blob(ctx, repo, dig, o0, o1)
}

func (r *registry) blob(ctx context.Context, repo string, dig digest.Digest, from, to int64) (ociregistry.BlobReader, error) {
	b := &blob{r: r, ctx: ctx, repo: repo, op: r.op("get blob", repo, string(dig)), off: from, end: to}
	b.desc.Digest = dig
	if err := check(repo, dig); err != nil {
		return nil, fmt.Errorf("%s: %w", b.op, err)
	}
	if from == 0 && to < 0 {
		b.hash = dig.Algorithm().Hash()
	}
	if err := b.open(); err != nil {
		return nil, r.fail(b.op, ociregistry.ErrBlobUnknown, err)
	}
	return b, nil
}

// blob reads one blob, or a piece of it, over as many requests as it takes.
type blob struct {
	r    *registry
	ctx  context.Context //nolint:containedctx // the Interface gives the reader the context's life
	repo string
	op   string

	desc ociregistry.Descriptor // of the whole blob
	off  int64                  // of the next byte
	end  int64                  // after the last byte
	hash hash.Hash              // nil for a piece

	body    io.ReadCloser // nil after a break
	err     error         // what every further Read returns
	broken  error         // what the latest break was
	idle    int           // breaks since the last byte
	resumes int
}

// Descriptor describes the whole blob, also when a piece is read.
func (b *blob) Descriptor() ociregistry.Descriptor { return b.desc }

// Verifies reports whether the reader checks the digest, so that nobody else has
// to: it does unless a piece is read.
func (b *blob) Verifies() bool { return b.hash != nil }

func (b *blob) Close() error {
	if b.err == nil {
		b.err = fmt.Errorf("%s: already closed", b.op)
	}
	if b.body == nil {
		return nil
	}
	err := b.body.Close()
	b.body = nil
	return err
}

func (b *blob) Read(p []byte) (int, error) {
	for b.err == nil {
		if b.body == nil {
			if err := b.resume(); err != nil {
				b.err = err
				break
			}
		}
		n, err := b.body.Read(p)
		if n > 0 {
			b.idle = 0
			if err := b.take(p[:n]); err != nil {
				b.err = err
				return n, err
			}
		}
		switch {
		case err == nil:
			return n, nil
		case err == io.EOF && b.off == b.end:
			b.err = io.EOF
			return n, io.EOF
		case b.ctx.Err() != nil:
			b.err = b.r.fail(b.op, ociregistry.ErrBlobUnknown, context.Cause(b.ctx))
			return n, b.err
		}
		if b.off == b.end { // all is there; how the connection ends is of no matter
			b.err = io.EOF
			return n, io.EOF
		}
		b.body.Close()
		b.body, b.broken = nil, err
		if n > 0 {
			return n, nil
		}
	}
	return 0, b.err
}

// take counts and hashes p, the next bytes. The digest is verified with the
// last of them, because not every reader asks for the end of file.
func (b *blob) take(p []byte) error {
	b.off += int64(len(p))
	if b.off > b.end {
		return b.fail(dataLoss(ociregistry.ErrSizeInvalid, "longer than its size of %d bytes", b.desc.Size))
	}
	if b.hash == nil {
		return nil
	}
	b.hash.Write(p)
	if b.off < b.end {
		return nil
	}
	if got := digest.NewDigest(b.desc.Digest.Algorithm(), b.hash); got != b.desc.Digest {
		return b.fail(dataLoss(ociregistry.ErrDigestInvalid, "digest mismatch: want %s, got %s", b.desc.Digest, got))
	}
	return nil
}

func (b *blob) fail(err error) error { return b.r.fail(b.op, ociregistry.ErrBlobUnknown, err) }

// resume opens the blob again at the byte where it broke off.
func (b *blob) resume() error {
	if b.idle >= noProgress || b.resumes >= maxResumes {
		return b.fail(truncated(b.broken, b.off, b.end))
	}
	c := b.r.client
	if err := c.clock.sleep(b.ctx, c.retry.delay(b.r.host, b.idle, nil)); err != nil {
		return b.fail(err)
	}
	b.idle++
	b.resumes++
	if err := b.open(); err != nil {
		return b.fail(err)
	}
	return nil
}

// truncated is the error of a read that ended for good at byte got of want.
func truncated(err error, got, want int64) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		if want < 0 {
			return dataLoss(ociregistry.ErrSizeInvalid, "ends after %d bytes", got)
		}
		return dataLoss(ociregistry.ErrSizeInvalid, "ends after %d of %d bytes", got, want)
	}
	return fmt.Errorf("connection breaks after %d of %d bytes: %w: %w", got, want, tidy(err), errdefs.ErrUnavailable)
}

// open asks for the blob from b.off on and checks that the answer is that.
func (b *blob) open() error {
	first := b.desc.Size == 0 && b.resumes == 0
	req, err := b.r.request(b.ctx, http.MethodGet, b.repo+"/blobs/"+string(b.desc.Digest), b.repo, ociauth.ActionPull, nil)
	if err != nil {
		return err
	}
	if b.end >= 0 && b.hash == nil {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", b.off, max(b.off, b.end-1)))
	} else if b.off > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.off))
	}
	resp, err := b.r.send(req, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return err
	}
	start, size, err := b.examine(resp)
	if err == nil && !first && size != b.desc.Size {
		err = dataLoss(ociregistry.ErrSizeInvalid, "size was %d bytes and is now %d", b.desc.Size, size)
	}
	if err == nil && start < b.off {
		// The registry does not know ranges. The bytes up to b.off come
		// again; that the rest fits them is what the digest tells.
		_, err = io.CopyN(io.Discard, resp.Body, b.off-start)
		if err == io.EOF {
			err = fmt.Errorf("%w: %w", ociregistry.ErrRangeInvalid, errdefs.ErrOutOfRange)
		}
	}
	if err != nil {
		resp.Body.Close()
		return err
	}
	if first {
		b.desc.Size, b.desc.MediaType = size, "application/octet-stream"
		if b.end < 0 || b.end > size {
			b.end = size
		}
		if b.off > size {
			resp.Body.Close()
			return fmt.Errorf("%w: %w", ociregistry.ErrRangeInvalid, errdefs.ErrOutOfRange)
		}
	}
	if b.end == 0 { // there will be no last byte
		if err := b.take(nil); err != nil {
			resp.Body.Close()
			return err
		}
	}
	b.body = resp.Body
	if start < b.off && b.hash == nil || b.end < size {
		b.body = limited{io.LimitReader(resp.Body, b.end-b.off), resp.Body}
	}
	return nil
}

type limited struct {
	io.Reader
	io.Closer
}

// examine returns where in the blob the body of resp starts, and the size of
// the blob.
func (b *blob) examine(resp *http.Response) (start, size int64, err error) {
	if err := identity(resp); err != nil {
		return 0, 0, err
	}
	if claimed := digest.Digest(resp.Header.Get("Docker-Content-Digest")); claimed != "" && differs(claimed, b.desc.Digest) {
		return 0, 0, dataLoss(ociregistry.ErrDigestInvalid, "registry %s answers with another digest: %s", b.r.name, oneLine(string(claimed)))
	}
	if resp.StatusCode == http.StatusPartialContent {
		start, size, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || start != b.off {
			return 0, 0, dataLoss(ociregistry.ErrSizeInvalid, "registry %s answers with another range than asked for: %q", b.r.name, oneLine(resp.Header.Get("Content-Range")))
		}
		return start, size, nil
	}
	if resp.ContentLength >= 0 {
		return 0, resp.ContentLength, nil
	}
	desc, err := b.r.Interface.ResolveBlob(b.ctx, b.repo, b.desc.Digest)
	if err != nil {
		return 0, 0, dataLoss(ociregistry.ErrSizeInvalid, "registry %s does not tell the size", b.r.name)
	}
	return 0, desc.Size, nil
}

// parseContentRange parses "bytes 5-9/10" (RFC 9110, section 14.4).
func parseContentRange(s string) (start, size int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, total, cut := strings.Cut(s, "/")
	first, last, dash := strings.Cut(span, "-")
	start, errStart := strconv.ParseInt(first, 10, 64)
	end, errEnd := strconv.ParseInt(last, 10, 64)
	size, errSize := strconv.ParseInt(total, 10, 64)
	ok = ok && cut && dash && errStart == nil && errEnd == nil && errSize == nil
	return start, size, ok && 0 <= start && start <= end && end < size
}
