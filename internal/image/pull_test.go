package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/progress"
)

var (
	base = tarOf("etc/", "", "etc/os-release", "ID=test\n")
	top  = tarOf("app/", "", "app/main", strings.Repeat("x", 100_000))
)

func TestAPulledImageIsWhatTheRegistryHas(t *testing.T) {
	for _, c := range []layer.Compression{layer.None, layer.Gzip, layer.Zstd} {
		t.Run(c.String(), func(t *testing.T) {
			w := newWorld(t)
			r := newRemote(t, amd64, c, base, top)
			w.put("docker.io", "library/busybox", "latest", r)
			var said events
			desc, err := w.Pull(t.Context(), "busybox", PullOptions{Progress: said.sink()})
			if err != nil {
				t.Fatal(err)
			}
			if desc.Digest != r.desc.Digest {
				t.Errorf("digest is %s, want %s", desc.Digest, r.desc.Digest)
			}
			img := must(w.Get(t.Context(), "busybox", nil))(t)
			if img.ConfigDigest != r.manifest.Config.Digest {
				t.Errorf("id is %s, want %s", img.ConfigDigest, r.manifest.Config.Digest)
			}
			if got := must(w.Store.Read(desc.Digest))(t); !bytes.Equal(got, r.raw) {
				t.Error("the manifest was not kept byte for byte")
			}
			for n, l := range [][]byte{base, top} {
				blob := must(w.Store.Blob(img.DiffIDs[n]))(t)
				if got := must(io.ReadAll(blob))(t); !bytes.Equal(got, l) {
					t.Errorf("layer %d differs", n)
				}
				blob.Close()
			}
			want := []string{"docker.io/library/busybox:latest", "docker.io/library/busybox@" + desc.Digest.String()}
			if got := w.refs(); !slices.Equal(got, want) {
				t.Errorf("names are %q, want %q", got, want)
			}
			for _, line := range []string{
				"latest: Pulling from library/busybox",
				short(r.manifest.Layers[0].Digest) + ": Pull complete",
				"Digest: " + desc.Digest.String(),
				"Status: Downloaded newer image for busybox:latest",
			} {
				said.has(t, line)
			}
		})
	}
}

func TestASecondPullFetchesNothing(t *testing.T) {
	w := newWorld(t)
	r := newRemote(t, amd64, layer.Gzip, base, top)
	w.put("reg.test", "app", "v1", r)
	counted := &counting{Interface: w.registries["reg.test"]}
	w.registries["reg.test"] = counted
	if _, err := w.Pull(t.Context(), "reg.test/app:v1", PullOptions{}); err != nil {
		t.Fatal(err)
	}
	first := counted.blobs.Load()
	var said events
	if _, err := w.Pull(t.Context(), "reg.test/app:v1", PullOptions{Progress: said.sink()}); err != nil {
		t.Fatal(err)
	}
	if n := counted.blobs.Load() - first; n != 0 {
		t.Errorf("the second pull fetched %d blobs", n)
	}
	said.has(t, "Status: Image is up to date for reg.test/app:v1")
	said.has(t, ": Already exists")
}

// counting counts the blobs that are fetched.
type counting struct {
	ociregistry.Interface
	blobs atomic.Int64
}

func (c *counting) GetBlob(ctx context.Context, repo string, d digest.Digest) (ociregistry.BlobReader, error) {
	c.blobs.Add(1)
	return c.Interface.GetBlob(ctx, repo, d)
}

func TestPullsAtOnceFetchEachBlobOnce(t *testing.T) {
	w := newWorld(t)
	r := newRemote(t, amd64, layer.Gzip, base, top)
	w.put("reg.test", "app", "v1", r)
	counted := &counting{Interface: w.registries["reg.test"]}
	w.registries["reg.test"] = counted
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := w.Pull(t.Context(), "reg.test/app:v1", PullOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := counted.blobs.Load(); n > 2+8 { // a config is small; each may fetch it
		t.Errorf("eight pulls fetched %d blobs", n)
	}
}

func TestPullTakesThePlatform(t *testing.T) {
	w := newWorld(t)
	x86, arm := newRemote(t, amd64, layer.Gzip, base), newRemote(t, arm64, layer.Gzip, top)
	index := w.putIndex("docker.io", "library/multi", "latest", x86, arm)

	desc := must(w.Pull(t.Context(), "multi", PullOptions{}))(t)
	if desc.Digest != index.Digest {
		t.Errorf("digest is %s, not that of the index", desc.Digest)
	}
	if img := must(w.Get(t.Context(), "multi", nil))(t); img.ConfigDigest != x86.manifest.Config.Digest {
		t.Error("the default platform was not taken")
	}
	if _, err := w.Get(t.Context(), "multi", &arm64); !errdefs.IsNotFound(err) {
		t.Errorf("a platform that was not pulled: %v", err)
	}
	must(w.Pull(t.Context(), "multi", PullOptions{Platform: &arm64}))(t)
	if img := must(w.Get(t.Context(), "multi", &arm64))(t); img.ConfigDigest != arm.manifest.Config.Digest {
		t.Error("the platform that was asked for was not taken")
	}
	if img := must(w.Get(t.Context(), "multi", nil))(t); img.ConfigDigest != x86.manifest.Config.Digest {
		t.Error("the default platform has changed")
	}

	s390x := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	_, err := w.Pull(t.Context(), "multi", PullOptions{Platform: &s390x})
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "linux/amd64, linux/arm64") {
		t.Errorf("a platform that is not there: %v", err)
	}
	w.put("docker.io", "library/single", "latest", arm)
	if _, err := w.Pull(t.Context(), "single", PullOptions{Platform: &amd64}); !errdefs.IsNotFound(err) {
		t.Errorf("an image of another platform: %v", err)
	}
}

func TestAMovedTagLeavesTheOldImageItsDigest(t *testing.T) {
	w := newWorld(t)
	w.put("reg.test", "app", "v1", newRemote(t, amd64, layer.Gzip, base))
	old := must(w.Pull(t.Context(), "reg.test/app:v1", PullOptions{}))(t)
	w.put("reg.test", "app", "v1", newRemote(t, amd64, layer.Gzip, top))
	must(w.Pull(t.Context(), "reg.test/app:v1", PullOptions{}))(t)
	img := must(w.Get(t.Context(), "reg.test/app@"+old.Digest.String(), nil))(t)
	if img.Target.Digest != old.Digest {
		t.Error("the digest leads elsewhere")
	}
	for _, s := range must(w.List(t.Context(), ListOptions{}))(t) {
		if s.ID == img.ConfigDigest && (len(s.RepoTags) != 0 || len(s.RepoDigests) != 1) {
			t.Errorf("the old image is %q %q", s.RepoTags, s.RepoDigests)
		}
	}
}

// spoiled is a registry that lies about one digest.
type spoiled struct {
	ociregistry.Interface
	digest digest.Digest
	data   []byte
	err    error // what reading ends in, after data
}

func (s *spoiled) GetBlob(ctx context.Context, repo string, d digest.Digest) (ociregistry.BlobReader, error) {
	if d == s.digest {
		return &lie{bytes.NewReader(s.data), describe("application/octet-stream", s.data), s.err}, nil
	}
	return s.Interface.GetBlob(ctx, repo, d)
}

func (s *spoiled) GetManifest(ctx context.Context, repo string, d digest.Digest) (ociregistry.BlobReader, error) {
	if d == s.digest {
		return &lie{bytes.NewReader(s.data), describe(ocispec.MediaTypeImageManifest, s.data), s.err}, nil
	}
	return s.Interface.GetManifest(ctx, repo, d)
}

type lie struct {
	*bytes.Reader
	desc ocispec.Descriptor
	err  error
}

func (l *lie) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if errors.Is(err, io.EOF) && l.err != nil {
		err = l.err
	}
	return n, err
}
func (l *lie) Close() error                   { return nil }
func (l *lie) Descriptor() ocispec.Descriptor { return l.desc }

func TestAHostileRegistryLeavesTheStoreAsItWas(t *testing.T) {
	bomb := compressed(t, layer.Zstd, make([]byte, 8<<20))
	for _, test := range []struct {
		name  string
		spoil func(w *world, r *remote)
		is    func(error) bool
		says  string
	}{
		{"layer with other bytes", func(w *world, r *remote) {
			w.spoil(r.manifest.Layers[1].Digest, flip(r.layers[1]), nil)
		}, errdefs.IsDataLoss, "content has digest"},
		{"layer cut short", func(w *world, r *remote) {
			w.spoil(r.manifest.Layers[1].Digest, r.layers[1][:len(r.layers[1])-9], nil)
		}, errdefs.IsDataLoss, "has only"},
		{"layer with more behind it", func(w *world, r *remote) {
			w.spoil(r.manifest.Layers[1].Digest, append(slices.Clone(r.layers[1]), "more"...), nil)
		}, errdefs.IsDataLoss, "has more than"},
		{"connection that breaks", func(w *world, r *remote) {
			w.spoil(r.manifest.Layers[1].Digest, r.layers[1][:20], io.ErrUnexpectedEOF)
		}, nil, "unexpected EOF"},
		{"config with other bytes", func(w *world, r *remote) {
			config := must(w.fetch(r.manifest.Config.Digest))(w.t)
			w.spoil(r.manifest.Config.Digest, bytes.Replace(config, []byte(`"sh"`), []byte(`"xx"`), 1), nil)
		}, errdefs.IsDataLoss, "content has digest"},
		{"layer that is not what the config lists", func(w *world, r *remote) {
			r.config.RootFS.DiffIDs[1] = digest.FromString("something else")
			r.seal()
			w.put("reg.test", "app", "v1", r)
		}, nil, "content has digest"},
		{"manifest that came as an index", func(w *world, r *remote) {
			w.registries["reg.test"] = &mistyped{w.registries["reg.test"]}
		}, errdefs.IsInvalidArgument, "calls itself"},
		{"layer count that differs", func(w *world, r *remote) {
			r.manifest.Layers = r.manifest.Layers[:1]
			r.reseal()
			w.put("reg.test", "app", "v1", r)
		}, errdefs.IsInvalidArgument, "config names 2 layers, the manifest 1"},
		{"layer that is no tar", func(w *world, r *remote) {
			garbage := bytes.Repeat([]byte("not a tar at all"), 100)
			r.layers[1], r.config.RootFS.DiffIDs[1] = compressed(w.t, layer.Gzip, garbage), digest.FromBytes(garbage)
			r.seal()
			w.put("reg.test", "app", "v1", r)
		}, errdefs.IsInvalidArgument, "layer"},
		{"name that leaves the root", func(w *world, r *remote) {
			evil := tarOf("../../etc/passwd", "root::0:0")
			r.layers[1], r.config.RootFS.DiffIDs[1] = compressed(w.t, layer.Gzip, evil), digest.FromBytes(evil)
			r.seal()
			w.put("reg.test", "app", "v1", r)
		}, errdefs.IsInvalidArgument, "passwd"},
		{"foreign layer", func(w *world, r *remote) {
			r.manifest.Layers[1].URLs = []string{"http://169.254.169.254/layer"}
			r.reseal()
			w.put("reg.test", "app", "v1", r)
		}, errdefs.IsNotImplemented, "foreign layer"},
		{"layer of a type that nobody knows", func(w *world, r *remote) {
			r.manifest.Layers[1].MediaType = "application/vnd.erofs"
			r.reseal()
			w.put("reg.test", "app", "v1", r)
		}, errdefs.IsNotImplemented, "unsupported media type"},
		{"layer that is no layer of the config but zeros", func(w *world, r *remote) {
			r.layers[1] = bomb
			r.seal()
			w.put("reg.test", "app", "v1", r)
		}, nil, "layer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.local(epoch, [][]byte{base}, "kept:latest")
			before := w.refs()
			r := newRemote(t, amd64, layer.Gzip, base, top)
			w.put("reg.test", "app", "v1", r)
			test.spoil(w, r)
			_, err := w.Pull(t.Context(), "reg.test/app:v1", PullOptions{})
			if err == nil {
				t.Fatal("the pull succeeded")
			}
			if test.is != nil && !test.is(err) {
				t.Errorf("error is of another class: %v", err)
			}
			if !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %q, want one line with %q", err, test.says)
			}
			if after := w.refs(); !slices.Equal(before, after) {
				t.Errorf("names were %q, are %q", before, after)
			}
			if _, err := w.Store.Stat(digest.FromBytes(top)); err == nil {
				t.Error("the layer of the failed pull is in the store")
			}
		})
	}
}

func flip(data []byte) []byte {
	data = slices.Clone(data)
	data[len(data)/2] ^= 1
	return data
}

func (w *world) spoil(d digest.Digest, data []byte, err error) {
	w.registries["reg.test"] = &spoiled{w.registries["reg.test"], d, data, err}
}

func (w *world) fetch(d digest.Digest) ([]byte, error) {
	r, err := w.registries["reg.test"].GetBlob(w.t.Context(), "app", d)
	if err != nil {
		return nil, err
	}
	return readAll(r)
}

type mistyped struct{ ociregistry.Interface }

func (m *mistyped) GetTag(ctx context.Context, repo, tag string) (ociregistry.BlobReader, error) {
	r, err := m.Interface.GetTag(ctx, repo, tag)
	if err != nil {
		return nil, err
	}
	data, err := readAll(r)
	return &lie{bytes.NewReader(data), describe(ocispec.MediaTypeImageIndex, data), nil}, err
}

func TestAnInterruptedPullGoesOnWithWhatIsComplete(t *testing.T) {
	w := newWorld(t)
	r := newRemote(t, amd64, layer.Gzip, base, top)
	w.put("reg.test", "app", "v1", r)
	honest := w.registries["reg.test"]
	ctx, cancel := context.WithCancel(t.Context())
	// The second layer never ends; the first one is complete by then.
	w.registries["reg.test"] = &stalling{Interface: honest, digest: r.manifest.Layers[1].Digest}
	_, err := w.Pull(ctx, "reg.test/app:v1", PullOptions{Parallel: 1, Progress: func(e progress.Event) {
		if e.Action == "Pull complete" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if len(w.refs()) != 0 {
		t.Errorf("names: %q", w.refs())
	}
	w.registries["reg.test"] = honest
	var said events
	must(w.Pull(t.Context(), "reg.test/app:v1", PullOptions{Progress: said.sink()}))(t)
	said.has(t, short(r.manifest.Layers[0].Digest)+": Already exists")
	said.has(t, short(r.manifest.Layers[1].Digest)+": Pull complete")
}

// stalling is a registry whose blob digest never comes.
type stalling struct {
	ociregistry.Interface
	digest digest.Digest
}

func (s *stalling) GetBlob(ctx context.Context, repo string, d digest.Digest) (ociregistry.BlobReader, error) {
	if d != s.digest {
		return s.Interface.GetBlob(ctx, repo, d)
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestPullAllTakesEveryTag(t *testing.T) {
	w := newWorld(t)
	w.registries["reg.test"] = ocimem.New()
	w.put("reg.test", "app", "v1", newRemote(t, amd64, layer.Gzip, base))
	w.put("reg.test", "app", "v2", newRemote(t, amd64, layer.Gzip, base, top))
	if all := must(w.PullAll(t.Context(), "reg.test/app", PullOptions{}))(t); len(all) != 2 {
		t.Errorf("pulled %d tags", len(all))
	}
	if _, err := w.PullAll(t.Context(), "reg.test/app:v1", PullOptions{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("with a tag: %v", err)
	}
}

func TestUnknownImagesAreNotFound(t *testing.T) {
	w := newWorld(t)
	if _, err := w.Pull(t.Context(), "reg.test/none:v1", PullOptions{}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("pull: %v", err)
	}
	for _, name := range []string{"none", "none:v1", "reg.test/none", "0123abcd", "sha256:" + strings.Repeat("0", 64)} {
		if _, err := w.Get(t.Context(), name, nil); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "no such image") {
			t.Errorf("get %s: %v", name, err)
		}
	}
	if _, err := w.Get(t.Context(), "library/UPPER", nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a name that can't be: %v", err)
	}
}

func TestAPinnedDigestIsKeptTo(t *testing.T) {
	w := newWorld(t)
	pinned, other := newRemote(t, amd64, layer.Gzip, base), newRemote(t, amd64, layer.Gzip, top)
	w.put("reg.test", "app", "v1", pinned)
	w.put("reg.test", "app", "v2", other)
	name := "reg.test/app@" + pinned.desc.Digest.String()
	w.spoil(pinned.desc.Digest, other.raw, nil)
	if _, err := w.Pull(t.Context(), name, PullOptions{}); !errdefs.IsDataLoss(err) {
		t.Errorf("the registry gave another manifest: %v", err)
	}
	if refs := w.refs(); len(refs) != 0 {
		t.Errorf("names: %q", refs)
	}
	w.registries["reg.test"] = w.registries["reg.test"].(*spoiled).Interface
	must(w.Pull(t.Context(), name, PullOptions{}))(t)
	if refs := w.refs(); !slices.Equal(refs, []string{name}) {
		t.Errorf("names: %q", refs)
	}
	must(w.Get(t.Context(), name, nil))(t)
}

func TestAnIndexOfManyRiddlesIsGivenUp(t *testing.T) {
	w := newWorld(t)
	var riddles []*remote
	for n := range maxLooks + 1 {
		r := newRemote(t, arm64, layer.Gzip, base)
		r.manifest.Annotations = map[string]string{"n": strings.Repeat("x", n)}
		r.reseal()
		riddles = append(riddles, r)
	}
	w.putIndex("reg.test", "app", "v1", riddles...)
	w.registries["reg.test"] = &unnamed{w.registries["reg.test"]}
	_, err := w.Pull(t.Context(), "reg.test/app:v1", PullOptions{})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "too many manifests") {
		t.Errorf("got %v", err)
	}
}

// unnamed is a registry whose indexes name no platforms.
type unnamed struct{ ociregistry.Interface }

func (u *unnamed) GetTag(ctx context.Context, repo, tag string) (ociregistry.BlobReader, error) {
	r, err := u.Interface.GetTag(ctx, repo, tag)
	if err != nil {
		return nil, err
	}
	data, err := readAll(r)
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, err
	}
	for n := range index.Manifests {
		index.Manifests[n].Platform = nil
	}
	data, err = json.Marshal(index)
	return &lie{bytes.NewReader(data), describe(ocispec.MediaTypeImageIndex, data), nil}, err
}
