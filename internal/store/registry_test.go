package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ociclient"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/registry/client"
	"github.com/shaleproject/shale/internal/registry/server"
	"github.com/shaleproject/shale/internal/sys"
)

// serve returns a client of the served registry of s, over HTTP.
func serve(t *testing.T, s *Store) ociregistry.Interface {
	t.Helper()
	server := httptest.NewServer(ociserver.New(s.Registry("_served"), nil))
	t.Cleanup(server.Close)
	client, err := ociclient.New(strings.TrimPrefix(server.URL, "http://"), &ociclient.Options{Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// serveOurs is serve with the server and the client that users meet.
func serveOurs(t *testing.T, s *Store) ociregistry.Interface {
	t.Helper()
	h := httptest.NewServer(server.New(s.Registry("_served"), server.Options{}))
	t.Cleanup(h.Close)
	r, err := client.New(client.Config{}).Registry(strings.TrimPrefix(h.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// eachWay runs a test on the registry as it is and over HTTP.
func eachWay(t *testing.T, f func(t *testing.T, s *Store, r ociregistry.Interface)) {
	t.Run("direct", func(t *testing.T) { s := open(t); f(t, s, s.Registry("_served")) })
	t.Run("http", func(t *testing.T) { s := open(t); f(t, s, serve(t, s)) })
	t.Run("our http", func(t *testing.T) { s := open(t); f(t, s, serveOurs(t, s)) })
}

func pushBlob(t testing.TB, r ociregistry.Interface, repo, content string) ocispec.Descriptor {
	t.Helper()
	desc, err := r.PushBlob(t.Context(), repo, describe("application/x", []byte(content)), strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

// manifestOf returns a manifest of what was pushed before.
func manifestOf(config ocispec.Descriptor, subject *ocispec.Descriptor, layers ...ocispec.Descriptor) []byte {
	config.MediaType = "application/vnd.example.config"
	data, _ := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: layers, Subject: subject, Annotations: map[string]string{"a": "b"}})
	return data
}

func pushImage(t testing.TB, r ociregistry.Interface, repo, tag string, layers ...string) ocispec.Descriptor {
	t.Helper()
	var descs []ocispec.Descriptor
	for _, l := range layers {
		descs = append(descs, pushBlob(t, r, repo, l))
	}
	desc, err := r.PushManifest(t.Context(), repo, tag, manifestOf(pushBlob(t, r, repo, "{}"), nil, descs...), ocispec.MediaTypeImageManifest)
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

func readAll(r ociregistry.BlobReader, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return string(data), err
}

func TestWhatWasPushedCanBePulled(t *testing.T) {
	eachWay(t, func(t *testing.T, s *Store, r ociregistry.Interface) {
		ctx := t.Context()
		desc := pushImage(t, r, "team/app", "v1", "layer one", "layer two")
		byTag, err := readAll(r.GetTag(ctx, "team/app", "v1"))
		if err != nil || digest.FromString(byTag) != desc.Digest {
			t.Errorf("by tag: %q, %v", byTag, err)
		}
		if byDigest, err := readAll(r.GetManifest(ctx, "team/app", desc.Digest)); err != nil || byDigest != byTag {
			t.Errorf("by digest: %q, %v", byDigest, err)
		}
		for _, resolve := range []func() (ocispec.Descriptor, error){
			func() (ocispec.Descriptor, error) { return r.ResolveTag(ctx, "team/app", "v1") },
			func() (ocispec.Descriptor, error) { return r.ResolveManifest(ctx, "team/app", desc.Digest) },
		} {
			got, err := resolve()
			if err != nil || got.Digest != desc.Digest || got.Size != desc.Size || got.MediaType != ocispec.MediaTypeImageManifest {
				t.Errorf("resolve: %+v, %v", got, err)
			}
		}
		one := digest.FromString("layer one")
		if got, err := readAll(r.GetBlob(ctx, "team/app", one)); got != "layer one" || err != nil {
			t.Errorf("blob: %q, %v", got, err)
		}
		if got, err := r.ResolveBlob(ctx, "team/app", one); got.Size != 9 || err != nil {
			t.Errorf("resolve blob: %+v, %v", got, err)
		}
		for _, c := range []struct {
			from, to int64
			want     string
		}{{0, -1, "layer one"}, {6, -1, "one"}, {6, 8, "on"}, {8, 100, "e"}} {
			if got, err := readAll(r.GetBlobRange(ctx, "team/app", one, c.from, c.to)); got != c.want || err != nil {
				t.Errorf("range %d-%d: %q, %v", c.from, c.to, got, err)
			}
		}
		if _, err := r.GetBlobRange(ctx, "team/app", one, 9, -1); err == nil {
			t.Error("a range behind the end was given")
		}
		if refs, err := s.Refs(ctx); err != nil || len(refs) != 0 {
			t.Errorf("served images are among the local ones: %v, %v", refs, err)
		}
		wantWhole(t, s)
	})
}

func TestARepositoryHasOnlyItsOwnBlobs(t *testing.T) {
	eachWay(t, func(t *testing.T, s *Store, r ociregistry.Interface) {
		ctx := t.Context()
		pushImage(t, r, "private/app", "v1", "secret")
		secret := digest.FromString("secret")
		pushImage(t, r, "public/app", "v1", "open")
		if _, err := r.ResolveBlob(ctx, "public/app", secret); err == nil {
			t.Error("a blob of another repository is there")
		}
		if _, err := readAll(r.GetBlob(ctx, "public/app", secret)); !errors.Is(err, ociregistry.ErrBlobUnknown) {
			t.Errorf("get: %v", err)
		}
		if _, err := readAll(r.GetBlob(ctx, "nowhere", secret)); !errors.Is(err, ociregistry.ErrNameUnknown) {
			t.Errorf("get from a repository that isn't there: %v", err)
		}
		m := manifestOf(describe("", []byte("{}")), nil, describe("application/x", []byte("secret")))
		if _, err := r.PushManifest(ctx, "public/app", "v2", m, ocispec.MediaTypeImageManifest); !errors.Is(err, ociregistry.ErrManifestBlobUnknown) {
			t.Errorf("a manifest that names it: %v", err)
		}
		if _, err := r.MountBlob(ctx, "private/app", "public/app", secret); err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(r.GetBlob(ctx, "public/app", secret)); got != "secret" || err != nil {
			t.Errorf("mounted: %q, %v", got, err)
		}
		if err := r.DeleteBlob(ctx, "public/app", secret); err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(r.GetBlob(ctx, "public/app", secret)); !errors.Is(err, ociregistry.ErrBlobUnknown) {
			t.Errorf("deleted: %v", err)
		}
		if got, err := readAll(r.GetBlob(ctx, "private/app", secret)); got != "secret" || err != nil {
			t.Errorf("in the other repository: %q, %v", got, err)
		}
		if _, err := r.MountBlob(ctx, "public/app", "third", secret); err == nil {
			t.Error("mounted from where it isn't")
		}
	})
}

func TestManifestsThatCanBeReadInTwoWaysAreRefused(t *testing.T) {
	s := open(t)
	r := s.Registry("_served")
	blob := pushBlob(t, r, "app", "{}")
	good := string(manifestOf(blob, nil, blob))
	put := func(data, mediaType string) error {
		_, err := r.PushManifest(t.Context(), "app", "v1", []byte(data), mediaType)
		return err
	}
	if err := put(good, ocispec.MediaTypeImageManifest); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"both kinds":       strings.Replace(good, "{", `{"manifests":[],`, 1),
		"media type":       strings.Replace(good, "image.manifest.v1", "image.index.v1", 1),
		"key twice":        strings.Replace(good, "{", `{"layers":[],`, 1),
		"unknown twice":    strings.Replace(good, "{", `{"x":1,"x":{"y":[1]},`, 1),
		"key in caps":      strings.Replace(good, `"config"`, `"Config"`, 1),
		"trailing bytes":   good + "{}",
		"byte order mark":  "\ufeff" + good,
		"no config":        `{"schemaVersion":2,"layers":[]}`,
		"schema 1":         strings.Replace(good, `"schemaVersion":2`, `"schemaVersion":1`, 1),
		"digest is a path": strings.Replace(good, string(blob.Digest), "sha256:../../version", 1),
		"negative size":    strings.Replace(good, `"size":2`, `"size":-2`, 1),
		"another size":     strings.Replace(good, `"size":2`, `"size":3`, 1),
		"too large":        good + strings.Repeat(" ", DocumentLimit),
		"not JSON":         "hello",
		"empty":            "",
	} {
		if err := put(data, ocispec.MediaTypeImageManifest); !errors.Is(err, ociregistry.ErrManifestInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, mediaType := range []string{ocispec.MediaTypeImageIndex, "", "text/html", "application/octet-stream"} {
		if err := put(good, mediaType); !errors.Is(err, ociregistry.ErrManifestInvalid) {
			t.Errorf("pushed as %q: %v", mediaType, err)
		}
	}
	fine := strings.Replace(good, "{", `{"x":{"x":1,"layers":2},"y":[{"x":"x"},"y"],`, 1)
	if err := put(fine, ocispec.MediaTypeImageManifest); err != nil {
		t.Errorf("equal keys at different depths: %v", err)
	}
}

func TestAnUploadGoesOnWhereItBroke(t *testing.T) {
	eachWay(t, func(t *testing.T, s *Store, r ociregistry.Interface) {
		ctx := t.Context()
		content := strings.Repeat("0123456789", 50000)
		w, err := r.PushBlobChunked(ctx, "app", 0)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, content[:200000])
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if w, err = r.PushBlobChunkedResume(ctx, "app", w.ID(), -1, 0); err != nil {
			t.Fatal(err)
		}
		if w.Size() != 200000 {
			t.Fatalf("resumed at %d", w.Size())
		}
		io.WriteString(w, content[200000:])
		desc, err := w.Commit(digest.FromString(content))
		if err != nil || desc.Size != int64(len(content)) {
			t.Fatal(desc, err)
		}
		if got, err := readAll(r.GetBlob(ctx, "app", desc.Digest)); got != content || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if left := listing(t, s.path(tmpDir)); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
	})
}

func TestAnUploadSurvivesARestartOfTheServer(t *testing.T) {
	s := open(t)
	w, err := s.Registry("_served").PushBlobChunked(t.Context(), "app", 0)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "hello ")
	w.Close()
	collect(t, s, CollectOptions{})
	w, err = s.Registry("_served").PushBlobChunkedResume(t.Context(), "app", w.ID(), 6, 0)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "world")
	if _, err := w.Commit(digest.FromString("hello world")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Cancel(), w.Close()); err != nil {
		t.Error(err)
	}
}

func TestUploadsRefuseWhatIsNotTheirs(t *testing.T) {
	s := open(t)
	r := s.Registry("_served")
	ctx := t.Context()
	w, err := r.PushBlobChunked(ctx, "app", 0)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "hello")
	w.Close()
	for _, c := range []struct{ repo, id string }{{"other", w.ID()}, {"app", "../" + w.ID()}, {"app", ""}, {"app", strings.Repeat("a", 26)}} {
		if _, err := r.PushBlobChunkedResume(ctx, c.repo, c.id, -1, 0); !errors.Is(err, ociregistry.ErrBlobUploadUnknown) {
			t.Errorf("%s %s: %v", c.repo, c.id, err)
		}
	}
	w, err = r.PushBlobChunkedResume(ctx, "app", w.ID(), 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "lo"); !errors.Is(err, ociregistry.ErrRangeInvalid) {
		t.Errorf("out of order: %v", err)
	}
	other, err := r.PushBlobChunkedResume(ctx, "app", w.ID(), 5, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(other, "!"); !errors.Is(err, ociregistry.ErrBlobUploadInvalid) {
		t.Errorf("two at a time: %v", err)
	}
	other.Close()
	if _, err := w.Commit(digest.FromString("goodbye")); !errors.Is(err, ociregistry.ErrDigestInvalid) {
		t.Errorf("wrong digest: %v", err)
	}
	if left := listing(t, s.path(tmpDir)); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestABlobIsWhatItsDescriptorSays(t *testing.T) {
	s := open(t)
	r := s.Registry("_served")
	for _, c := range []struct {
		desc    ocispec.Descriptor
		content string
		want    error
	}{
		{describe("", []byte("hello")), "hellO", ociregistry.ErrDigestInvalid},
		{describe("", []byte("hello")), "hello, world", ociregistry.ErrSizeInvalid},
		{describe("", []byte("hello")), "hell", ociregistry.ErrSizeInvalid},
		{ocispec.Descriptor{Digest: "sha256:../../x", Size: 5}, "hello", ociregistry.ErrDigestInvalid},
	} {
		if _, err := r.PushBlob(t.Context(), "app", c.desc, strings.NewReader(c.content)); !errors.Is(err, c.want) {
			t.Errorf("%q as %+v: %v", c.content, c.desc, err)
		}
	}
	for _, repo := range []string{"", "/", "../x", "A", "a//b", "a/../b", "_x", strings.Repeat("a/", 200) + "a"} {
		if _, err := r.PushBlob(t.Context(), repo, describe("", []byte("x")), strings.NewReader("x")); !errors.Is(err, ociregistry.ErrNameInvalid) {
			t.Errorf("repository %.20q: %v", repo, err)
		}
	}
	if left := slices.Concat(listing(t, s.path(tmpDir)), listing(t, s.path(blobsDir, "sha256")), listing(t, s.path(linksDir))); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestListsAreInOrderAndGoOnBehindAName(t *testing.T) {
	eachWay(t, func(t *testing.T, s *Store, r ociregistry.Interface) {
		ctx := t.Context()
		for _, repo := range []string{"a/b", "a-b", "a", "a/b/c", "b"} {
			for _, tag := range []string{"2", "10", "A", "_"} {
				pushImage(t, r, repo, tag, "layer of "+repo)
			}
		}
		pushBlob(t, r, "only/a/blob", "blob")
		for after, want := range map[string][]string{
			"": {"a", "a-b", "a/b", "a/b/c", "b"}, "a-b": {"a/b", "a/b/c", "b"}, "a.": {"a/b", "a/b/c", "b"}, "b": {},
		} {
			if got, err := ociregistry.All(r.Repositories(ctx, after)); !slices.Equal(got, want) || err != nil {
				t.Errorf("repositories after %q: %q, %v", after, got, err)
			}
		}
		for after, want := range map[string][]string{"": {"10", "2", "A", "_"}, "2": {"A", "_"}, "_": {}} {
			if got, err := ociregistry.All(r.Tags(ctx, "a/b", after)); !slices.Equal(got, want) || err != nil {
				t.Errorf("tags after %q: %q, %v", after, got, err)
			}
		}
		if _, err := ociregistry.All(r.Tags(ctx, "none", "")); !errors.Is(err, ociregistry.ErrNameUnknown) {
			t.Errorf("tags of nothing: %v", err)
		}
	})
}

func TestReferrersAreListedUntilTheyAreDeleted(t *testing.T) {
	eachWay(t, func(t *testing.T, s *Store, r ociregistry.Interface) {
		ctx := t.Context()
		image := pushImage(t, r, "app", "v1", "layer")
		config := pushBlob(t, r, "app", "{}")
		signature, err := r.PushManifest(ctx, "app", "", manifestOf(config, &image, pushBlob(t, r, "app", "signature")), ocispec.MediaTypeImageManifest)
		if err != nil {
			t.Fatal(err)
		}
		index, _ := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
			Manifests: []ocispec.Descriptor{}, Subject: &image, ArtifactType: "application/vnd.example.sbom"})
		sbom, err := r.PushManifest(ctx, "app", "sbom", index, ocispec.MediaTypeImageIndex)
		if err != nil {
			t.Fatal(err)
		}
		list := func(artifactType string) []digest.Digest {
			found, err := ociregistry.All(r.Referrers(ctx, "app", image.Digest, artifactType))
			if err != nil {
				t.Fatal(err)
			}
			var ds []digest.Digest
			for _, desc := range found {
				ds = append(ds, desc.Digest)
			}
			return ds
		}
		both := []digest.Digest{signature.Digest, sbom.Digest}
		slices.Sort(both)
		if got := list(""); !slices.Equal(got, both) {
			t.Errorf("all: %v", got)
		}
		if got := list("application/vnd.example.config"); !slices.Equal(got, []digest.Digest{signature.Digest}) {
			t.Errorf("signatures: %v", got)
		}
		collect(t, s, CollectOptions{Grace: -1})
		if got := list(""); !slices.Equal(got, both) {
			t.Errorf("after a collection: %v", got)
		}
		if err := r.DeleteManifest(ctx, "app", signature.Digest); err != nil {
			t.Fatal(err)
		}
		if got := list(""); !slices.Equal(got, []digest.Digest{sbom.Digest}) {
			t.Errorf("after deletion: %v", got)
		}
	})
}

func TestDeletionTakesTagsOrWholeManifests(t *testing.T) {
	eachWay(t, func(t *testing.T, s *Store, r ociregistry.Interface) {
		ctx := t.Context()
		desc := pushImage(t, r, "app", "v1", "layer")
		for _, tag := range []string{"v2", "v3"} {
			pushImage(t, r, "app", tag, "layer")
		}
		if err := r.DeleteTag(ctx, "app", "v1"); err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(r.GetTag(ctx, "app", "v1")); !errors.Is(err, ociregistry.ErrManifestUnknown) {
			t.Errorf("deleted tag: %v", err)
		}
		if err := r.DeleteTag(ctx, "app", "v1"); err == nil {
			t.Error("deleted twice")
		}
		if _, err := readAll(r.GetManifest(ctx, "app", desc.Digest)); err != nil {
			t.Errorf("its manifest: %v", err)
		}
		if err := r.DeleteManifest(ctx, "app", desc.Digest); err != nil {
			t.Fatal(err)
		}
		if _, err := readAll(r.GetManifest(ctx, "app", desc.Digest)); !errors.Is(err, ociregistry.ErrManifestUnknown) {
			t.Errorf("deleted manifest: %v", err)
		}
		if _, err := readAll(r.GetTag(ctx, "app", "v2")); !errors.Is(err, ociregistry.ErrManifestUnknown) {
			t.Errorf("tag of a deleted manifest: %v", err)
		}
		if repos, err := ociregistry.All(r.Repositories(ctx, "")); err != nil || len(repos) != 0 {
			t.Errorf("left: %q, %v", repos, err)
		}
		collect(t, s, CollectOptions{})
		if !has(s, digest.FromString("layer")) {
			t.Error("a blob pushed just now is gone")
		}
		collect(t, s, CollectOptions{Now: time.Now().Add(25 * time.Hour)})
		if left := slices.Concat(listing(t, s.path(blobsDir, "sha256")), listing(t, s.path(linksDir)), listing(t, s.path(refsDir))); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
	})
}

func TestABlobSurvivesUntilItsManifestComes(t *testing.T) {
	s := open(t)
	r := s.Registry("_served")
	ctx := t.Context()
	pushBlob(t, r, "app", "early")
	collect(t, s, CollectOptions{})
	early := digest.FromString("early")
	// A client asks just before the grace ends, and is told that it is there.
	almost := time.Now().Add(-23 * time.Hour)
	if err := sys.Touch(s.linkPath("_served/app", early), almost, almost); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ResolveBlob(ctx, "app", early); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(2 * time.Hour)
	collect(t, s, CollectOptions{Now: later})
	pushImage(t, r, "app", "v1", "early")
	// From now on the manifest keeps it, however old the link.
	collect(t, s, CollectOptions{Now: later.Add(1000 * time.Hour)})
	if got, err := readAll(r.GetBlob(ctx, "app", early)); got != "early" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	w, err := r.PushBlobChunked(ctx, "app", 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	collect(t, s, CollectOptions{Now: later})
	if left := listing(t, s.path(tmpDir)); len(left) != 1 {
		t.Errorf("uploads: %q", left)
	}
	if r := collect(t, s, CollectOptions{Now: later.Add(1000 * time.Hour)}); r.Stale != 1 {
		t.Errorf("report: %+v", r)
	}
	wantWhole(t, s)
}

func TestLocalImagesAreARegistryToo(t *testing.T) {
	s := open(t)
	l := lease(t, s)
	ctx := t.Context()
	desc := mustImage(t, s, l, "one")
	index, _ := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{desc}})
	if _, err := s.Put(ctx, l, index); err != nil {
		t.Fatal(err)
	}
	if err := s.SetRef("docker.io/library/app:v1", describe(ocispec.MediaTypeImageIndex, index)); err != nil {
		t.Fatal(err)
	}
	r := s.Registry("docker.io")
	if got, err := readAll(r.GetTag(ctx, "library/app", "v1")); got != string(index) || err != nil {
		t.Errorf("tag: %q, %v", got, err)
	}
	if _, err := readAll(r.GetManifest(ctx, "library/app", desc.Digest)); err != nil {
		t.Errorf("manifest of an index: %v", err)
	}
	if got, err := readAll(r.GetBlob(ctx, "library/app", digest.FromString("one"))); got != "one" || err != nil {
		t.Errorf("layer: %q, %v", got, err)
	}
	if _, err := ingest(s, l, []byte("other")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.GetBlob(ctx, "library/app", digest.FromString("other")); !errors.Is(err, ociregistry.ErrBlobUnknown) {
		t.Errorf("what no name reaches: %v", err)
	}
	if repos, err := ociregistry.All(r.Repositories(ctx, "")); err != nil || !slices.Equal(repos, []string{"library/app"}) {
		t.Errorf("%q, %v", repos, err)
	}
}

func TestDockersOrderOfRequestsWorks(t *testing.T) {
	s := open(t)
	server := httptest.NewServer(ociserver.New(s.Registry("_served"), nil))
	defer server.Close()
	do := func(method, url string, body []byte, want int, header ...string) *http.Response {
		t.Helper()
		if !strings.HasPrefix(url, "http") {
			url = server.URL + url
		}
		req, _ := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != want {
			text, _ := io.ReadAll(resp.Body)
			t.Fatalf("%s %s: %s, want %d: %s", method, url, resp.Status, want, text)
		}
		return resp
	}
	blob := []byte("config or layer")
	d := digest.FromBytes(blob)
	do("HEAD", "/v2/app/blobs/"+string(d), nil, 404)
	location := do("POST", "/v2/app/blobs/uploads/", nil, 202).Header.Get("Location")
	location = do("PATCH", location, blob, 202).Header.Get("Location") // no Content-Range
	do("PUT", location+"?digest="+string(d), nil, 201)
	do("HEAD", "/v2/app/blobs/"+string(d), nil, 200)
	m := manifestOf(describe("", blob), nil, describe("application/x", blob))
	do("PUT", "/v2/app/manifests/v1", m, 201, "Content-Type", ocispec.MediaTypeImageManifest)
	resp := do("GET", fmt.Sprintf("/v2/app/manifests/%s", digest.FromBytes(m)), nil, 200)
	if got := resp.Header.Get("Content-Type"); got != ocispec.MediaTypeImageManifest {
		t.Errorf("content type %q", got)
	}
}

func TestAManifestMayHaveAnSHA512Digest(t *testing.T) {
	s := open(t)
	h := httptest.NewServer(server.New(s.Registry("_served"), server.Options{}))
	defer h.Close()
	r := serveOurs(t, s)
	data := manifestOf(pushBlob(t, r, "a", "{}"), nil)
	d := digest.SHA512.FromBytes(data)
	for _, test := range []struct {
		d      digest.Digest
		status int
	}{{d, http.StatusCreated}, {digest.SHA512.FromString("other"), http.StatusBadRequest}} {
		req, err := http.NewRequest(http.MethodPut, h.URL+"/v2/a/manifests/"+string(test.d), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", ocispec.MediaTypeImageManifest)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != test.status {
			t.Errorf("%s: status %d", test.d, resp.StatusCode)
		}
	}
	if got, err := readAll(r.GetManifest(t.Context(), "a", d)); err != nil || got != string(data) {
		t.Errorf("read %q, %v", got, err)
	}
}
