package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/opencontainers/go-digest"
)

// manifest lets ociserver handle a manifest, after a look at its size.
func (s *server) manifest(w http.ResponseWriter, req *http.Request, t target) error {
	if req.ContentLength > MaxManifest {
		return &http.MaxBytesError{Limit: MaxManifest}
	}
	req.Body = &manifestBody{ReadCloser: http.MaxBytesReader(w, req.Body, MaxManifest)}
	if as, ok := s.registry.(digestPusher); ok && req.Method == http.MethodPut && t.digest != "" && t.digest.Algorithm() != digest.SHA256 {
		return putManifestAs(w, req, t, as)
	}
	s.rest.ServeHTTP(w, req)
	return nil
}

// digestPusher is a registry that takes a manifest under a digest that isn't
// SHA-256, which PushManifest has no way to say.
type digestPusher interface {
	PushManifestAs(ctx context.Context, repo string, d digest.Digest, contents []byte, mediaType string) (ociregistry.Descriptor, error)
}

func putManifestAs(w http.ResponseWriter, req *http.Request, t target, r digestPusher) error {
	data, err := io.ReadAll(req.Body)
	if err != nil {
		return err
	}
	if t.digest.Algorithm().FromBytes(data) != t.digest {
		return ociregistry.ErrDigestInvalid
	}
	if _, err := r.PushManifestAs(req.Context(), t.repo, t.digest, data, req.Header.Get("Content-Type")); err != nil {
		return err
	}
	var m struct {
		Subject *ociregistry.Descriptor `json:"subject"`
	}
	if json.Unmarshal(data, &m) == nil && m.Subject != nil {
		w.Header().Set("OCI-Subject", string(m.Subject.Digest))
	}
	w.Header().Set("Location", "/v2/"+t.repo+"/manifests/"+string(t.digest))
	w.Header().Set("Docker-Content-Digest", string(t.digest))
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}

// manifestBody keeps the error that reading it ended in: ociserver makes
// another of it that has only the text in common.
type manifestBody struct {
	io.ReadCloser
	err error
}

func (b *manifestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// manifests is a registry whose manifests are in memory when they are handed
// out: ociserver doesn't close what it gets.
type manifests struct {
	ociregistry.Interface
}

func (m manifests) GetManifest(ctx context.Context, repo string, d ociregistry.Digest) (ociregistry.BlobReader, error) {
	return inMemory(m.Interface.GetManifest(ctx, repo, d))
}

func (m manifests) GetTag(ctx context.Context, repo, tag string) (ociregistry.BlobReader, error) {
	return inMemory(m.Interface.GetTag(ctx, repo, tag))
}

// inMemory reads the manifest b and closes it.
func inMemory(b ociregistry.BlobReader, err error) (ociregistry.BlobReader, error) {
	if err != nil {
		return nil, err
	}
	defer b.Close()
	data, err := io.ReadAll(io.LimitReader(b, MaxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if len(data) > MaxManifest {
		return nil, fmt.Errorf("read manifest: larger than %d bytes: %w", MaxManifest, ociregistry.ErrManifestInvalid)
	}
	return &memory{bytes.NewReader(data), b.Descriptor()}, nil
}

type memory struct {
	*bytes.Reader
	desc ociregistry.Descriptor
}

func (m *memory) Close() error                       { return nil }
func (m *memory) Descriptor() ociregistry.Descriptor { return m.desc }
