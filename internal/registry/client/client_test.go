package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/registry/server"
)

// fakeClock jumps over every sleep.
type fakeClock struct {
	mu    sync.Mutex
	t     time.Time
	slept []time.Duration
}

func newFakeClock() *fakeClock {
	return &fakeClock{t: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)}
}

func (f *fakeClock) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.t
}

func (f *fakeClock) advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.t = f.t.Add(d)
}

func (f *fakeClock) total() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	var sum time.Duration
	for _, d := range f.slept {
		sum += d
	}
	return sum
}

func (f *fakeClock) clock() clock {
	return clock{now: f.now, jitter: func() float64 { return 0.5 }, sleep: func(ctx context.Context, d time.Duration) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.t = f.t.Add(d)
		f.slept = append(f.slept, d)
		return ctx.Err()
	}}
}

var testLimits = limits{stall: 5 * time.Second, commit: 5 * time.Second, budget: 70 * time.Second}

func testClient(t *testing.T, config Config) (*Client, *fakeClock) {
	t.Helper()
	f := newFakeClock()
	return newClient(config, f.clock(), testLimits), f
}

// open returns the registry that h serves on a loopback port of its own.
func open(t *testing.T, h http.Handler, config Config) (ociregistry.Interface, *httptest.Server, *fakeClock) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, f := testClient(t, config)
	r, err := c.Registry(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return r, s, f
}

// randomBlob returns n bytes that are the same in every run.
func randomBlob(n int) ([]byte, ociregistry.Descriptor) {
	data := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(n)})
	rng.Read(data)
	return data, ociregistry.Descriptor{Digest: digest.FromBytes(data), Size: int64(n)}
}

// pushImage puts a small image under name:v1 and returns its manifest.
func pushImage(t *testing.T, r ociregistry.Interface, repo string, layer []byte) (ociregistry.Descriptor, []byte) {
	t.Helper()
	ctx := t.Context()
	config := []byte(`{"architecture":"amd64","os":"linux"}`)
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers:    []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))}},
	}
	m.SchemaVersion = 2
	for _, b := range [][]byte{config, layer} {
		if _, err := r.PushBlob(ctx, repo, ociregistry.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	desc, err := r.PushManifest(ctx, repo, "v1", data, m.MediaType)
	if err != nil {
		t.Fatal(err)
	}
	return desc, data
}

func readAll(t *testing.T, b ociregistry.BlobReader, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	data, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// checkRoundTrip pushes and reads back through every way that r has.
func checkRoundTrip(t *testing.T, r ociregistry.Interface) {
	t.Helper()
	ctx := t.Context()
	layer, ld := randomBlob(3 << 20)
	desc, manifest := pushImage(t, r, "team/app", layer)

	b, err := r.GetTag(ctx, "team/app", "v1")
	if got := readAll(t, b, err); !bytes.Equal(got, manifest) {
		t.Error("manifest by tag differs")
	}
	if b.Descriptor().MediaType != ocispec.MediaTypeImageManifest || b.Descriptor().Digest != desc.Digest {
		t.Errorf("descriptor of tag: %+v", b.Descriptor())
	}
	b, err = r.GetManifest(ctx, "team/app", desc.Digest)
	if got := readAll(t, b, err); !bytes.Equal(got, manifest) {
		t.Error("manifest by digest differs")
	}
	if d, err := r.ResolveTag(ctx, "team/app", "v1"); err != nil || d.Digest != desc.Digest || d.Size != desc.Size {
		t.Errorf("resolve tag: %+v, %v", d, err)
	}
	if d, err := r.ResolveBlob(ctx, "team/app", ld.Digest); err != nil || d.Size != ld.Size {
		t.Errorf("resolve blob: %+v, %v", d, err)
	}
	b, err = r.GetBlob(ctx, "team/app", ld.Digest)
	if got := readAll(t, b, err); !bytes.Equal(got, layer) || b.Descriptor().Size != ld.Size {
		t.Error("blob differs")
	}
	b, err = r.GetBlobRange(ctx, "team/app", ld.Digest, 1000, 2000)
	if got := readAll(t, b, err); !bytes.Equal(got, layer[1000:2000]) {
		t.Error("range differs")
	}
	b, err = r.GetBlobRange(ctx, "team/app", ld.Digest, 3<<20-10, -1)
	if got := readAll(t, b, err); !bytes.Equal(got, layer[3<<20-10:]) {
		t.Error("tail differs")
	}
	checkUploads(t, r)

	if _, err := r.GetTag(ctx, "team/app", "nope"); !errdefs.IsNotFound(err) || !errors.Is(err, ociregistry.ErrManifestUnknown) {
		t.Errorf("unknown tag: %v", err)
	}
	if _, err := r.GetBlob(ctx, "team/app", digest.FromString("nope")); !errdefs.IsNotFound(err) {
		t.Errorf("unknown blob: %v", err)
	}
	var tags []string
	for tag, err := range r.Tags(ctx, "team/app", "") {
		if err != nil {
			t.Fatal(err)
		}
		tags = append(tags, tag)
	}
	if strings.Join(tags, " ") != "v1" {
		t.Errorf("tags: %q", tags)
	}
}

func checkUploads(t *testing.T, r ociregistry.Interface) {
	t.Helper()
	ctx := t.Context()
	for _, chunk := range []int{0, 300_000} {
		data, d := randomBlob(1_000_000 + chunk)
		w, err := r.PushBlobChunked(ctx, "team/app", chunk)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(data); i += 70_000 {
			if _, err := w.Write(data[i:min(i+70_000, len(data))]); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Commit(d.Digest); err != nil {
			t.Fatal(err)
		}
		b, err := r.GetBlob(ctx, "team/app", d.Digest)
		if got := readAll(t, b, err); !bytes.Equal(got, data) {
			t.Errorf("upload with chunks of %d differs", chunk)
		}
		if _, err := r.MountBlob(ctx, "team/app", "team/other", d.Digest); err != nil {
			t.Errorf("mount: %v", err)
		}
		if _, err := r.ResolveBlob(ctx, "team/other", d.Digest); err != nil {
			t.Errorf("mounted blob: %v", err)
		}
	}
	data, d := randomBlob(100)
	if _, err := r.PushBlob(ctx, "team/app", ociregistry.Descriptor{Digest: digest.FromString("other"), Size: d.Size}, bytes.NewReader(data)); err == nil {
		t.Error("the registry took a blob under another digest")
	}
	empty := ociregistry.Descriptor{Digest: digest.FromString(""), Size: 0}
	if _, err := r.PushBlob(ctx, "team/app", empty, bytes.NewReader(nil)); err != nil {
		t.Errorf("empty blob: %v", err)
	}
	w, err := r.PushBlobChunked(ctx, "team/app", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Cancel(); err != nil {
		t.Errorf("cancel: %v", err)
	}
}

func TestImageGoesToARegistryInMemoryAndBack(t *testing.T) {
	r, _, _ := open(t, ociserver.New(ocimem.New(), nil), Config{})
	checkRoundTrip(t, r)
}

func TestImageGoesToOurServerAndBack(t *testing.T) {
	r, _, _ := open(t, server.New(ocimem.New(), server.Options{}), Config{})
	checkRoundTrip(t, r)
}

func sha256Hex(s string) string { return digest.FromString(s).Encoded() }
