package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociauth"
	"cuelabs.dev/go/oci/ociregistry/ociref"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// PushBlob uploads the desc.Size bytes of source in one request. It does not
// ask first whether the registry has them: that is what ResolveBlob and
// MountBlob are for. If source is an [io.Seeker], it is read from its start, and
// a broken upload is tried again; otherwise it is read once. A source is never
// closed.
func (r *registry) PushBlob(ctx context.Context, repo string, desc ociregistry.Descriptor, source io.Reader) (ociregistry.Descriptor, error) {
	op := r.op("push blob", repo, string(desc.Digest))
	if err := check(repo, desc.Digest); err != nil {
		return ociregistry.Descriptor{}, fmt.Errorf("%s: %w", op, err)
	}
	seeker, again := source.(io.Seeker)
	for try := 0; ; try++ {
		if again {
			if _, err := seeker.Seek(0, io.SeekStart); err != nil {
				return ociregistry.Descriptor{}, fmt.Errorf("%s: read from the start: %w", op, err)
			}
		}
		err := r.pushOnce(ctx, repo, desc, source)
		if err == nil {
			return desc, nil
		}
		var own *sourceError
		if !again || ctx.Err() != nil || errors.As(err, &own) || !mayRepeat(err) || try >= breaks {
			return ociregistry.Descriptor{}, r.fail(op, ociregistry.ErrNameUnknown, err)
		}
		wait := r.client.retry.delay(r.host, try, nil)
		if r.client.config.Waiting != nil {
			r.client.config.Waiting(r.host, tidy(err), wait)
		}
		if err := r.client.clock.sleep(ctx, wait); err != nil {
			return ociregistry.Descriptor{}, r.fail(op, ociregistry.ErrNameUnknown, err)
		}
		// It may have been only the answer that got lost.
		if have, err := r.Interface.ResolveBlob(ctx, repo, desc.Digest); err == nil && have.Size == desc.Size {
			return desc, nil
		}
	}
}

// mayRepeat reports whether a whole upload may be tried again after err.
func mayRepeat(err error) bool {
	var answer ociregistry.HTTPError
	if errors.As(err, &answer) {
		switch status := answer.StatusCode(); status {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusUnauthorized:
			return true // 401: the token ran out on the way
		default:
			return status >= 500 && status != http.StatusNotImplemented && status != http.StatusInsufficientStorage
		}
	}
	return triesAfter(err) > 0
}

// pushOnce opens an upload, or takes the one that a mount left, and sends the
// bytes with the request that ends it.
func (r *registry) pushOnce(ctx context.Context, repo string, desc ociregistry.Descriptor, source io.Reader) error {
	location := r.takeBegun(repo, desc.Digest)
	if location == nil {
		var err error
		if location, err = r.begin(ctx, repo); err != nil {
			return err
		}
	}
	body := &sourceBody{source: source, left: desc.Size}
	_, again := source.(io.Seeker)
	defer body.detach(again)
	req, err := http.NewRequestWithContext(withScope(ctx, repo, ociauth.ActionPush), http.MethodPut, commitURL(location, desc.Digest), body)
	if err != nil {
		return err
	}
	req.ContentLength = desc.Size
	if desc.Size == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := r.send(req, http.StatusCreated, http.StatusNoContent)
	if own := body.failed(); own != nil {
		if err == nil {
			resp.Body.Close()
		}
		return own
	}
	if err != nil {
		return err
	}
	return r.committed(resp, desc.Digest)
}

// committed checks the answer to the end of an upload.
func (r *registry) committed(resp *http.Response, want digest.Digest) error {
	drain(resp)
	if got := digest.Digest(resp.Header.Get("Docker-Content-Digest")); got != "" && differs(got, want) {
		return dataLoss(ociregistry.ErrDigestInvalid, "registry %s took it for %s", r.name, oneLine(string(got)))
	}
	return nil
}

// begin opens an upload session and returns its address.
func (r *registry) begin(ctx context.Context, repo string) (*url.URL, error) {
	req, err := r.request(ctx, http.MethodPost, repo+"/blobs/uploads/", repo, ociauth.ActionPush, nil)
	if err != nil {
		return nil, err
	}
	resp, err := r.send(req, http.StatusAccepted)
	if err != nil {
		return nil, err
	}
	drain(resp)
	return uploadLocation(resp)
}

// uploadLocation returns where an upload goes on. Every answer may move it.
func uploadLocation(resp *http.Response) (*url.URL, error) {
	u, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("the answer has no location to upload to: %w", errdefs.ErrUnavailable)
	}
	return u, nil
}

// commitURL adds the digest to an upload's address, which stays otherwise as
// the registry wrote it: some sign it.
func commitURL(location *url.URL, d digest.Digest) string {
	u := *location
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += "digest=" + url.QueryEscape(string(d))
	return u.String()
}

// MountBlob makes a blob of one repository known in another. A registry that
// cannot do it opens an upload instead, which the next PushBlob of that blob
// uses; the error is [ociregistry.ErrUnsupported] then.
func (r *registry) MountBlob(ctx context.Context, fromRepo, toRepo string, dig ociregistry.Digest) (ociregistry.Descriptor, error) {
	op := r.op("mount blob", toRepo, string(dig))
	if err := check(toRepo, dig); err != nil || !ociref.IsValidRepository(fromRepo) {
		return ociregistry.Descriptor{}, fmt.Errorf("%s: malformed name: %w", op, errdefs.ErrInvalidArgument)
	}
	path := toRepo + "/blobs/uploads/?" + url.Values{"mount": {string(dig)}, "from": {fromRepo}}.Encode()
	req, err := r.request(ctx, http.MethodPost, path, toRepo, ociauth.ActionPush, nil)
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	scope := ociauth.RequestInfoFromContext(req.Context()).RequiredScope.Union(ociauth.NewScope(
		ociauth.ResourceScope{ResourceType: ociauth.TypeRepository, Resource: fromRepo, Action: ociauth.ActionPull}))
	req = req.WithContext(ociauth.ContextWithRequestInfo(ctx, ociauth.RequestInfo{RequiredScope: scope}))
	resp, err := r.send(req, http.StatusCreated, http.StatusAccepted)
	if err != nil {
		return ociregistry.Descriptor{}, r.fail(op, ociregistry.ErrBlobUnknown, err)
	}
	drain(resp)
	if resp.StatusCode == http.StatusCreated {
		if got := digest.Digest(resp.Header.Get("Docker-Content-Digest")); got != "" && differs(got, dig) {
			return ociregistry.Descriptor{}, r.fail(op, nil, dataLoss(ociregistry.ErrDigestInvalid, "registry %s mounted another: %s", r.name, oneLine(string(got))))
		}
		return ociregistry.Descriptor{MediaType: "application/octet-stream", Digest: dig}, nil
	}
	if location, err := uploadLocation(resp); err == nil {
		r.mu.Lock()
		r.begun[toRepo+"@"+string(dig)] = location
		r.mu.Unlock()
	}
	return ociregistry.Descriptor{}, r.fail(op, nil, fmt.Errorf("registry %s does not mount it from %s: %w", r.name, fromRepo, ociregistry.ErrUnsupported))
}

func (r *registry) takeBegun(repo string, dig digest.Digest) *url.URL {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := repo + "@" + string(dig)
	location := r.begun[key]
	delete(r.begun, key)
	return location
}

// accepted makes nil of ociclient's error for an answer of 200 or 204 where it
// expects 202.
func accepted(err error) error {
	if err == nil {
		return nil
	}
	switch err.Error() {
	case "unexpected HTTP response code 200", "unexpected HTTP response code 204":
		return nil
	}
	return err
}

// sourceError is an error of what is to be uploaded, not of the way.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// sourceBody is a request body that reads exactly left bytes of a source, and
// not one after detach: net/http may go on reading when RoundTrip is long over,
// while the source is already being read for the next try.
type sourceBody struct {
	reading sync.Mutex
	source  io.Reader
	left    int64
	gone    atomic.Bool
	err     atomic.Pointer[sourceError]
}

func (b *sourceBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.gone.Load() {
		return 0, io.ErrClosedPipe
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.source.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == io.EOF && b.left > 0 {
		err = fmt.Errorf("source ends %d bytes early: %w", b.left, ociregistry.ErrSizeInvalid)
	}
	if err != nil && err != io.EOF {
		b.err.Store(&sourceError{err})
	}
	return n, err
}

func (b *sourceBody) Close() error { return nil }

// detach ends the reading. It waits for a Read that is under way only if the
// source will be used again: one that blocks must not hold up a cancellation.
func (b *sourceBody) detach(again bool) {
	b.gone.Store(true)
	if again {
		b.reading.Lock()
		//lint:ignore SA2001 to have waited is all that is wanted
		b.reading.Unlock()
	}
}

func (b *sourceBody) failed() error {
	if err := b.err.Load(); err != nil {
		return err
	}
	return nil
}
