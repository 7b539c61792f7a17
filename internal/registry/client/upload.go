package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociauth"
	"cuelabs.dev/go/oci/ociregistry/ociref"
	"github.com/containerd/errdefs"
)

// PushBlobChunked starts an upload of a blob whose digest is known at its end.
//
// With a chunkSize of 0 everything goes in one streamed PATCH, as docker push
// sends it: that is what every registry takes, and it holds nothing in memory,
// but it cannot be resumed in the middle. With a chunkSize, chunks of that many
// bytes are held in memory and sent by themselves; some registries (Google's
// Artifact Registry) refuse that.
func (r *registry) PushBlobChunked(ctx context.Context, repo string, chunkSize int) (ociregistry.BlobWriter, error) {
	op := r.op("push blob", repo, "")
	if !ociref.IsValidRepository(repo) {
		return nil, fmt.Errorf("%s: %w: %w", op, ociregistry.ErrNameInvalid, errdefs.ErrInvalidArgument)
	}
	if chunkSize > 0 {
		w, err := r.Interface.PushBlobChunked(ctx, repo, chunkSize)
		if err != nil {
			return nil, r.fail(op, ociregistry.ErrNameUnknown, err)
		}
		return &chunks{BlobWriter: w, r: r, ctx: ctx, repo: repo, op: op}, nil
	}
	location, err := r.begin(ctx, repo)
	if err != nil {
		return nil, r.fail(op, ociregistry.ErrNameUnknown, err)
	}
	return &stream{r: r, ctx: ctx, repo: repo, op: op, location: location}, nil
}

// PushBlobChunkedResume goes on with an upload after what the registry has of
// it, if offset is -1, or after offset bytes.
func (r *registry) PushBlobChunkedResume(ctx context.Context, repo, id string, offset int64, chunkSize int) (ociregistry.BlobWriter, error) {
	op := r.op("push blob", repo, "")
	w, err := r.Interface.PushBlobChunkedResume(ctx, repo, id, offset, max(chunkSize, 1<<20))
	if err != nil {
		return nil, r.fail(op, ociregistry.ErrBlobUploadUnknown, err)
	}
	return &chunks{BlobWriter: w, r: r, ctx: ctx, repo: repo, op: op}, nil
}

// abandonTime is what telling a registry of an upload that is not going to end
// may take: whoever gives up a push must not wait for a registry that is down.
const abandonTime = 2 * time.Second

// abandon tells the registry that an upload is not going to end. Most reap it
// anyway after some days, so an error is of no matter.
func (r *registry) abandon(ctx context.Context, repo string, location *url.URL) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
	defer cancel()
	ctx = withScope(ctx, repo, ociauth.ActionPush)
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, location.String(), nil)
	if err != nil {
		return
	}
	if resp, err := r.http.Do(req); err == nil {
		drain(resp)
	}
}

// chunks is ociclient's writer with this package's errors.
type chunks struct {
	ociregistry.BlobWriter
	r        *registry
	ctx      context.Context //nolint:containedctx // the Interface gives the writer the context's life
	repo, op string
	done     bool
}

func (c *chunks) Write(p []byte) (int, error) {
	n, err := c.BlobWriter.Write(p)
	return n, c.r.fail(c.op, ociregistry.ErrBlobUploadUnknown, err)
}

func (c *chunks) Close() error {
	if c.done {
		return nil
	}
	return c.r.fail(c.op, ociregistry.ErrBlobUploadUnknown, c.BlobWriter.Close())
}

func (c *chunks) Commit(d ociregistry.Digest) (ociregistry.Descriptor, error) {
	desc, err := c.BlobWriter.Commit(d)
	c.done = err == nil
	return desc, c.r.fail(c.op, ociregistry.ErrBlobUploadUnknown, err)
}

func (c *chunks) Cancel() error {
	if c.done {
		return nil
	}
	c.done = true
	if u, err := url.Parse(c.BlobWriter.ID()); err == nil {
		c.r.abandon(c.ctx, c.repo, u)
	}
	return nil
}

// stream is an upload of one PATCH that is as long as the blob. It is used by
// one goroutine.
type stream struct {
	r        *registry
	ctx      context.Context //nolint:containedctx // the Interface gives the writer the context's life
	repo, op string
	location *url.URL
	size     int64

	pipe   *io.PipeWriter // nil while no PATCH runs
	sent   chan error     // the outcome of the PATCH
	ended  bool           // committed, cancelled or closed
	failed error
}

func (s *stream) Write(p []byte) (int, error) {
	if s.failed != nil {
		return 0, s.failed
	}
	if s.ended {
		return 0, fmt.Errorf("%s: already ended: %w", s.op, errdefs.ErrFailedPrecondition)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if s.pipe == nil {
		s.start()
	}
	n, err := s.pipe.Write(p)
	s.size += int64(n)
	if err != nil {
		return n, s.finish()
	}
	return n, nil
}

// start opens the PATCH that takes the following writes.
func (s *stream) start() {
	body, pipe := io.Pipe()
	s.pipe, s.sent = pipe, make(chan error, 1)
	go func() {
		err := s.patch(body)
		// A write that waits for the other end must not wait for ever.
		body.CloseWithError(errors.Join(err, io.ErrClosedPipe))
		s.sent <- err
	}()
}

func (s *stream) patch(body io.Reader) error {
	req, err := http.NewRequestWithContext(withScope(s.ctx, s.repo, ociauth.ActionPush), http.MethodPatch, s.location.String(), body)
	if err != nil {
		return err
	}
	req.ContentLength = -1
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := s.r.send(req, http.StatusAccepted, http.StatusNoContent, http.StatusCreated)
	if err != nil {
		return err
	}
	drain(resp)
	if s.location, err = uploadLocation(resp); err != nil {
		return err
	}
	return nil
}

// finish ends the running PATCH and returns its outcome.
func (s *stream) finish() error {
	if s.pipe == nil {
		return s.failed
	}
	s.pipe.Close()
	err := <-s.sent
	s.pipe = nil
	s.failed = s.r.fail(s.op, ociregistry.ErrBlobUploadUnknown, err)
	return s.failed
}

// Close leaves the upload as it is, to be resumed.
func (s *stream) Close() error {
	if s.ended {
		return nil
	}
	s.ended = true
	return s.finish()
}

func (s *stream) Size() int64    { return s.size }
func (s *stream) ChunkSize() int { return 0 }
func (s *stream) ID() string     { return s.location.String() }

// Commit ends the upload. The registry verifies the digest.
func (s *stream) Commit(d ociregistry.Digest) (ociregistry.Descriptor, error) {
	if err := check(s.repo, d); err != nil {
		return ociregistry.Descriptor{}, fmt.Errorf("%s: %w", s.op, err)
	}
	if err := s.finish(); err != nil {
		return ociregistry.Descriptor{}, err
	}
	if s.ended {
		return ociregistry.Descriptor{}, fmt.Errorf("%s: already ended: %w", s.op, errdefs.ErrFailedPrecondition)
	}
	desc := ociregistry.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: s.size}
	req, err := http.NewRequestWithContext(withScope(s.ctx, s.repo, ociauth.ActionPush), http.MethodPut, commitURL(s.location, d), nil)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := s.r.send(req, http.StatusCreated, http.StatusNoContent)
	if err == nil {
		err = s.r.committed(resp, d)
	} else if have, gone := s.r.Interface.ResolveBlob(s.ctx, s.repo, d); gone == nil && have.Size == s.size {
		err = nil // a try before this one ended it, and its answer got lost
	}
	if err != nil {
		return ociregistry.Descriptor{}, s.r.fail(s.op, ociregistry.ErrBlobUploadUnknown, err)
	}
	s.ended = true
	return desc, nil
}

// Cancel drops the upload here and at the registry.
func (s *stream) Cancel() error {
	if s.ended {
		return nil
	}
	s.ended = true
	if s.pipe != nil {
		s.pipe.CloseWithError(context.Canceled)
		<-s.sent
		s.pipe = nil
	}
	s.r.abandon(s.ctx, s.repo, s.location)
	return nil
}
