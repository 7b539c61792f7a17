package store

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestRefsAreSetListedAndDeleted(t *testing.T) {
	s := open(t)
	desc := mustImage(t, s, lease(t, s), "one", "two")
	names := []string{"@" + string(desc.Digest), "docker.io/library/a/b:c", "docker.io/library/a:b", "docker.io/library/a@" + string(desc.Digest), "localhost:5000/a:b"}
	for i := range names {
		if err := s.SetRef(names[len(names)-1-i], desc); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetRef("_served/hidden:1", desc); err != nil {
		t.Fatal(err)
	}
	refs, err := s.Refs(t.Context())
	if err != nil || len(refs) != len(names) {
		t.Fatalf("%v, %v", refs, err)
	}
	for _, ref := range refs {
		if got, err := s.Resolve(ref.Name); err != nil || got.Digest != desc.Digest || ref.Updated.IsZero() {
			t.Errorf("%s: %v, %v", ref.Name, got, err)
		}
		if err := s.DeleteRef(ref.Name); err != nil {
			t.Error(err)
		}
		if err := s.DeleteRef(ref.Name); !errdefs.IsNotFound(err) {
			t.Errorf("second delete: %v", err)
		}
	}
	if left := listing(t, s.path(refsDir)); len(left) != 1 || left[0] != "_served" {
		t.Errorf("left: %q", left)
	}
}

func TestARefWhoseContentIsNotCompleteIsRefused(t *testing.T) {
	for _, missing := range []string{"nothing", "manifest", "config", "layer"} {
		t.Run(missing, func(t *testing.T) {
			s := open(t)
			desc := mustImage(t, s, lease(t, s), "one", "two")
			var m ocispec.Manifest
			data, _ := s.Read(desc.Digest)
			json.Unmarshal(data, &m)
			gone := map[string]digest.Digest{"manifest": desc.Digest, "config": m.Config.Digest, "layer": m.Layers[1].Digest}[missing]
			if gone != "" {
				os.Remove(s.Path(gone))
			}
			err := s.SetRef("docker.io/a/b:c", desc)
			if gone == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errdefs.IsNotFound(err) {
				t.Errorf("got %v", err)
			}
			if _, err := s.Resolve("docker.io/a/b:c"); !errdefs.IsNotFound(err) {
				t.Errorf("resolve: %v", err)
			}
			if left := listing(t, s.path(tmpDir)); len(left) != 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

func TestATarStandsInForItsCompressedLayer(t *testing.T) {
	s := open(t)
	l := lease(t, s)
	tar, err := ingest(s, l, []byte("tar"))
	if err != nil {
		t.Fatal(err)
	}
	put := func(v any) ocispec.Descriptor {
		data, _ := json.Marshal(v)
		if _, err := s.Put(t.Context(), l, data); err != nil {
			t.Fatal(err)
		}
		return describe("", data)
	}
	config := put(ocispec.Image{RootFS: ocispec.RootFS{DiffIDs: []digest.Digest{tar}}})
	config.MediaType = ocispec.MediaTypeImageConfig
	layer := describe(ocispec.MediaTypeImageLayerGzip, []byte("compressed, and not here"))
	manifest := put(ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{layer}})
	if err := s.SetRef("docker.io/a/b:c", manifest); err != nil {
		t.Error(err)
	}
	config.MediaType = "application/vnd.cncf.helm.config.v1+json"
	chart := put(ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{layer}})
	if err := s.SetRef("docker.io/a/b:d", chart); !errdefs.IsNotFound(err) {
		t.Errorf("something that is no image: %v", err)
	}
}

func TestAnIndexIsCompleteWithOneOfItsImages(t *testing.T) {
	s := open(t)
	l := lease(t, s)
	here := mustImage(t, s, l, "amd64")
	here.Platform = &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	attest := mustImage(t, s, l, "attestation")
	attest.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	absent := describe(ocispec.MediaTypeImageManifest, []byte("arm64"))
	for _, c := range []struct {
		manifests []ocispec.Descriptor
		ok        bool
	}{
		{[]ocispec.Descriptor{}, true},
		{[]ocispec.Descriptor{absent, here}, true},
		{[]ocispec.Descriptor{absent}, false},
		{[]ocispec.Descriptor{absent, attest}, false},
		{[]ocispec.Descriptor{attest}, true},
	} {
		data, _ := json.Marshal(ocispec.Index{Manifests: c.manifests})
		if _, err := s.Put(t.Context(), l, data); err != nil {
			t.Fatal(err)
		}
		err := s.SetRef("docker.io/a/b:c", describe(ocispec.MediaTypeImageIndex, data))
		if c.ok != (err == nil) || err != nil && !errdefs.IsNotFound(err) {
			t.Errorf("%d manifests: %v", len(c.manifests), err)
		}
	}
}

func TestAnIndexOfIndexesEndsSoon(t *testing.T) {
	s := open(t)
	l := lease(t, s)
	level := []ocispec.Descriptor{describe(ocispec.MediaTypeImageManifest, []byte("absent"))}
	for depth := range 20 {
		data, _ := json.Marshal(ocispec.Index{Manifests: level, Annotations: map[string]string{"depth": fmt.Sprint(depth)}})
		if _, err := s.Put(t.Context(), l, data); err != nil {
			t.Fatal(err)
		}
		level = nil
		for range 100 {
			level = append(level, describe(ocispec.MediaTypeImageIndex, data))
		}
	}
	if err := s.SetRef("docker.io/a/b:c", level[0]); err == nil {
		t.Error("accepted")
	}
}

func TestADamagedRefHidesNoOther(t *testing.T) {
	s := open(t)
	desc := mustImage(t, s, lease(t, s), "one")
	for _, name := range []string{"docker.io/a/a:1", "docker.io/a/b:1"} {
		if err := s.SetRef(name, desc); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.path(refsDir, "docker.io/a/a/:1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if refs, err := s.Refs(t.Context()); err != nil || len(refs) != 1 {
		t.Errorf("%v, %v", refs, err)
	}
	if _, err := s.Resolve("docker.io/a/a:1"); !errdefs.IsDataLoss(err) {
		t.Errorf("resolve: %v", err)
	}
	if err := s.DeleteRef("docker.io/a/a:1"); err != nil {
		t.Error(err)
	}
}

func BenchmarkRefs500(b *testing.B) {
	s := open(b)
	l := lease(b, s)
	desc := mustImage(b, s, l, "one")
	data, _ := json.Marshal(desc)
	for i := range 500 {
		dir := s.path(refsDir, "docker.io", fmt.Sprintf("team%d/app%d", i%20, i))
		os.MkdirAll(dir, 0o700)
		os.WriteFile(filepath.Join(dir, ":latest"), data, 0o600)
	}
	for b.Loop() {
		if refs, err := s.Refs(b.Context()); err != nil || len(refs) != 500 {
			b.Fatal(len(refs), err)
		}
	}
}
