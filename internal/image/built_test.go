package image

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/layer"
)

// twoPlatforms is a build of one layer for two platforms, one of which is said
// something of.
func (w *world) twoPlatforms(about ...Attestation) Built {
	w.t.Helper()
	img := w.local(epoch, [][]byte{base}, "plain:latest")
	config := *img.Config
	config.Architecture = "s390x"
	raw := must(json.Marshal(config))(w.t)
	return Built{Images: []BuiltImage{
		{Config: img.RawConfig, Layers: img.DiffIDs, Annotations: Annotations{Document: map[string]string{"k": "v"}}},
		{Config: raw, Layers: img.DiffIDs, About: about},
	}, Annotations: Annotations{Document: map[string]string{"of": "all"}}}
}

func TestABuildForTwoPlatformsIsOneIndexEverywhere(t *testing.T) {
	w := newWorld(t)
	b := w.twoPlatforms(said...)
	lease := must(w.Store.Lease(t.Context()))(t)
	defer lease.Close()
	img := must(w.WriteBuilt(t.Context(), lease, b, Form{}, []string{"reg.test/two:v1"}))(t)
	if img.Config.Architecture != "amd64" {
		t.Errorf("the image of this machine is that of %s", img.Config.Architecture)
	}
	var archive bytes.Buffer
	saved := must(w.SaveBuilt(t.Context(), &archive, b, Form{}, []string{"two:v1"}))(t)
	dir := filepath.Join(t.TempDir(), "layout")
	laid := must(w.LayoutBuilt(t.Context(), dir, b, Form{}, nil))(t)
	if saved.Digest != img.Target.Digest || laid.Digest != saved.Digest {
		t.Errorf("written %s, saved %s, laid out %s", img.Target.Digest, saved.Digest, laid.Digest)
	}
	other := newWorld(t)
	loaded := must(other.Load(t.Context(), &archive, LoadOptions{}))(t)
	if got := must(other.Get(t.Context(), loaded[0].Name, nil))(t); got.Target.Digest != saved.Digest {
		t.Errorf("loaded %s", got.Target.Digest)
	}
	var index ocispec.Index
	fine(t, json.Unmarshal(must(w.Store.Read(saved.Digest))(t), &index))
	if len(index.Manifests) != 3 || !isAttestation(index.Manifests[2]) || index.Annotations["of"] != "all" {
		t.Errorf("the index is %+v", index)
	}
	desc := must(w.Push(t.Context(), "reg.test/two:v1", PushOptions{Compression: layer.Zstd}))(t)
	doc := must(w.document(desc))(t)
	if len(doc.index.Manifests) != 3 || doc.index.Annotations["of"] != "all" {
		t.Errorf("pushed %s", doc.raw)
	}
	first := must(w.document(doc.index.Manifests[0]))(t)
	if first.manifest.Annotations["k"] != "v" || first.manifest.Layers[0].MediaType != ocispec.MediaTypeImageLayerZstd {
		t.Errorf("pushed %s", first.raw)
	}
	if doc.index.Manifests[2].Annotations[attestationTarget] != doc.index.Manifests[1].Digest.String() {
		t.Error("what is said is not said of the image that the registry has")
	}
}

func TestALayoutKeepsWhatItHad(t *testing.T) {
	w := newWorld(t)
	lease := must(w.Store.Lease(t.Context()))(t)
	defer lease.Close()
	dir := t.TempDir()
	names := func() (all []string) {
		var index ocispec.Index
		fine(t, json.Unmarshal(must(os.ReadFile(filepath.Join(dir, "index.json")))(t), &index))
		for _, m := range index.Manifests {
			all = append(all, m.Annotations[refName]+" "+m.Digest.Encoded()[:4])
		}
		return all
	}
	b := w.twoPlatforms()
	must(w.LayoutBuilt(t.Context(), dir, b, Form{Compression: layer.Gzip}, []string{"a:one"}))(t)
	must(w.LayoutBuilt(t.Context(), dir, b, Form{}, []string{"a:two"}))(t)
	must(w.LayoutBuilt(t.Context(), dir, b, Form{}, []string{"a:one"}))(t)
	if got := names(); len(got) != 2 || got[0][4:] == got[1][4:] && got[0][:3] == got[1][:3] {
		t.Errorf("the layout has %v", got)
	}
}

func TestDockersMediaTypesStayThroughAPush(t *testing.T) {
	w := newWorld(t)
	b := w.twoPlatforms()
	lease := must(w.Store.Lease(t.Context()))(t)
	defer lease.Close()
	if _, err := w.WriteBuilt(t.Context(), lease, b, Form{Docker: true}, nil); err == nil {
		t.Error("a manifest list has got annotations")
	}
	b.Annotations = Annotations{}
	must(w.WriteBuilt(t.Context(), lease, b, Form{Docker: true}, []string{"reg.test/two:v1"}))(t)
	doc := must(w.document(must(w.Push(t.Context(), "reg.test/two:v1", PushOptions{}))(t)))(t)
	first := must(w.document(doc.index.Manifests[0]))(t)
	for what, got := range map[string]string{
		dockerManifestList: doc.desc.MediaType, dockerManifest: first.desc.MediaType,
		dockerConfig: first.manifest.Config.MediaType, dockerLayerGzip: first.manifest.Layers[0].MediaType,
	} {
		if got != what {
			t.Errorf("%s is pushed as %s", what, got)
		}
	}
}

func TestAPushCompressesAsItIsTold(t *testing.T) {
	w := newWorld(t)
	r := newRemote(t, amd64, layer.Gzip, base)
	r.layers[0] = stdGzip(t, base)
	r.seal()
	w.put("reg.test", "base", "v1", r)
	must(w.Pull(t.Context(), "reg.test/base:v1", PullOptions{}))(t)
	w.local(epoch, [][]byte{base, top}, "two.test/app:v1")
	layers := func(o PushOptions) []ocispec.Descriptor {
		w.registries["two.test"] = ocimem.New()
		return must(w.document(must(w.Push(t.Context(), "two.test/app:v1", o))(t)))(t).manifest.Layers
	}
	theirs := r.manifest.Layers[0].Digest
	if got := layers(PushOptions{Force: true}); got[0].Digest == theirs || got[0].MediaType != ocispec.MediaTypeImageLayerGzip {
		t.Errorf("forced, the base has the layer %s of type %s", got[0].Digest, got[0].MediaType)
	}
	nine := layers(PushOptions{Level: 9, Force: true})
	if n, _ := w.note(nine[1].Digest); n.Made != "gzip 9" {
		t.Errorf("at level 9 a layer is made by %q", n.Made)
	}
	for _, l := range layers(PushOptions{Plain: true}) {
		if l.MediaType != ocispec.MediaTypeImageLayer {
			t.Errorf("plain, a layer is of type %s", l.MediaType)
		}
	}
	if got := layers(PushOptions{Plain: true})[0].Digest; got != digest.FromBytes(base) {
		t.Errorf("plain, a layer is %s", got)
	}
}
