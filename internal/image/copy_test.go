package image

import (
	"bytes"
	"testing"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/layer"
)

func TestCopyTakesEverythingByteForByte(t *testing.T) {
	w := newWorld(t)
	w.registries["two.test"] = ocimem.New()
	x86, arm := newRemote(t, amd64, layer.Gzip, base), newRemote(t, arm64, layer.Zstd, top)
	// What BuildKit puts beside images: a manifest of no image.
	proof := newRemote(t, ocispec.Platform{OS: "unknown", Architecture: "unknown"}, layer.None, []byte(`{"_type":"statement"}`))
	proof.types[0] = "application/vnd.in-toto+json"
	proof.seal()
	index := w.putIndex("reg.test", "multi", "v1", x86, arm, proof)

	desc := must(w.Copy(t.Context(), "reg.test/multi:v1", "two.test/copied/multi:v2", CopyOptions{}))(t)
	if desc.Digest != index.Digest {
		t.Errorf("copied %s, want %s", desc.Digest, index.Digest)
	}
	if len(w.refs()) != 0 {
		t.Errorf("the store has %q", w.refs())
	}
	for _, r := range []*remote{x86, arm, proof} {
		reader := must(w.registries["two.test"].GetManifest(t.Context(), "copied/multi", r.desc.Digest))(t)
		if data := must(readAll(reader))(t); !bytes.Equal(data, r.raw) {
			t.Error("a manifest has changed")
		}
	}
	must(w.Pull(t.Context(), "two.test/copied/multi:v2", PullOptions{Platform: &arm64}))(t)

	one := must(w.Copy(t.Context(), "reg.test/multi:v1", "two.test/one:v1", CopyOptions{Platform: &arm64}))(t)
	if one.Digest != arm.desc.Digest {
		t.Errorf("of one platform %s was copied", one.Digest)
	}
	var said events
	must(w.Copy(t.Context(), "reg.test/multi:v1", "reg.test/beside:v1", CopyOptions{Progress: said.sink()}))(t)
	said.has(t, "Mounted from multi")
	if _, err := w.Copy(t.Context(), "reg.test/none:v1", "two.test/x:v1", CopyOptions{}); err == nil {
		t.Error("an unknown image was copied")
	}
	if _, err := w.Copy(t.Context(), "reg.test/multi:v1", "two.test/X", CopyOptions{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("to a name that can't be: %v", err)
	}
}

func TestManifestsOfARegistryAreShownWithoutAPull(t *testing.T) {
	w := newWorld(t)
	index := w.putIndex("reg.test", "multi", "v1", newRemote(t, amd64, layer.Gzip, base), newRemote(t, arm64, layer.Gzip, top))
	list := must(w.Manifests(t.Context(), "reg.test/multi:v1"))(t)
	if len(list) != 3 || list[0].Descriptor.Digest != index.Digest || list[2].Descriptor.Platform.Architecture != "arm64" {
		t.Errorf("got %+v", list)
	}
	if len(w.refs()) != 0 {
		t.Errorf("the store has %q", w.refs())
	}
}
