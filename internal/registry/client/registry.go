package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"sync"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociauth"
	"cuelabs.dev/go/oci/ociregistry/ociclient"
	"cuelabs.dev/go/oci/ociregistry/ociref"
	"github.com/containerd/errdefs"
)

// registry is one registry. ociclient is embedded for what it does well:
// resolving, manifests on their way out, deleting, listing. Reading and
// uploading are this package's own; see read.go, blob.go, write.go and
// upload.go.
type registry struct {
	ociregistry.Interface
	client *Client
	name   string // as the user knows it: docker.io
	host   string // where it is: registry-1.docker.io
	http   *http.Client
	auth   *auth

	mu    sync.Mutex
	begun map[string]*url.URL // uploads that a mount opened instead of mounting, by repository and digest
}

func (c *Client) newRegistry(name, host string) (*registry, error) {
	a := newAuth(c, name, c.retry)
	g := &gate{client: c, name: name, host: host, auth: a, bare: c.retry, probing: make(chan struct{}, 1)}
	oci, err := ociclient.New(host, &ociclient.Options{Transport: g})
	if err != nil {
		return nil, fmt.Errorf("use registry %q: %w: %w", name, err, errdefs.ErrInvalidArgument)
	}
	return &registry{
		Interface: oci, client: c, name: name, host: host, auth: a,
		http:  &http.Client{Transport: g},
		begun: map[string]*url.URL{},
	}, nil
}

// op names an operation for an error.
func (r *registry) op(verb, repo, ref string) string {
	if ref == "" {
		return fmt.Sprintf("%s %s/%s", verb, r.name, repo)
	}
	sep := ":"
	if ociref.IsValidDigest(ref) {
		sep = "@"
	}
	return fmt.Sprintf("%s %s/%s%s%s", verb, r.name, repo, sep, ref)
}

// request makes a request for path below /v2/ of the registry, with the scope
// that action in repo needs.
func (r *registry) request(ctx context.Context, method, path, repo, action string, body io.Reader) (*http.Request, error) {
	ctx = withScope(ctx, repo, action)
	return http.NewRequestWithContext(ctx, method, "https://"+r.host+"/v2/"+path, body)
}

func withScope(ctx context.Context, repo, action string) context.Context {
	scope := ociauth.NewScope(ociauth.ResourceScope{ResourceType: ociauth.TypeRepository, Resource: repo, Action: action})
	return ociauth.ContextWithRequestInfo(ctx, ociauth.RequestInfo{RequiredScope: scope})
}

// send sends req and returns the answer if its status is one of want.
func (r *registry) send(req *http.Request, want ...int) (*http.Response, error) {
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	for _, status := range want {
		if resp.StatusCode == status {
			return resp, nil
		}
	}
	return nil, answerError(resp)
}

// answerError makes an error of an answer that is not the one hoped for, and
// closes it.
func answerError(resp *http.Response) error {
	defer resp.Body.Close()
	const longest = 8 << 10 // bytes; ociclient's measure
	data, _ := io.ReadAll(io.LimitReader(resp.Body, longest))
	var wire ociregistry.WireErrors
	if err := decode(data, &wire); err != nil || len(wire.Errors) == 0 {
		return ociregistry.NewHTTPError(nil, resp.StatusCode, resp, data)
	}
	return ociregistry.NewHTTPError(&wire, resp.StatusCode, resp, data)
}

func check(repo string, digest ociregistry.Digest) error {
	if !ociref.IsValidRepository(repo) {
		return fmt.Errorf("%w: %q: %w", ociregistry.ErrNameInvalid, oneLine(repo), errdefs.ErrInvalidArgument)
	}
	if !ociref.IsValidDigest(string(digest)) {
		return fmt.Errorf("malformed digest %q: %w", oneLine(string(digest)), errdefs.ErrInvalidArgument)
	}
	return nil
}

func (r *registry) ResolveBlob(ctx context.Context, repo string, digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	op := r.op("find blob", repo, string(digest))
	if err := check(repo, digest); err != nil {
		return ociregistry.Descriptor{}, fmt.Errorf("%s: %w", op, err)
	}
	desc, err := r.Interface.ResolveBlob(ctx, repo, digest)
	if err == nil && differs(desc.Digest, digest) {
		err = dataLoss(ociregistry.ErrDigestInvalid, "registry %s answers with another digest: %s", r.name, desc.Digest)
	}
	return desc, r.fail(op, ociregistry.ErrBlobUnknown, err)
}

func (r *registry) ResolveManifest(ctx context.Context, repo string, digest ociregistry.Digest) (ociregistry.Descriptor, error) {
	op := r.op("find manifest", repo, string(digest))
	if err := check(repo, digest); err != nil {
		return ociregistry.Descriptor{}, fmt.Errorf("%s: %w", op, err)
	}
	desc, err := r.Interface.ResolveManifest(ctx, repo, digest)
	if headless(err) {
		return resolved(r.GetManifest(ctx, repo, digest))
	}
	if err == nil && differs(desc.Digest, digest) {
		err = dataLoss(ociregistry.ErrDigestInvalid, "registry %s answers with another digest: %s", r.name, desc.Digest)
	}
	return desc, r.fail(op, ociregistry.ErrManifestUnknown, err)
}

func (r *registry) ResolveTag(ctx context.Context, repo, tag string) (ociregistry.Descriptor, error) {
	if tag == "" || !ociref.IsValidTag(tag) { // ociclient panics on an empty one
		return ociregistry.Descriptor{}, fmt.Errorf("%s: malformed tag: %w", r.op("find manifest", repo, tag), errdefs.ErrInvalidArgument)
	}
	desc, err := r.Interface.ResolveTag(ctx, repo, tag)
	if headless(err) {
		return resolved(r.GetTag(ctx, repo, tag))
	}
	return desc, r.fail(r.op("find manifest", repo, tag), ociregistry.ErrManifestUnknown, err)
}

// headless reports whether err may only mean that the registry does not answer
// HEAD, or not with all that a descriptor takes.
func headless(err error) bool {
	if err == nil {
		return false
	}
	var answer ociregistry.HTTPError
	if errors.As(err, &answer) {
		return answer.StatusCode() == http.StatusMethodNotAllowed || answer.StatusCode() == http.StatusNotImplemented
	}
	// ociclient has no type for this one.
	return bytes.Contains([]byte(err.Error()), []byte("invalid descriptor in response"))
}

func resolved(m ociregistry.BlobReader, err error) (ociregistry.Descriptor, error) {
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	defer m.Close()
	return m.Descriptor(), nil
}

func (r *registry) PushManifest(ctx context.Context, repo, tag string, contents []byte, mediaType string) (ociregistry.Descriptor, error) {
	desc, err := r.Interface.PushManifest(ctx, repo, tag, contents, mediaType)
	return desc, r.fail(r.op("push manifest", repo, tag), ociregistry.ErrNameUnknown, err)
}

func (r *registry) DeleteBlob(ctx context.Context, repo string, digest ociregistry.Digest) error {
	err := r.Interface.DeleteBlob(ctx, repo, digest)
	return r.fail(r.op("delete blob", repo, string(digest)), ociregistry.ErrBlobUnknown, accepted(err))
}

func (r *registry) DeleteManifest(ctx context.Context, repo string, digest ociregistry.Digest) error {
	err := r.Interface.DeleteManifest(ctx, repo, digest)
	return r.fail(r.op("delete manifest", repo, string(digest)), ociregistry.ErrManifestUnknown, accepted(err))
}

func (r *registry) DeleteTag(ctx context.Context, repo, tag string) error {
	err := r.Interface.DeleteTag(ctx, repo, tag)
	return r.fail(r.op("delete tag", repo, tag), ociregistry.ErrManifestUnknown, accepted(err))
}

func (r *registry) Repositories(ctx context.Context, startAfter string) iter.Seq2[string, error] {
	return failing(r, "list repositories of "+r.name, ociregistry.ErrUnsupported, r.Interface.Repositories(ctx, startAfter))
}

func (r *registry) Tags(ctx context.Context, repo, startAfter string) iter.Seq2[string, error] {
	return failing(r, r.op("list tags of", repo, ""), ociregistry.ErrNameUnknown, r.Interface.Tags(ctx, repo, startAfter))
}

func (r *registry) Referrers(ctx context.Context, repo string, digest ociregistry.Digest, artifactType string) iter.Seq2[ociregistry.Descriptor, error] {
	return failing(r, r.op("list referrers of", repo, string(digest)), ociregistry.ErrManifestUnknown,
		r.Interface.Referrers(ctx, repo, digest, artifactType))
}

// failing is seq with its errors made into those of this package.
func failing[T any](r *registry, op string, kind error, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for v, err := range seq {
			if !yield(v, r.fail(op, kind, err)) {
				return
			}
		}
	}
}
