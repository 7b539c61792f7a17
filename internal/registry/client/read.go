package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociauth"
	"cuelabs.dev/go/oci/ociregistry/ociref"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifest is the size in bytes of the largest manifest that is read, the
// one that distribution and zot accept.
const maxManifest = 4 << 20

// The manifest types of Docker, which registries still send.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// manifestTypes is sent as Accept. Some registries convert or refuse what a
// client does not name.
func manifestTypes() []string {
	return []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, dockerManifest, dockerList, "*/*"}
}

func (r *registry) GetManifest(ctx context.Context, repo string, digest ociregistry.Digest) (ociregistry.BlobReader, error) {
	op := r.op("get manifest", repo, string(digest))
	if err := check(repo, digest); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	m, err := r.manifest(ctx, repo, string(digest), digest)
	if err != nil {
		return nil, r.fail(op, ociregistry.ErrManifestUnknown, err)
	}
	return m, nil
}

func (r *registry) GetTag(ctx context.Context, repo, tag string) (ociregistry.BlobReader, error) {
	op := r.op("get manifest", repo, tag)
	if tag == "" || !ociref.IsValidTag(tag) || !ociref.IsValidRepository(repo) {
		return nil, fmt.Errorf("%s: malformed name: %w", op, errdefs.ErrInvalidArgument)
	}
	m, err := r.manifest(ctx, repo, tag, "")
	if err != nil {
		return nil, r.fail(op, ociregistry.ErrManifestUnknown, err)
	}
	return m, nil
}

// manifest reads a manifest and checks all that can be known about its bytes
// before anybody parses them: size, digest (want, or what the registry claims),
// and that its type is not open to two readings.
func (r *registry) manifest(ctx context.Context, repo, ref string, want digest.Digest) (ociregistry.BlobReader, error) {
	req, err := r.request(ctx, http.MethodGet, repo+"/manifests/"+ref, repo, ociauth.ActionPull, nil)
	if err != nil {
		return nil, err
	}
	req.Header["Accept"] = manifestTypes()
	resp, data, err := r.readSmall(req)
	if err != nil {
		return nil, err
	}
	claimed := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if claimed != "" && want == "" {
		if claimed.Validate() != nil {
			return nil, dataLoss(ociregistry.ErrDigestInvalid, "registry %s answers with a malformed digest", r.name)
		}
		want = claimed
	}
	if want == "" {
		want = digest.FromBytes(data)
	}
	if got := want.Algorithm().FromBytes(data); got != want {
		return nil, dataLoss(ociregistry.ErrDigestInvalid, "digest mismatch: want %s, got %s", want, got)
	}
	if claimed != "" && differs(claimed, want) {
		return nil, dataLoss(ociregistry.ErrDigestInvalid, "registry %s answers with another digest: %s", r.name, claimed)
	}
	mediaType, err := manifestType(resp.Header.Get("Content-Type"), data)
	if err != nil {
		return nil, err
	}
	desc := ociregistry.Descriptor{MediaType: mediaType, Digest: want, Size: int64(len(data))}
	return &memory{bytes.NewReader(data), desc}, nil
}

// readSmall sends req and reads the whole answer, again if the connection
// breaks on the way.
func (r *registry) readSmall(req *http.Request) (*http.Response, []byte, error) {
	for try := 0; ; try++ {
		resp, err := r.send(req.Clone(req.Context()), http.StatusOK)
		if err != nil {
			return nil, nil, err
		}
		if err := identity(resp); err != nil {
			resp.Body.Close()
			return nil, nil, err
		}
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
		resp.Body.Close()
		switch {
		case len(data) > maxManifest:
			return nil, nil, dataLoss(ociregistry.ErrSizeInvalid, "manifest is larger than %d bytes", maxManifest)
		case err == nil:
			return resp, data, nil
		case req.Context().Err() != nil:
			return nil, nil, context.Cause(req.Context())
		case try >= noProgress:
			return nil, nil, truncated(err, int64(len(data)), resp.ContentLength)
		}
		if err := r.client.clock.sleep(req.Context(), r.client.retry.delay(r.host, try, nil)); err != nil {
			return nil, nil, err
		}
	}
}

// memory is a small document that has been read and verified.
type memory struct {
	*bytes.Reader
	desc ociregistry.Descriptor
}

func (m *memory) Close() error                       { return nil }
func (m *memory) Descriptor() ociregistry.Descriptor { return m.desc }

// identity returns an error if the body of resp is not the bytes themselves.
func identity(resp *http.Response) error {
	coding := strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding")))
	if coding == "" || coding == "identity" {
		return nil
	}
	return dataLoss(ociregistry.ErrDigestInvalid, "the answer is encoded with %s, which was not asked for", oneLine(coding))
}

// differs reports whether two digests contradict each other. Digests of
// different algorithms do not.
func differs(a, b digest.Digest) bool {
	algorithm := func(d digest.Digest) string { s, _, _ := strings.Cut(string(d), ":"); return s }
	return a != b && algorithm(a) == algorithm(b)
}

// manifestType returns the media type of a manifest. The header and the
// document must not contradict each other, and the document must be of one
// kind, written so that every parser reads the same (CVE-2021-41190:
// https://github.com/opencontainers/distribution-spec/security/advisories/GHSA-mc8v-mgrf-8f4m).
func manifestType(header string, data []byte) (string, error) {
	fields, err := topLevel(data)
	if err != nil {
		return "", fmt.Errorf("%w: %w", &said{"manifest invalid: " + err.Error(), ociregistry.ErrManifestInvalid}, errdefs.ErrInvalidArgument)
	}
	header, _, err = mime.ParseMediaType(header)
	known := err == nil && (strings.HasPrefix(header, "application/vnd.oci.image.") || strings.HasPrefix(header, "application/vnd.docker.distribution."))
	var inside string
	_ = json.Unmarshal(fields["mediaType"], &inside)
	switch {
	case fields["manifests"] != nil && (fields["layers"] != nil || fields["config"] != nil):
		return "", fmt.Errorf("%w: both an image and an index: %w", ociregistry.ErrManifestInvalid, errdefs.ErrInvalidArgument)
	case known && inside != "" && inside != header:
		return "", fmt.Errorf("%w: sent as %s, but says that it is %s: %w", ociregistry.ErrManifestInvalid, header, oneLine(inside), errdefs.ErrInvalidArgument)
	case known:
		return header, nil
	case inside != "":
		return inside, nil
	case fields["manifests"] != nil:
		return ocispec.MediaTypeImageIndex, nil
	case fields["layers"] != nil:
		return ocispec.MediaTypeImageManifest, nil
	}
	return header, nil
}

// topLevel returns the members of the JSON object that data must be. Members
// that occur twice, or differ only in case, are an error: encoding/json takes
// the last, other parsers the first.
func topLevel(data []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	fields, folded := map[string]json.RawMessage{}, map[string]bool{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, errors.New("malformed JSON")
		}
		name, _ := key.(string)
		if folded[strings.ToLower(name)] {
			return nil, fmt.Errorf("member %q occurs twice", oneLine(name))
		}
		folded[strings.ToLower(name)] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errors.New("malformed JSON")
		}
		fields[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, errors.New("malformed JSON")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	return fields, nil
}

func decode(data []byte, v any) error { return json.Unmarshal(data, v) }
