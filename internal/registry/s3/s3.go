// Package s3 keeps blobs and manifests in a bucket of S3, or of a server that
// speaks its protocol, under the names that BuildKit's cache has for them:
//
//	<prefix><blobs_prefix>sha256:<hex>
//	<prefix><manifests_prefix><name>
//
// Five requests are needed, so that they are written out here: a library that
// knows all of S3 costs each command that is started its initialisation.
// Credentials only ever go into signatures; they are in no error. A redirect is
// not followed: a signature is for one server.
package s3

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Bucket is a bucket and the names in it. Its zero values are not defaults:
// see [Defaults].
type Bucket struct {
	Name   string
	Region string

	// Endpoint is the URL of a server other than AWS's; PathStyle puts the
	// bucket into the path there, not into the host's name.
	Endpoint  string
	PathStyle bool

	Prefix          string   // of all that follows
	BlobsPrefix     string   // "blobs/"
	ManifestsPrefix string   // "manifests/"
	Names           []string // of manifests: all are written, the first is read

	// Touch is the age from which on a blob that is there already is made
	// young, so that a rule of the bucket can remove what nobody uses.
	Touch time.Duration

	Credentials Credentials
}

// Defaults are BuildKit's.
func Defaults() Bucket {
	return Bucket{BlobsPrefix: "blobs/", ManifestsPrefix: "manifests/", Names: []string{"buildkit"}, Touch: 24 * time.Hour}
}

func (b Bucket) String() string {
	return "s3://" + b.Name + "/" + b.Prefix + b.ManifestsPrefix + strings.Join(b.Names, ";")
}

// Registry is a bucket seen as a registry with one repository, whose tags all
// mean the same.
type Registry struct {
	*ociregistry.Funcs // what is not here is not supported

	bucket Bucket
	client client
}

var _ ociregistry.Interface = (*Registry)(nil)

// New returns the registry in b. transport may be nil; now is the clock that
// requests are signed by.
func New(b Bucket, transport http.RoundTripper, now func() time.Time) (*Registry, error) {
	c, err := newClient(b, transport, now)
	return &Registry{bucket: b, client: c}, err
}

func (r *Registry) blob(d digest.Digest) string {
	return r.bucket.Prefix + r.bucket.BlobsPrefix + d.String()
}

// object is an open object of the bucket.
type object struct {
	io.ReadCloser
	desc ociregistry.Descriptor
}

func (o *object) Descriptor() ociregistry.Descriptor { return o.desc }

// GetBlob opens a blob; the caller verifies it.
func (r *Registry) GetBlob(ctx context.Context, _ string, d ociregistry.Digest) (ociregistry.BlobReader, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("blob %q: %w", d, errdefs.ErrInvalidArgument)
	}
	resp, err := r.client.do(ctx, request{method: http.MethodGet, key: r.blob(d)})
	if err != nil {
		return nil, err
	}
	return &object{resp.Body, ociregistry.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: resp.ContentLength}}, nil
}

// maxManifest bounds what is read of a manifest, in bytes.
const maxManifest = 4 << 20

// GetTag reads the manifest with the first of the bucket's names. A build
// cache of BuildKit in its place is an [errdefs.ErrNotImplemented].
func (r *Registry) GetTag(ctx context.Context, _ string, _ string) (ociregistry.BlobReader, error) {
	resp, err := r.client.do(ctx, request{method: http.MethodGet, key: r.manifest(r.bucket.Names[0])})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("manifest has more than %d bytes: %w", maxManifest, errdefs.ErrInvalidArgument)
	}
	var foreign struct{ Records json.RawMessage }
	if json.Unmarshal(data, &foreign) == nil && foreign.Records != nil {
		return nil, errdefs.ErrNotImplemented.WithMessage("it is a build cache of BuildKit, whose format is not read here")
	}
	return &object{io.NopCloser(bytes.NewReader(data)), ociregistry.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(data), Size: int64(len(data)),
	}}, nil
}

func (r *Registry) manifest(name string) string {
	return r.bucket.Prefix + r.bucket.ManifestsPrefix + name
}

// ResolveBlob says whether a blob is there, and makes an old one young.
func (r *Registry) ResolveBlob(ctx context.Context, _ string, d ociregistry.Digest) (ociregistry.Descriptor, error) {
	resp, err := r.client.do(ctx, request{method: http.MethodHead, key: r.blob(d)})
	if err != nil {
		return ociregistry.Descriptor{}, err
	}
	resp.Body.Close()
	if at, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil && r.client.now().Sub(at) > r.bucket.Touch {
		if err := r.touch(ctx, r.blob(d)); err != nil {
			return ociregistry.Descriptor{}, fmt.Errorf("touch %s: %w", d, err)
		}
	}
	return ociregistry.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: resp.ContentLength}, nil
}

// touch copies an object onto itself, which has to change something.
func (r *Registry) touch(ctx context.Context, key string) error {
	resp, err := r.client.do(ctx, request{method: http.MethodPut, key: key, header: map[string]string{
		"x-amz-copy-source":        escape(r.bucket.Name + "/" + key),
		"x-amz-metadata-directive": "REPLACE",
		"x-amz-meta-updated-at":    strconv.FormatInt(r.client.now().Unix(), 10),
	}})
	if err == nil {
		resp.Body.Close()
	}
	return err
}

// maxPut is the size in bytes up to which S3 takes an object at once.
const maxPut = 5 << 30

// PushBlob writes a blob. The server verifies it: its digest is part of the
// signature.
func (r *Registry) PushBlob(ctx context.Context, _ string, desc ociregistry.Descriptor, body io.Reader) (ociregistry.Descriptor, error) {
	if desc.Size > maxPut {
		return desc, fmt.Errorf("write %s: its %d bytes are more than S3 takes at once (%d): %w", desc.Digest, desc.Size, int64(maxPut), errdefs.ErrNotImplemented)
	}
	resp, err := r.client.do(ctx, request{
		method: http.MethodPut, key: r.blob(desc.Digest), body: body, size: desc.Size, sum: desc.Digest.Encoded(),
	})
	if err == nil {
		resp.Body.Close()
	}
	return desc, err
}

// PushManifest writes a manifest under all names of the bucket.
func (r *Registry) PushManifest(ctx context.Context, _ string, _ string, contents []byte, mediaType string) (ociregistry.Descriptor, error) {
	desc := ociregistry.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(contents), Size: int64(len(contents))}
	for _, name := range r.bucket.Names {
		resp, err := r.client.do(ctx, request{
			method: http.MethodPut, key: r.manifest(name), body: bytes.NewReader(contents), size: desc.Size, sum: desc.Digest.Encoded(),
			header: map[string]string{"content-type": mediaType},
		})
		if err != nil {
			return desc, err
		}
		resp.Body.Close()
	}
	return desc, nil
}
