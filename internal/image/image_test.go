package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/progress"
	"github.com/shaleproject/shale/internal/store"
)

// world is a store of its own and registries in memory.
type world struct {
	*Images
	t          *testing.T
	registries map[string]ociregistry.Interface
}

var (
	amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = ocispec.Platform{OS: "linux", Architecture: "arm64"}
	epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	w := &world{t: t, registries: map[string]ociregistry.Interface{"reg.test": ocimem.New(), "docker.io": ocimem.New()}}
	w.Images = &Images{
		Store:    s,
		Platform: amd64,
		Now:      func() time.Time { return epoch },
		Registries: func(host string) (ociregistry.Interface, error) {
			if r := w.registries[host]; r != nil {
				return r, nil
			}
			return nil, fmt.Errorf("registry %s: %w", host, errdefs.ErrUnavailable)
		},
	}
	return w
}

// must is for what a test only needs in order to begin.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// tarOf makes a layer of the files, given as name, content, name, content …
// A name that ends in a slash is a directory.
func tarOf(files ...string) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for n := 0; n+1 < len(files); n += 2 {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: files[n], Mode: 0o644, Size: int64(len(files[n+1])), ModTime: epoch}
		if strings.HasSuffix(files[n], "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		}
		if err := errors.Join(w.WriteHeader(h), write(w, files[n+1])); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func write(w *tar.Writer, s string) error {
	_, err := w.Write([]byte(s))
	return err
}

func compressed(t *testing.T, c layer.Compression, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := layer.Compress(&out, c, 0)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// remote is an image that is put into a registry piece by piece, so that a
// test can spoil any of them.
type remote struct {
	config   Config
	layers   [][]byte // as they travel
	types    []string
	manifest ocispec.Manifest
	raw      []byte // of the manifest
	desc     ocispec.Descriptor
}

// newRemote makes an image for p of uncompressed layers.
func newRemote(t *testing.T, p ocispec.Platform, c layer.Compression, layers ...[]byte) *remote {
	t.Helper()
	created := epoch
	r := &remote{config: Config{Image: ocispec.Image{Created: &created, Platform: p, RootFS: ocispec.RootFS{Type: "layers"}}}}
	r.config.Config.Cmd = []string{"sh"}
	r.config.Config.Labels = map[string]string{"arch": p.Architecture}
	for n, l := range layers {
		r.config.RootFS.DiffIDs = append(r.config.RootFS.DiffIDs, digest.FromBytes(l))
		r.config.History = append(r.config.History, ocispec.History{Created: &created, CreatedBy: fmt.Sprintf("COPY %d /", n)})
		r.layers = append(r.layers, compressed(t, c, l))
		r.types = append(r.types, c.MediaType())
	}
	r.seal()
	return r
}

// seal computes config and manifest from the parts.
func (r *remote) seal() {
	config, err := json.Marshal(r.config)
	if err != nil {
		panic(err)
	}
	r.manifest = ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    describe(ocispec.MediaTypeImageConfig, config),
		Layers:    []ocispec.Descriptor{},
	}
	for n, l := range r.layers {
		r.manifest.Layers = append(r.manifest.Layers, describe(r.types[n], l))
	}
	r.reseal()
}

// reseal computes the bytes of a manifest that a test has changed.
func (r *remote) reseal() {
	data, err := json.MarshalIndent(r.manifest, "", "   ")
	if err != nil {
		panic(err)
	}
	r.raw, r.desc = data, describe(r.manifest.MediaType, data)
}

// put sends blobs and manifest to a registry; tag may be empty.
func (w *world) put(host, repo, tag string, r *remote) {
	w.t.Helper()
	reg := w.registries[host]
	config, err := json.Marshal(r.config)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, blob := range append([][]byte{config}, r.layers...) {
		if _, err := reg.PushBlob(w.t.Context(), repo, describe("application/octet-stream", blob), bytes.NewReader(blob)); err != nil {
			w.t.Fatal(err)
		}
	}
	if _, err := reg.PushManifest(w.t.Context(), repo, tag, r.raw, r.desc.MediaType); err != nil {
		w.t.Fatal(err)
	}
}

// putIndex sends images and an index over them.
func (w *world) putIndex(host, repo, tag string, images ...*remote) ocispec.Descriptor {
	w.t.Helper()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, r := range images {
		w.put(host, repo, "", r)
		d := r.desc
		p := r.config.Platform
		d.Platform = &p
		index.Manifests = append(index.Manifests, d)
	}
	data, err := json.Marshal(index)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.registries[host].PushManifest(w.t.Context(), repo, tag, data, index.MediaType); err != nil {
		w.t.Fatal(err)
	}
	return describe(index.MediaType, data)
}

// events gathers what an operation says.
type events struct {
	mu   sync.Mutex
	list []progress.Event
}

func (e *events) sink() progress.Sink {
	return func(ev progress.Event) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.list = append(e.list, ev)
	}
}

// said returns the lines without the byte counts, each once.
func (e *events) said() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var lines []string
	seen := make(map[string]bool)
	for _, ev := range e.list {
		line := ev.Message
		if line == "" {
			line = ev.ID + ": " + ev.Action
		}
		if !seen[line] {
			seen[line] = true
			lines = append(lines, line)
		}
	}
	return lines
}

func (e *events) has(t *testing.T, part string) {
	t.Helper()
	for _, line := range e.said() {
		if strings.Contains(line, part) {
			return
		}
	}
	t.Errorf("nobody said %q, but:\n%s", part, strings.Join(e.said(), "\n"))
}

// refs returns the names in the store.
func (w *world) refs() []string {
	w.t.Helper()
	refs, err := w.Store.Refs(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, r := range refs {
		names = append(names, r.Name)
	}
	return names
}

// local makes an image of layers as a build would.
func (w *world) local(created time.Time, layers [][]byte, names ...string) *Image {
	w.t.Helper()
	lease := must(w.Store.Lease(w.t.Context()))(w.t)
	defer lease.Close()
	c := Config{Image: ocispec.Image{Created: &created, Platform: amd64, RootFS: ocispec.RootFS{Type: "layers"}}}
	for n, data := range layers {
		d, err := w.importLayer(w.t.Context(), lease, bytes.NewReader(data))
		if err != nil {
			w.t.Fatal(err)
		}
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, d)
		c.History = append(c.History, ocispec.History{Created: &created, CreatedBy: fmt.Sprintf("COPY %d /", n), Comment: "buildkit.dockerfile.v0"})
	}
	c.History = append(c.History, ocispec.History{Created: &created, CreatedBy: `CMD ["sh"]`, EmptyLayer: true})
	raw := must(json.Marshal(c))(w.t)
	img, err := w.Write(w.t.Context(), lease, raw, c.RootFS.DiffIDs, names)
	if err != nil {
		w.t.Fatal(err)
	}
	return img
}

// ioReader is short for the sake of signatures.
type ioReader = io.Reader

// stdGzip compresses with the standard library, whose bytes differ from ours.
func stdGzip(t *testing.T, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Name = "by somebody else"
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
