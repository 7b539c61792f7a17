package build_test

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/registry/client"
	"github.com/shaleproject/shale/internal/registry/server"
)

// registryHost starts a registry on the loopback and makes the benches know
// it.
func registryHost(t *testing.T, benches ...*bench) string {
	t.Helper()
	s := httptest.NewServer(server.New(ocimem.New(), server.Options{}))
	t.Cleanup(s.Close)
	for _, b := range benches {
		b.Images.Registries = client.New(client.Config{DockerConfigDir: t.TempDir()}).Registry
	}
	return strings.TrimPrefix(s.URL, "http://")
}

// twoStages is a context that is built in two stages, each with a step that
// can't give the same bytes twice.
func twoStages(t *testing.T, b, other *bench) string {
	needsRoot(t)
	b.busybox()
	other.busybox()
	return directory(t, map[string]string{
		"Dockerfile": "FROM busybox AS made\nCOPY src /src\nRUN head -c 16 /dev/urandom > /made\n" +
			"FROM busybox\nCOPY --from=made /made /made\nRUN head -c 16 /dev/urandom > /top\nCMD [\"true\"]\n",
		"src": "1\n",
	})
}

var (
	madeCopy, madeRun = "[made 2/3] COPY src /src", "[made 3/3] RUN head -c 16 /dev/urandom > /made"
	topCopy, topRun   = "[stage-1 2/3] COPY --from=made /made /made", "[stage-1 3/3] RUN head -c 16 /dev/urandom > /top"
)

func TestASecondStoreRunsNothingThatTheCacheHas(t *testing.T) {
	for _, kind := range []string{"local", "registry", "zstd"} {
		t.Run(kind, func(t *testing.T) {
			one, two := newBench(t), newBench(t)
			ctx := twoStages(t, one, two)
			place := build.CachePlace{Kind: build.CacheRegistry, Ref: registryHost(t, one, two) + "/team/cache:main", Max: true}
			if kind != "registry" {
				place = build.CachePlace{Kind: build.CacheLocal, Dir: filepath.Join(t.TempDir(), "cache"), Max: true}
			}
			if kind == "zstd" {
				place.Compression = 2
			}
			req := dir(ctx, "app")
			req.Cache.To = []build.CachePlace{place}
			first := one.build(req)
			two.later()
			req = dir(ctx, "app")
			req.Cache.From = []build.CachePlace{place}
			second := two.build(req)
			names := func(list []string) []string {
				return slices.DeleteFunc(steps(list), func(n string) bool { return strings.HasPrefix(n, "importing") })
			}
			equal(t, "ran", names(second.ran), []string{})
			if cached := names(second.cached); len(cached) != 4 {
				t.Errorf("cached are %q", cached)
			}
			equal(t, "layers", second.Image.DiffIDs, first.Image.DiffIDs)
			equal(t, "content", two.read(second.Image, "top"), one.read(first.Image, "top"))
			equal(t, "warnings", len(second.warnings), 0)
		})
	}
}

func TestTheSmallCacheHasOnlyWhatTheImageHas(t *testing.T) {
	one, two := newBench(t), newBench(t)
	ctx := twoStages(t, one, two)
	place := build.CachePlace{Kind: build.CacheLocal, Dir: t.TempDir()}
	req := dir(ctx)
	req.Cache.To = []build.CachePlace{place}
	first := one.build(req)
	again := build.CachePlace{Kind: build.CacheLocal, Dir: t.TempDir()}
	req = dir(ctx)
	req.Cache.From, req.Cache.To = []build.CachePlace{place}, []build.CachePlace{again}
	second := two.build(req)
	equal(t, "layers", second.Image.DiffIDs, first.Image.DiffIDs)
	equal(t, "cached", steps(second.cached), []string{topCopy, topRun})
	for _, step := range []string{madeCopy, madeRun, topCopy, topRun} {
		if slices.Contains(second.ran, step) {
			t.Errorf("%q ran", step)
		}
	}
	if blobs, err := os.ReadDir(filepath.Join(place.Dir, "blobs/sha256")); err != nil || len(blobs) != 4 {
		t.Errorf("%d blobs, not 2 layers, config and manifest: %v", len(blobs), err)
	}
	// What was found in a cache goes into the next one.
	three := newBench(t)
	three.busybox()
	req = dir(ctx)
	req.Cache.From = []build.CachePlace{again}
	third := three.build(req)
	equal(t, "layers", third.Image.DiffIDs, first.Image.DiffIDs)
	equal(t, "cached", steps(third.cached), []string{topCopy, topRun})
	// An image of one stage is all there.
	single := directory(t, map[string]string{"Dockerfile": "FROM busybox\nCOPY src /\nRUN head -c 16 /dev/urandom > /top\n", "src": "1\n"})
	req = dir(single)
	req.Cache.To = []build.CachePlace{place}
	one.build(req)
	req = dir(single)
	req.Cache.From = []build.CachePlace{place}
	equal(t, "cached", steps(two.build(req).cached), []string{"[2/3] COPY src /", "[3/3] RUN head -c 16 /dev/urandom > /top"})
}

// What a step of the image takes from another stage it is known by, though
// the stage is in no cache. So the stage runs only if something in it is new.
func TestAStageThatIsNotInTheImageNeedNotRun(t *testing.T) {
	for _, kind := range []string{"local", "inline"} {
		t.Run(kind, func(t *testing.T) {
			one := newBench(t)
			ctx := twoStages(t, one, one)
			text := string(read(t, filepath.Join(ctx, "Dockerfile")))
			name := registryHost(t, one) + "/app:v1"
			to := build.CachePlace{Kind: build.CacheLocal, Dir: t.TempDir()}
			from := to
			if kind == "inline" {
				to, from = build.CachePlace{Kind: build.CacheInline}, build.CachePlace{Kind: build.CacheRegistry, Ref: name}
			}
			req := dir(ctx, name)
			req.Cache.To = []build.CachePlace{to}
			first := one.build(req)
			if _, err := one.Images.Push(t.Context(), name, image.PushOptions{}); err != nil {
				t.Fatal(err)
			}
			for _, test := range []struct {
				what, text, src string
				run, cached     []string
				ignore          bool
			}{
				{"nothing", text, "1\n", nil, []string{topRun}, false},
				{"the last step", strings.Replace(text, "16 /dev/urandom > /top", "8 /dev/zero > /top", 1), "1\n",
					[]string{"[stage-1 3/3] RUN head -c 8 /dev/zero > /top"}, []string{topCopy}, false},
				{"a file of the stage", text, "2\n", []string{madeCopy, madeRun, topCopy, topRun}, nil, false},
				{"a step of the stage", strings.Replace(text, "> /made", ">/made", 1), "1\n",
					[]string{"[made 3/3] RUN head -c 16 /dev/urandom >/made", topCopy, topRun}, nil, false},
				{"nothing, without the cache", text, "1\n", []string{madeCopy, madeRun, topCopy, topRun}, nil, true},
			} {
				two := newBench(t)
				two.busybox()
				two.Images.Registries = one.Images.Registries
				write(t, filepath.Join(ctx, "Dockerfile"), test.text)
				write(t, filepath.Join(ctx, "src"), test.src)
				req := dir(ctx)
				req.Cache.From, req.Cache.Ignore = []build.CachePlace{from}, test.ignore
				o := two.build(req)
				for _, step := range test.run {
					if !slices.Contains(o.ran, step) {
						t.Errorf("%s is new: %q did not run", test.what, step)
					}
				}
				for _, step := range steps(o.ran) {
					if strings.Contains(step, "RUN") && !slices.Contains(test.run, step) {
						t.Errorf("%s is new: %q ran", test.what, step)
					}
				}
				for _, step := range test.cached {
					if !slices.Contains(o.cached, step) {
						t.Errorf("%s is new: %q was not cached", test.what, step)
					}
				}
				equal(t, test.what+": the made file is the same", two.read(o.Image, "made") == one.read(first.Image, "made"), len(test.cached) > 0)
			}
		})
	}
}

func TestAnImageCanCarryItsCache(t *testing.T) {
	one, two := newBench(t), newBench(t)
	needsRoot(t)
	one.busybox()
	two.busybox()
	host := registryHost(t, one, two)
	ctx := directory(t, map[string]string{"Dockerfile": "FROM busybox\nCOPY src /\nRUN head -c 16 /dev/urandom > /top\nLABEL a=b\n", "src": "1\n"})
	name := host + "/app:v1"
	req := dir(ctx, name)
	req.Cache.To = []build.CachePlace{{Kind: build.CacheInline}}
	first := one.build(req)
	if _, err := one.Images.Push(t.Context(), name, image.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	req = dir(ctx, name)
	req.Cache.From = []build.CachePlace{{Kind: build.CacheRegistry, Ref: name}}
	req.Cache.To = []build.CachePlace{{Kind: build.CacheInline}}
	second := two.build(req)
	equal(t, "cached", steps(second.cached), []string{"[2/3] COPY src /", "[3/3] RUN head -c 16 /dev/urandom > /top"})
	equal(t, "layers", second.Image.DiffIDs, first.Image.DiffIDs)
	equal(t, "labels", second.Image.Config.Config.Labels, map[string]string{"a": "b"})
	var bundles [2]*cache.Bundle
	for i, img := range []*image.Image{first.Image, second.Image} {
		b, err := cache.Extract(img.RawConfig)
		if err != nil || b == nil {
			t.Fatal(b, err)
		}
		bundles[i] = b
	}
	equal(t, "cache in the second image", bundles[1], bundles[0])
}

func TestABrokenCacheIsAWarning(t *testing.T) {
	b, ctx := newBench(t), application(t)
	host := registryHost(t, b)
	bad := t.TempDir()
	write(t, filepath.Join(bad, "index.json"), "{")
	buildkit := t.TempDir()
	layoutOf(t, buildkit, "application/vnd.buildkit.cacheconfig.v0", []byte("{}"))
	plain := t.TempDir()
	layoutOf(t, plain, ocispec.MediaTypeImageConfig, []byte(`{"rootfs":{"type":"layers","diff_ids":[]}}`))
	huge := t.TempDir()
	layoutOf(t, huge, "application/x", append([]byte(`{"a":"`), append(bytes.Repeat([]byte("x"), 5<<20), `"}`...)...))
	req := dir(ctx, "app")
	for _, d := range []string{filepath.Join(t.TempDir(), "none"), bad, buildkit, plain, huge} {
		req.Cache.From = append(req.Cache.From, build.CachePlace{Kind: build.CacheLocal, Dir: d})
	}
	req.Cache.From = append(req.Cache.From, build.CachePlace{Kind: build.CacheRegistry, Ref: host + "/none:latest"})
	o := b.build(req)
	equal(t, "ran", slices.Contains(o.ran, copyFirst), true)
	if len(o.warnings) != len(req.Cache.From) {
		t.Fatalf("warnings are %q", o.warnings)
	}
	for i, want := range []string{"not found", "", "a build cache of BuildKit", "has no build cache in it", "too large", "/none:latest is not used"} {
		if !strings.Contains(o.warnings[i], want) {
			t.Errorf("warning %q does not say %q", o.warnings[i], want)
		}
	}
	req = dir(ctx, "app")
	req.Cache.To = []build.CachePlace{{Kind: build.CacheLocal, Dir: "/dev/null/x"}}
	if o := b.try(req); o.err == nil || !strings.Contains(o.err.Error(), "export cache to /dev/null/x") {
		t.Errorf("error is %v", o.err)
	}
	req.Cache.To[0].IgnoreError = true
	if o := b.build(req); len(o.warnings) != 1 {
		t.Errorf("warnings are %q", o.warnings)
	}
}

// layoutOf writes a layout with a manifest that has that config and layers.
func layoutOf(t *testing.T, dir, configType string, config []byte, layers ...[]byte) {
	t.Helper()
	blob := func(mediaType string, data []byte) ocispec.Descriptor {
		d := digest.FromBytes(data)
		p := filepath.Join(dir, "blobs/sha256", d.Encoded())
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, p, string(data))
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
	}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: blob(configType, config), Layers: []ocispec.Descriptor{}}
	m.SchemaVersion = 2
	for _, l := range layers {
		m.Layers = append(m.Layers, blob(ocispec.MediaTypeImageLayer, l))
	}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	desc := blob(ocispec.MediaTypeImageManifest, data)
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: "latest"}
	index := ocispec.Index{Manifests: []ocispec.Descriptor{desc}}
	index.SchemaVersion = 2
	data, err = json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "index.json"), string(data))
}

// reread returns the config of the cache in a layout and its bundle.
func reread(t *testing.T, dir string) (ocispec.Manifest, []byte, *cache.Bundle) {
	t.Helper()
	var index ocispec.Index
	var m ocispec.Manifest
	blob := func(d digest.Digest) []byte { return read(t, filepath.Join(dir, "blobs/sha256", d.Encoded())) }
	if err := json.Unmarshal(read(t, filepath.Join(dir, "index.json")), &index); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(blob(index.Manifests[0].Digest), &m); err != nil {
		t.Fatal(err)
	}
	config := blob(m.Config.Digest)
	b, err := cache.Extract(config)
	if err != nil || b == nil {
		t.Fatal(b, err)
	}
	return m, config, b
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A cache whose layers are not what their digests say is dropped on the way.
func TestADamagedLayerOfACacheIsNotUsed(t *testing.T) {
	ctx, place := application(t), build.CachePlace{Kind: build.CacheLocal, Dir: t.TempDir(), Max: true}
	req := dir(ctx)
	req.Cache.To = []build.CachePlace{place}
	newBench(t).build(req)
	m, _, _ := reread(t, place.Dir)
	for _, l := range m.Layers {
		p := filepath.Join(place.Dir, "blobs/sha256", l.Digest.Encoded())
		data := read(t, p)
		data[len(data)-10] ^= 1 // in the sum of the gzip stream
		if err := os.Chmod(p, 0o644); err != nil {
			t.Fatal(err)
		}
		write(t, p, string(data))
	}
	req = dir(ctx)
	req.Cache.From = []build.CachePlace{place}
	o := newBench(t).build(req)
	equal(t, "cached", steps(o.cached), []string{})
	if len(o.warnings) != 1 || !strings.Contains(o.warnings[0], "is not used any more") {
		t.Errorf("warnings are %q", o.warnings)
	}
}

// Who names a cache believes it; who does not name it never meets what it
// said, though the store has its layers.
func TestACacheThatLiesIsGoneWhenItIsNotNamed(t *testing.T) {
	b := newBench(t)
	ctx := directory(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY file /file\nWORKDIR /w\n", "file": "good\n"})
	place := build.CachePlace{Kind: build.CacheLocal, Dir: t.TempDir(), Max: true}
	req := dir(ctx)
	req.Cache.To = []build.CachePlace{place}
	other := newBench(t)
	other.build(req)
	_, _, honest := reread(t, place.Dir)
	write(t, filepath.Join(ctx, "file"), "evil\n")
	evil := other.build(dir(ctx))
	l, err := other.Store.Blob(evil.Image.DiffIDs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tar := make([]byte, l.Size())
	if _, err := l.ReadAt(tar, 0); err != nil {
		t.Fatal(err)
	}
	// Every key of the honest build now leads to the evil layer.
	lie := &cache.Bundle{Layers: []ref.Layer{{Digest: evil.Image.DiffIDs[0], By: "lie"}}}
	for _, s := range honest.Steps {
		lie.Steps = append(lie.Steps, cache.BundleStep{Keys: s.Keys, Outputs: [][]int{{0}}})
	}
	config, err := lie.Embed([]byte(`{"rootfs":{"type":"layers","diff_ids":["` + evil.Image.DiffIDs[0].String() + `"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	lies := t.TempDir()
	layoutOf(t, lies, "application/vnd.shale.buildcache.config.v1+json", config, tar)
	write(t, filepath.Join(ctx, "file"), "good\n")
	req = dir(ctx)
	req.Cache.From = []build.CachePlace{{Kind: build.CacheLocal, Dir: lies}}
	equal(t, "with the cache", b.read(b.build(req).Image, "file"), "evil\n")
	o := b.build(dir(ctx))
	equal(t, "without it", b.read(o.Image, "file"), "good\n")
	equal(t, "without it: cached", steps(o.cached), []string{})
}

func TestAMalformedBundleIsRefused(t *testing.T) {
	d := digest.FromString("x").String()
	key := strings.Repeat("a", 64)
	for name, bundle := range map[string]string{
		"no object":       `[]`,
		"no digest":       `{"layers":[{"digest":"../../etc"}],"steps":[]}`,
		"another digest":  `{"layers":[{"digest":"sha512:` + strings.Repeat("a", 128) + `"}],"steps":[]}`,
		"no key":          `{"layers":[],"steps":[{"keys":["x"],"outputs":[[]]}]}`,
		"no output":       `{"layers":[],"steps":[{"keys":["` + key + `"],"outputs":[]}]}`,
		"unknown layer":   `{"layers":[{"digest":"` + d + `"}],"steps":[{"keys":["` + key + `"],"outputs":[[1]]}]}`,
		"negative layer":  `{"layers":[{"digest":"` + d + `"}],"steps":[{"keys":["` + key + `"],"outputs":[[-1]]}]}`,
		"too many layers": `{"layers":[` + strings.Repeat(`{"digest":"`+d+`"},`, 10_000) + `{"digest":"` + d + `"}],"steps":[]}`,
	} {
		if b, err := cache.Extract([]byte(`{"` + cache.BundleField + `":` + bundle + `}`)); err == nil {
			t.Errorf("%s: read as %d steps", name, len(b.Steps))
		}
	}
}

func FuzzExtractBundle(f *testing.F) {
	f.Add([]byte(`{"shale.buildcache.v1":{"layers":[],"steps":[]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := cache.Extract(data)
		if err != nil || b == nil {
			return
		}
		again, err := b.Embed([]byte(`{"a":1}`))
		if err != nil {
			t.Fatal(err)
		}
		if c, err := cache.Extract(again); err != nil || len(c.Steps) != len(b.Steps) {
			t.Fatal(err)
		}
	})
}
