package image

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/layer"
)

func TestAPushedImageCanBePulledElsewhere(t *testing.T) {
	for _, c := range []layer.Compression{layer.Gzip, layer.Zstd} {
		t.Run(c.String(), func(t *testing.T) {
			here, there := newWorld(t), newWorld(t)
			there.registries = here.registries
			img := here.local(epoch, [][]byte{base, top}, "reg.test/app:v1")
			var said events
			desc := must(here.Push(t.Context(), "reg.test/app:v1", PushOptions{Compression: c, Progress: said.sink()}))(t)
			said.has(t, "The push refers to repository [reg.test/app]")
			said.has(t, short(img.DiffIDs[0])+": Pushed")
			said.has(t, "v1: digest: "+desc.Digest.String()+" size: ")

			must(there.Pull(t.Context(), "reg.test/app:v1", PullOptions{}))(t)
			got := must(there.Get(t.Context(), "reg.test/app:v1", nil))(t)
			if got.ConfigDigest != img.ConfigDigest || !slices.Equal(got.DiffIDs, img.DiffIDs) {
				t.Error("another image came back")
			}
			if m := got.manifest.Layers[0].MediaType; m != c.MediaType() {
				t.Errorf("layers were sent as %s", m)
			}
		})
	}
}

func TestTheSameImageGetsTheSameDigestFromEveryStore(t *testing.T) {
	var digests []digest.Digest
	for range 2 {
		w := newWorld(t)
		w.local(epoch, [][]byte{base, top}, "reg.test/app:v1")
		digests = append(digests, must(w.Push(t.Context(), "reg.test/app:v1", PushOptions{}))(t).Digest)
	}
	if digests[0] != digests[1] {
		t.Errorf("digests are %s and %s", digests[0], digests[1])
	}
}

func TestAPushIsRememberedAsARepoDigest(t *testing.T) {
	w := newWorld(t)
	img := w.local(epoch, [][]byte{base}, "reg.test/app:v1", "other:latest")
	desc := must(w.Push(t.Context(), "reg.test/app:v1", PushOptions{}))(t)
	info := must(w.Inspect(t.Context(), "other", nil))(t)
	if want := []string{"reg.test/app@" + desc.Digest.String()}; !slices.Equal(info.RepoDigests, want) {
		t.Errorf("digests are %q, want %q", info.RepoDigests, want)
	}
	if want := []string{"other:latest", "reg.test/app:v1"}; !slices.Equal(info.RepoTags, want) {
		t.Errorf("tags are %q, want %q", info.RepoTags, want)
	}
	if byDigest := must(w.Get(t.Context(), info.RepoDigests[0], nil))(t); byDigest.ConfigDigest != img.ConfigDigest {
		t.Error("the digest leads to another image")
	}
	if list := must(w.List(t.Context(), ListOptions{}))(t); len(list) != 1 {
		t.Errorf("one image is listed as %d", len(list))
	}
}

func TestASecondPushSendsNoLayer(t *testing.T) {
	w := newWorld(t)
	w.local(epoch, [][]byte{base, top}, "reg.test/app:v1", "reg.test/app:v2", "reg.test/other:v1")
	first := must(w.Push(t.Context(), "reg.test/app:v1", PushOptions{}))(t)
	watched := &watching{Interface: w.registries["reg.test"]}
	w.registries["reg.test"] = watched
	var said events
	second := must(w.Push(t.Context(), "reg.test/app:v2", PushOptions{Progress: said.sink()}))(t)
	said.has(t, "Layer already exists")
	if first.Digest != second.Digest {
		t.Error("the digest has changed")
	}
	said = events{}
	third := must(w.Push(t.Context(), "reg.test/other:v1", PushOptions{Progress: said.sink()}))(t)
	said.has(t, "Mounted from app")
	if third.Digest != first.Digest {
		t.Error("the digest in the other repository differs")
	}
	for _, l := range must(w.document(first))(t).manifest.Layers {
		if slices.Contains(watched.pushed, l.Digest) {
			t.Errorf("layer %s was sent again", l.Digest)
		}
	}
}

type watching struct {
	ociregistry.Interface
	pushed []digest.Digest
}

func (w *watching) PushBlob(ctx context.Context, repo string, desc ociregistry.Descriptor, r ioReader) (ociregistry.Descriptor, error) {
	w.pushed = append(w.pushed, desc.Digest)
	return w.Interface.PushBlob(ctx, repo, desc, r)
}

func TestAPulledImageIsPushedByteForByte(t *testing.T) {
	odd := func(t *testing.T) *remote {
		// Bytes that our encoder would not make.
		r := newRemote(t, amd64, layer.Gzip, base, top)
		for n := range r.layers {
			r.layers[n] = stdGzip(t, [][]byte{base, top}[n])
		}
		r.seal()
		return r
	}
	t.Run("to another repository by mount", func(t *testing.T) {
		w, r := newWorld(t), odd(t)
		w.put("reg.test", "app", "v1", r)
		must(w.Pull(t.Context(), "reg.test/app:v1", PullOptions{}))(t)
		fine(t, w.Tag(t.Context(), "reg.test/app:v1", "reg.test/copy:v1"))
		var said events
		if d := must(w.Push(t.Context(), "reg.test/copy:v1", PushOptions{Progress: said.sink()}))(t); d.Digest != r.desc.Digest {
			t.Errorf("pushed as %s, want %s", d.Digest, r.desc.Digest)
		}
		said.has(t, "Mounted from app")
	})
	t.Run("to another registry", func(t *testing.T) {
		w, r := newWorld(t), odd(t)
		w.registries["two.test"] = ocimem.New()
		w.put("reg.test", "app", "v1", r)
		must(w.Pull(t.Context(), "reg.test/app:v1", PullOptions{}))(t)
		fine(t, w.Tag(t.Context(), "reg.test/app:v1", "two.test/app:v1"))
		if d := must(w.Push(t.Context(), "two.test/app:v1", PushOptions{}))(t); d.Digest != r.desc.Digest {
			t.Errorf("pushed as %s, want %s", d.Digest, r.desc.Digest)
		}
	})
	t.Run("as another manifest if its source is gone", func(t *testing.T) {
		w, r := newWorld(t), odd(t)
		w.registries["two.test"] = ocimem.New()
		w.put("reg.test", "app", "v1", r)
		must(w.Pull(t.Context(), "reg.test/app:v1", PullOptions{}))(t)
		fine(t, w.Tag(t.Context(), "reg.test/app:v1", "two.test/app:v1"))
		delete(w.registries, "reg.test")
		var said events
		d := must(w.Push(t.Context(), "two.test/app:v1", PushOptions{Progress: said.sink()}))(t)
		if d.Digest == r.desc.Digest {
			t.Error("the digest is that of a manifest whose layers can't be there")
		}
		said.has(t, "under another digest")
		elsewhere := newWorld(t)
		elsewhere.registries = w.registries
		must(elsewhere.Pull(t.Context(), "two.test/app:v1", PullOptions{}))(t)
		if img := must(elsewhere.Get(t.Context(), "two.test/app:v1", nil))(t); img.ConfigDigest != r.manifest.Config.Digest {
			t.Error("the image has another id")
		}
	})
}

func TestABaseKeepsItsCompressedLayers(t *testing.T) {
	w := newWorld(t)
	r := newRemote(t, amd64, layer.Gzip, base)
	r.layers[0] = stdGzip(t, base)
	r.seal()
	w.put("reg.test", "base", "v1", r)
	must(w.Pull(t.Context(), "reg.test/base:v1", PullOptions{}))(t)
	w.local(epoch, [][]byte{base, top}, "reg.test/app:v1")
	var said events
	d := must(w.Push(t.Context(), "reg.test/app:v1", PushOptions{Progress: said.sink()}))(t)
	if got := must(w.document(d))(t).manifest.Layers[0].Digest; got != r.manifest.Layers[0].Digest {
		t.Errorf("the base's layer was sent as %s, the registry has it as %s", got, r.manifest.Layers[0].Digest)
	}
	said.has(t, "Mounted from base")
}

func TestAPushThatFailsSaysWhyInOneLine(t *testing.T) {
	w := newWorld(t)
	w.local(epoch, [][]byte{base}, "reg.test/app:v1", "gone.test/app:v1")
	_, err := w.Push(t.Context(), "reg.test/none:v1", PushOptions{})
	if !errdefs.IsNotFound(err) {
		t.Errorf("an unknown image: %v", err)
	}
	_, err = w.Push(t.Context(), "gone.test/app:v1", PushOptions{})
	if !errdefs.IsUnavailable(err) {
		t.Errorf("a registry that is not there: %v", err)
	}
	w.registries["reg.test"] = &full{w.registries["reg.test"]}
	_, err = w.Push(t.Context(), "reg.test/app:v1", PushOptions{})
	if err == nil || !strings.HasPrefix(err.Error(), "push reg.test/app:v1: layer ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a registry that is full: %v", err)
	}
	if refs := w.refs(); slices.ContainsFunc(refs, func(s string) bool { return strings.Contains(s, "@") }) {
		t.Errorf("a failed push was remembered: %q", refs)
	}
}

type full struct{ ociregistry.Interface }

func (f *full) PushBlob(context.Context, string, ociregistry.Descriptor, ioReader) (ociregistry.Descriptor, error) {
	return ociregistry.Descriptor{}, errors.New("no space left")
}

func TestAWholeIndexIsPushedAsOne(t *testing.T) {
	w := newWorld(t)
	index := w.putIndex("docker.io", "library/multi", "latest", newRemote(t, amd64, layer.Gzip, base), newRemote(t, arm64, layer.Gzip, top))
	must(w.Pull(t.Context(), "multi", PullOptions{}))(t)
	fine(t, w.Tag(t.Context(), "multi", "reg.test/multi:v1"))
	var said events
	one := must(w.Push(t.Context(), "reg.test/multi:v1", PushOptions{Progress: said.sink()}))(t)
	if one.Digest == index.Digest {
		t.Error("an index was pushed of which one image is not here")
	}
	said.has(t, "only linux/amd64 is pushed")
	must(w.Pull(t.Context(), "multi", PullOptions{Platform: &arm64}))(t)
	if both := must(w.Push(t.Context(), "reg.test/multi:v1", PushOptions{}))(t); both.Digest != index.Digest {
		t.Errorf("pushed as %s, want the index %s", both.Digest, index.Digest)
	}
}

func fine(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The store that compressed a layer can make the same bytes again, whatever
// level is the default by then.
func TestWhatWasCompressedIsCompressedAlikeAgain(t *testing.T) {
	for _, o := range []PushOptions{{}, {Level: 1}, {Compression: layer.Zstd, Level: 19}} {
		w := newWorld(t)
		w.registries["two.test"] = ocimem.New()
		w.local(epoch, [][]byte{base, top}, "reg.test/app:v1")
		first := must(w.Push(t.Context(), "reg.test/app:v1", o))(t)
		must(w.Pull(t.Context(), "reg.test/app:v1", PullOptions{}))(t)
		fine(t, w.Tag(t.Context(), "reg.test/app:v1", "two.test/app:v1"))
		delete(w.registries, "reg.test")
		if again := must(w.Push(t.Context(), "two.test/app:v1", PushOptions{Level: 5}))(t); again.Digest != first.Digest {
			t.Errorf("%v: pushed as %s, then as %s", o, first.Digest, again.Digest)
		}
	}
}

func TestANoteNamesTheLevelThatWasUsed(t *testing.T) {
	if got := newEncoder(layer.Gzip, 0).String(); got != "gzip 3" {
		t.Errorf("the default is noted as %q: if it has changed, notes of before must still mean 3", got)
	}
	for made, want := range map[string]encoder{
		"gzip 0": {layer.Gzip, 3}, "zstd 0": {layer.Zstd, 3}, "gzip 9": {layer.Gzip, 9}, "zstd 19": {layer.Zstd, 19},
	} {
		if got, ours := (note{Made: made}).madeBy(); !ours || got != want {
			t.Errorf("%q is read as %v, %t", made, got, ours)
		}
	}
	for _, made := range []string{"", "gzip", "gzip x", "bzip2 9"} {
		if _, ours := (note{Made: made}).madeBy(); ours {
			t.Errorf("%q is taken for ours", made)
		}
	}
}
