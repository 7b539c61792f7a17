package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/store"
)

var said = []Attestation{
	{Subjects: []string{"pkg:docker/app@v1?platform=linux%2Famd64"}, PredicateType: "https://slsa.dev/provenance/v1", Predicate: []byte(`{"a":"<&>"}`)},
	{PredicateType: "https://spdx.dev/Document", Predicate: []byte(`{"spdxVersion":"SPDX-2.3"}`)},
}

// attestedImage is local with attestations.
func (w *world) attestedImage(layers [][]byte, names ...string) *Image {
	w.t.Helper()
	img := w.local(epoch, layers, "plain:latest")
	lease := must(w.Store.Lease(w.t.Context()))(w.t)
	defer lease.Close()
	return must(w.WriteBuilt(w.t.Context(), lease, attestedBuild(img), Form{}, names))(w.t)
}

func attestedBuild(img *Image) Built {
	return Built{Images: []BuiltImage{{Config: img.RawConfig, Layers: img.DiffIDs, About: said}}}
}

// checkAttested reads the index in the way of docker buildx imagetools inspect
// and returns the digest of its image.
func checkAttested(t *testing.T, raw []byte, read func(digest.Digest) []byte) digest.Digest {
	t.Helper()
	var index ocispec.Index
	fine(t, json.Unmarshal(raw, &index))
	if index.MediaType != ocispec.MediaTypeImageIndex || len(index.Manifests) != 2 {
		t.Fatalf("not an index of two: %s", raw)
	}
	img, att := index.Manifests[0], index.Manifests[1]
	if img.Platform == nil || img.Platform.OS != "linux" || img.Platform.Architecture != "amd64" || len(img.Annotations) != 0 {
		t.Errorf("image is %+v", img)
	}
	if att.Platform == nil || att.Platform.OS != "unknown" || att.Platform.Architecture != "unknown" {
		t.Errorf("platform of the attestation is %+v", att.Platform)
	}
	if want := map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": img.Digest.String()}; !maps.Equal(att.Annotations, want) {
		t.Errorf("annotations are %v, want %v", att.Annotations, want)
	}
	var m ocispec.Manifest
	fine(t, json.Unmarshal(read(att.Digest), &m))
	if m.Subject == nil || m.Subject.Digest != img.Digest || m.Subject.Size != img.Size || m.ArtifactType != "application/vnd.docker.attestation.manifest.v1+json" {
		t.Errorf("attestation manifest is %+v", m)
	}
	if string(read(m.Config.Digest)) != "{}" || m.Config.MediaType != ocispec.MediaTypeEmptyJSON {
		t.Errorf("config is %+v", m.Config)
	}
	if len(m.Layers) != len(said) {
		t.Fatalf("%d statements", len(m.Layers))
	}
	for n, l := range m.Layers {
		var s struct {
			Type          string `json:"_type"`
			PredicateType string
			Subject       []subject
			Predicate     map[string]any
		}
		fine(t, json.Unmarshal(read(l.Digest), &s))
		if l.MediaType != "application/vnd.in-toto+json" || l.Annotations["in-toto.io/predicate-type"] != said[n].PredicateType || s.PredicateType != said[n].PredicateType ||
			s.Type != "https://in-toto.io/Statement/v1" || len(s.Subject) != 1 || s.Subject[0].Digest["sha256"] != img.Digest.Encoded() {
			t.Errorf("layer %+v holds %+v", l, s)
		}
	}
	return img.Digest
}

func TestAttestationsStandBesideTheImage(t *testing.T) {
	w := newWorld(t)
	img := w.attestedImage([][]byte{base, top}, "app:v1")
	read := func(d digest.Digest) []byte { return must(w.Store.Read(d))(t) }
	plain := must(w.Get(t.Context(), "plain", nil))(t)
	if d := checkAttested(t, read(img.Target.Digest), read); d != plain.Manifest.Digest {
		t.Errorf("the manifest is %s, without attestations %s", d, plain.Manifest.Digest)
	}
	if img.ConfigDigest != plain.ConfigDigest || img.Manifest.Digest != plain.Manifest.Digest {
		t.Error("the image is another one")
	}
	list := must(w.List(t.Context(), ListOptions{}))(t)
	if len(list) != 1 || len(list[0].RepoTags) != 2 {
		t.Errorf("the list is %+v", list)
	}
	info := must(w.Inspect(t.Context(), "app:v1", nil))(t)
	kinds := []string{}
	for _, m := range info.Manifests {
		kinds = append(kinds, m.Kind)
	}
	if !slices.Equal(kinds, []string{"image", "attestation"}) || info.Manifests[1].AttestationData.For != plain.Manifest.Digest {
		t.Errorf("inspect shows %+v", info.Manifests)
	}
	if info := must(w.Inspect(t.Context(), "plain", nil))(t); info.Manifests != nil {
		t.Errorf("inspect of an image without attestations shows %+v", info.Manifests)
	}
}

func TestAttestationsGoWithTheImage(t *testing.T) {
	here := newWorld(t)
	img := here.attestedImage([][]byte{base, top}, "reg.test/app:v1")
	desc := must(here.Push(t.Context(), "reg.test/app:v1", PushOptions{}))(t)
	repo := func(d digest.Digest) []byte {
		r, err := here.registries["reg.test"].GetManifest(t.Context(), "app", d)
		if err != nil {
			r, err = here.registries["reg.test"].GetBlob(t.Context(), "app", d)
		}
		return must(readAll(must(r, err)(t)))(t)
	}
	pushed := checkAttested(t, repo(desc.Digest), repo)
	if pushed == img.Manifest.Digest {
		t.Error("the registry has uncompressed layers")
	}
	if again := must(here.Push(t.Context(), "reg.test/app:v1", PushOptions{}))(t); again.Digest != desc.Digest {
		t.Errorf("a second push gave %s, the first %s", again.Digest, desc.Digest)
	}

	there := newWorld(t)
	there.registries = here.registries
	if got := must(there.Pull(t.Context(), "reg.test/app:v1", PullOptions{}))(t); got.Digest != desc.Digest {
		t.Errorf("pulled %s, pushed %s", got.Digest, desc.Digest)
	}
	checkAttested(t, must(there.Store.Read(desc.Digest))(t), func(d digest.Digest) []byte { return must(there.Store.Read(d))(t) })
	must(there.Store.Collect(t.Context(), store.CollectOptions{CacheBudget: -1, Grace: -1}))(t)
	fine(t, there.Tag(t.Context(), "reg.test/app:v1", "docker.io/me/copy:v1"))
	if again := must(there.Push(t.Context(), "docker.io/me/copy:v1", PushOptions{}))(t); again.Digest != desc.Digest {
		t.Errorf("pushed %s, pulled %s", again.Digest, desc.Digest)
	}
	copied := must(there.Copy(t.Context(), "docker.io/me/copy:v1", "reg.test/other:v1", CopyOptions{}))(t)
	if copied.Digest != desc.Digest {
		t.Errorf("copied %s, was %s", copied.Digest, desc.Digest)
	}
	if list := must(there.Manifests(t.Context(), "reg.test/other:v1"))(t); len(list) != 3 {
		t.Errorf("the registry shows %d documents", len(list))
	}
	must(there.Remove(t.Context(), "reg.test/app:v1", RemoveOptions{}))(t)
	must(there.Remove(t.Context(), "docker.io/me/copy:v1", RemoveOptions{}))(t)
	if there.has(desc.Digest) || len(there.refs()) != 0 {
		t.Errorf("left behind: %v", there.refs())
	}
}

// withoutStatements is a registry that has lost its attestations.
type withoutStatements struct{ ociregistry.Interface }

func (r withoutStatements) GetBlob(ctx context.Context, repo string, d digest.Digest) (ociregistry.BlobReader, error) {
	b, err := r.Interface.GetBlob(ctx, repo, d)
	if err == nil && b.Descriptor().Size < 400 && d != ocispec.DescriptorEmptyJSON.Digest {
		data, rerr := readAll(b)
		if rerr == nil && strings.Contains(string(data), "in-toto") {
			return nil, fmt.Errorf("blob: %w", errdefs.ErrNotFound)
		}
		return r.Interface.GetBlob(ctx, repo, d)
	}
	return b, err
}

func TestAnAttestationThatIsGoneDoesNotStopAPull(t *testing.T) {
	here, there := newWorld(t), newWorld(t)
	here.attestedImage([][]byte{base}, "reg.test/app:v1")
	desc := must(here.Push(t.Context(), "reg.test/app:v1", PushOptions{}))(t)
	there.registries["reg.test"] = withoutStatements{here.registries["reg.test"]}
	var out events
	if got := must(there.Pull(t.Context(), "reg.test/app:v1", PullOptions{Progress: out.sink()}))(t); got.Digest != desc.Digest {
		t.Errorf("pulled %s", got.Digest)
	}
	out.has(t, "is left out")
	fine(t, there.Tag(t.Context(), "reg.test/app:v1", "docker.io/me/copy:v1"))
	must(there.Push(t.Context(), "docker.io/me/copy:v1", PushOptions{}))(t)
	fine(t, there.Save(t.Context(), &bytes.Buffer{}, []string{"reg.test/app:v1"}, SaveOptions{}))
}

func TestAttestationsAreSavedAndLoaded(t *testing.T) {
	here, there := newWorld(t), newWorld(t)
	img := here.attestedImage([][]byte{base, top}, "reg.test/app:v1")
	must(here.Push(t.Context(), "reg.test/app:v1", PushOptions{}))(t)
	var built bytes.Buffer
	lease := must(here.Store.Lease(t.Context()))(t)
	defer lease.Close()
	if desc := must(here.SaveBuilt(t.Context(), &built, attestedBuild(img), Form{}, []string{"app:v1"}))(t); desc.Digest != img.Target.Digest {
		t.Errorf("saved %s", desc.Digest)
	}
	for what, archive := range map[string][]byte{
		"saved": must(os.ReadFile(here.saveFile("reg.test/app:v1")))(t),
		"built": built.Bytes(),
		"pulled": func() []byte {
			w := newWorld(t)
			w.registries = here.registries
			must(w.Pull(t.Context(), "reg.test/app:v1", PullOptions{}))(t)
			return must(os.ReadFile(w.saveFile("reg.test/app:v1")))(t)
		}(),
	} {
		loaded := must(there.Load(t.Context(), bytes.NewReader(archive), LoadOptions{}))(t)
		if len(loaded) != 1 || loaded[0].ID != img.ConfigDigest {
			t.Fatalf("%s: loaded %v", what, loaded)
		}
		got := must(there.Get(t.Context(), loaded[0].Name, nil))(t)
		if got.Target.Digest != img.Target.Digest {
			t.Errorf("%s: loaded %s, was %s", what, got.Target.Digest, img.Target.Digest)
		}
		checkAttested(t, must(there.Store.Read(got.Target.Digest))(t), func(d digest.Digest) []byte { return must(there.Store.Read(d))(t) })
	}
}

func TestOthersReadOurAttestations(t *testing.T) {
	needs(t, "skopeo")
	addr := distribution(t)
	w := newWorld(t)
	w.online()
	name := addr + "/app:v1"
	img := w.attestedImage([][]byte{base, top}, name)
	must(w.Push(t.Context(), name, PushOptions{}))(t)
	raw := tool(t, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+name)
	dir := filepath.Join(t.TempDir(), "copy")
	tool(t, "skopeo", "copy", "--all", "--src-tls-verify=false", "docker://"+name, "oci:"+dir+":app")
	checkAttested(t, []byte(raw), func(d digest.Digest) []byte {
		return must(os.ReadFile(filepath.Join(dir, blobPath(d))))(t)
	})
	for _, format := range []string{"docker-archive", "oci-archive"} {
		var theirs struct{ Layers []string }
		fine(t, json.Unmarshal([]byte(tool(t, "skopeo", "inspect", format+":"+w.saveFile(name))), &theirs))
		if len(theirs.Layers) != len(img.DiffIDs) {
			t.Errorf("%s has layers %v", format, theirs.Layers)
		}
	}
}

func FuzzStatements(f *testing.F) {
	good, err := said[0].statement(ocispec.Descriptor{Digest: digest.FromString("x")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"subject":[{"digest":null},null,1]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := aboutOther(data, digest.FromString("x"), digest.FromString("y"))
		if err == nil && !json.Valid(out) {
			t.Fatalf("%q became %q", data, out)
		}
	})
}
