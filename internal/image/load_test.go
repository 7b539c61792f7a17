package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/layer"
)

func TestWhatIsSavedIsLoadedElsewhere(t *testing.T) {
	here := newWorld(t)
	one := here.local(epoch, [][]byte{base, top}, "app:v1", "app:latest")
	two := here.local(epoch.Add(time.Hour), [][]byte{base}, "reg.test/base:v1")
	var archive bytes.Buffer
	fine(t, here.Save(t.Context(), &archive, []string{"app", "reg.test/base:v1", two.ConfigDigest.String()}, SaveOptions{}))

	var again bytes.Buffer
	fine(t, here.Save(t.Context(), &again, []string{"app", "reg.test/base:v1", two.ConfigDigest.String()}, SaveOptions{}))
	if !bytes.Equal(archive.Bytes(), again.Bytes()) {
		t.Error("the same images gave other bytes")
	}
	for _, c := range []layer.Compression{layer.None, layer.Gzip, layer.Zstd} {
		t.Run(c.String(), func(t *testing.T) {
			there := newWorld(t)
			pipe := io.MultiReader(bytes.NewReader(compressed(t, c, archive.Bytes()))) // nothing to seek in
			loaded := must(there.Load(t.Context(), pipe, LoadOptions{}))(t)
			want := []Loaded{
				{"app:latest", one.ConfigDigest}, {"app:v1", one.ConfigDigest}, {"reg.test/base:v1", two.ConfigDigest},
			}
			if !slices.Equal(loaded, want) {
				t.Errorf("loaded %v, want %v", loaded, want)
			}
			img := must(there.Get(t.Context(), "app", nil))(t)
			if img.Target.Digest != one.Target.Digest {
				t.Errorf("the manifest is %s, was %s", img.Target.Digest, one.Target.Digest)
			}
		})
	}
}

func TestAnArchiveWithoutNamesGivesIDs(t *testing.T) {
	here, there := newWorld(t), newWorld(t)
	img := here.local(epoch, [][]byte{base})
	var archive bytes.Buffer
	fine(t, here.Save(t.Context(), &archive, []string{short(img.ConfigDigest)}, SaveOptions{}))
	loaded := must(there.Load(t.Context(), &archive, LoadOptions{}))(t)
	if want := []Loaded{{ID: img.ConfigDigest}}; !slices.Equal(loaded, want) {
		t.Errorf("loaded %v", loaded)
	}
	must(there.Get(t.Context(), img.ConfigDigest.String(), nil))(t)
}

func TestLoadSaysWhichNameItTakes(t *testing.T) {
	here, there := newWorld(t), newWorld(t)
	here.local(epoch, [][]byte{top}, "app:v1")
	old := there.local(epoch, [][]byte{base}, "app:v1")
	var archive bytes.Buffer
	fine(t, here.Save(t.Context(), &archive, []string{"app:v1"}, SaveOptions{}))
	var said events
	must(there.Load(t.Context(), &archive, LoadOptions{Progress: said.sink()}))(t)
	said.has(t, "The image app:v1 already exists, renaming the old one with ID "+old.ConfigDigest.String()+" to empty string")
	must(there.Get(t.Context(), old.ConfigDigest.String(), nil))(t)
}

// member is one of an archive that a test writes by hand.
type member struct {
	name string
	data []byte
	link string
	kind byte
}

func archiveOf(members ...member) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range members {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: m.name, Mode: 0o644, Size: int64(len(m.data))}
		if m.kind != 0 {
			h.Typeflag, h.Linkname, h.Size = m.kind, m.link, 0
		}
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		if _, err := w.Write(m.data); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func jsonOf(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func configOf(layers ...[]byte) []byte {
	c := Config{Image: ocispec.Image{Platform: amd64, RootFS: ocispec.RootFS{Type: "layers"}}}
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l))
	}
	return jsonOf(c)
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

func TestOldDockerArchivesAreRead(t *testing.T) {
	w := newWorld(t)
	config := configOf(base, top, base)
	archive := archiveOf(
		member{name: "aaaa/layer.tar", data: base},
		member{name: "aaaa/VERSION", data: []byte("1.0")},
		member{name: "bbbb/layer.tar", data: compressed(t, layer.Gzip, top)},
		member{name: "cccc/layer.tar", kind: tar.TypeSymlink, link: "../aaaa/layer.tar"},
		member{name: sum(config) + ".json", data: config},
		member{name: "manifest.json", data: jsonOf([]archiveItem{{
			Config: sum(config) + ".json", RepoTags: []string{"old:v1"}, Layers: []string{"aaaa/layer.tar", "bbbb/layer.tar", "cccc/layer.tar"},
		}})},
		member{name: "repositories", data: []byte(`{"old":{"v1":"cccc"}}`)},
	)
	loaded := must(w.Load(t.Context(), bytes.NewReader(archive), LoadOptions{}))(t)
	if len(loaded) != 1 || loaded[0].Name != "old:v1" || loaded[0].ID.Encoded() != sum(config) {
		t.Errorf("loaded %v", loaded)
	}
}

// layoutOf writes an OCI layout over images with compressed layers.
func layoutOf(annotations map[string]string, images ...*remote) []byte {
	members := []member{{name: "oci-layout", data: []byte(`{"imageLayoutVersion":"1.0.0"}`)}}
	add := func(data []byte) { members = append(members, member{name: "blobs/sha256/" + sum(data), data: data}) }
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}}
	for _, r := range images {
		add(jsonOf(r.config))
		add(r.raw)
		for _, l := range r.layers {
			add(l)
		}
		d := r.desc
		p := r.config.Platform
		d.Platform, d.Annotations = &p, annotations
		index.Manifests = append(index.Manifests, d)
	}
	if len(images) > 1 {
		index.MediaType = ocispec.MediaTypeImageIndex
		for n := range index.Manifests {
			index.Manifests[n].Annotations = nil
		}
		inner := jsonOf(index)
		add(inner)
		d := describe(ocispec.MediaTypeImageIndex, inner)
		d.Annotations = annotations
		index = ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{d}}
	}
	return archiveOf(append(members, member{name: "index.json", data: jsonOf(index)})...)
}

func TestLayoutsKeepTheirDigests(t *testing.T) {
	w := newWorld(t)
	r := newRemote(t, amd64, layer.Zstd, base, top)
	loaded := must(w.Load(t.Context(), bytes.NewReader(layoutOf(map[string]string{refName: "docker.io/library/app:v2"}, r)), LoadOptions{}))(t)
	if len(loaded) != 1 || loaded[0].Name != "app:v2" {
		t.Errorf("loaded %v", loaded)
	}
	if img := must(w.Get(t.Context(), "app:v2", nil))(t); img.Target.Digest != r.desc.Digest {
		t.Error("the manifest has another digest")
	}

	arm := newRemote(t, arm64, layer.Gzip, top)
	both := layoutOf(map[string]string{containerdName: "docker.io/library/multi:latest", refName: "latest"}, r, arm)
	must(w.Load(t.Context(), bytes.NewReader(both), LoadOptions{}))(t)
	for _, p := range []ocispec.Platform{amd64, arm64} {
		if img := must(w.Get(t.Context(), "multi", &p))(t); img.Config.Architecture != p.Architecture {
			t.Errorf("%s gave %s", p.Architecture, img.Config.Architecture)
		}
	}
	s390x := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	if _, err := newWorld(t).Load(t.Context(), bytes.NewReader(both), LoadOptions{Platform: &s390x}); !errdefs.IsNotFound(err) {
		t.Errorf("a platform that is not there: %v", err)
	}
}

func TestHostileArchivesAreRefused(t *testing.T) {
	config := configOf(base)
	item := func(config, layer string, tags ...string) []byte {
		return jsonOf([]archiveItem{{Config: config, RepoTags: tags, Layers: []string{layer}}})
	}
	name := sum(config) + ".json"
	good := []member{{name: name, data: config}, {name: "l.tar", data: base}, {name: "manifest.json", data: item(name, "l.tar", "evil:v1")}}
	with := func(more ...member) []byte { return archiveOf(append(more, good...)...) }
	other := configOf(top)
	for _, test := range []struct {
		name    string
		archive []byte
		says    string
	}{
		{"name with ..", with(member{name: "../../canary", data: []byte("x")}), "leaves the archive"},
		{"absolute name", with(member{name: "/canary", data: []byte("x")}), "absolute name"},
		{"link out of the archive", with(member{name: "x/layer.tar", kind: tar.TypeSymlink, link: "../../canary"}), "link leaves the archive"},
		{"absolute link", with(member{name: "x/layer.tar", kind: tar.TypeSymlink, link: "/etc/passwd"}), "link leaves the archive"},
		{"hard link out of the archive", with(member{name: "x/layer.tar", kind: tar.TypeLink, link: "../canary"}), "link leaves the archive"},
		{"blob that is a link", with(member{name: "blobs/sha256/" + sum(base), kind: tar.TypeSymlink, link: "../../l.tar"}), "a blob can't be a link"},
		{"fifo", with(member{name: "blobs/sha256/" + sum(base), kind: tar.TypeFifo}), "neither a file nor a directory"},
		{"device", with(member{name: "dev", kind: tar.TypeChar}), "neither a file nor a directory"},
		{"member twice", with(member{name: name, data: config}), "appears twice"},
		{"blob with another digest", with(member{name: "blobs/sha256/" + sum(top), data: base}), "content has digest"},
		{"config with another id", archiveOf(member{name: strings.Repeat("0", 64) + ".json", data: config}, good[1],
			member{name: "manifest.json", data: item(strings.Repeat("0", 64)+".json", "l.tar")}), "has digest"},
		{"config of another layer", archiveOf(member{name: "c", data: other}, good[1], member{name: "manifest.json", data: item("c", "l.tar")}), "the config says"},
		{"layer that is not there", archiveOf(good[0], member{name: "manifest.json", data: item(name, "../../etc/passwd")}), "has no layer"},
		{"config that is not there", archiveOf(good[1], member{name: "manifest.json", data: item("/etc/passwd", "l.tar")}), "has no config"},
		{"name that can't be", archiveOf(good[0], good[1], member{name: "manifest.json", data: item(name, "l.tar", "UP PER:v1")}), "parse reference"},
		{"layer that leaves the root", func() []byte {
			evil := tarOf("../../canary", "x")
			c := configOf(evil)
			return archiveOf(member{name: "c", data: c}, member{name: "l.tar", data: evil}, member{name: "manifest.json", data: item("c", "l.tar")})
		}(), "canary"},
		{"cut short", with()[:2000], "unexpected EOF"},
		{"no archive", []byte("this is not a tar, but a text that is longer than a block" + strings.Repeat(".", 512)), "not an image archive"},
		{"nothing", nil, "not an image archive"},
		{"file system", tarOf("etc/passwd", "root"), "neither manifest.json nor index.json"},
		{"no image", archiveOf(member{name: "manifest.json", data: []byte("[]")}), "names no image"},
		{"nonsense", archiveOf(member{name: "manifest.json", data: []byte("{")}), "manifest.json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			_, err := w.Load(t.Context(), bytes.NewReader(test.archive), LoadOptions{})
			if err == nil {
				t.Fatal("it was loaded")
			}
			if !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %q, want one line with %q", err, test.says)
			}
			if !errdefs.IsInvalidArgument(err) && !errdefs.IsDataLoss(err) {
				t.Errorf("error has no class: %v", err)
			}
			if refs := w.refs(); len(refs) != 0 {
				t.Errorf("names: %q", refs)
			}
			for _, d := range []digest.Digest{digest.FromBytes(base), digest.FromBytes(config)} {
				if _, err := w.Store.Stat(d); err == nil {
					t.Errorf("%s was left in the store", d)
				}
			}
		})
	}
}

func TestImportMakesAnImageOfOneLayer(t *testing.T) {
	for _, c := range []layer.Compression{layer.None, layer.Gzip, layer.Zstd} {
		w := newWorld(t)
		id := must(w.Import(t.Context(), bytes.NewReader(compressed(t, c, base)), ImportOptions{
			Name: "rootfs:v1", Message: "by hand", Platform: &arm64,
			Changes: []string{`CMD ["sh", "-c"]`, "ENV A=1 B=x", "ENV PATH=/bin:$A", "EXPOSE 80 8000-8001/udp", "WORKDIR /a", "WORKDIR b", "LABEL k=v", "USER nobody", "VOLUME /data", "ENTRYPOINT run it"},
		}))(t)
		info := must(w.Inspect(t.Context(), "rootfs:v1", nil))(t)
		if info.ID != id.String() || info.Architecture != "arm64" || info.Comment != "by hand" {
			t.Errorf("inspect: %+v", info)
		}
		if !slices.Equal(info.RootFS.Layers, []digest.Digest{digest.FromBytes(base)}) {
			t.Errorf("layers: %v", info.RootFS.Layers)
		}
		got := string(jsonOf(info.Config))
		want := `{"User":"nobody","ExposedPorts":{"80/tcp":{},"8000/udp":{},"8001/udp":{}},"Env":["A=1","B=x","PATH=/bin:1"],` +
			`"Entrypoint":["/bin/sh","-c","run it"],"Cmd":["sh","-c"],"Volumes":{"/data":{}},"WorkingDir":"/a/b","Labels":{"k":"v"}}`
		if got != want {
			t.Errorf("config is\n%s, want\n%s", got, want)
		}
	}
}

func TestImportRefusesWhatIsNoFileSystem(t *testing.T) {
	for _, test := range []struct {
		name string
		data []byte
		o    ImportOptions
	}{
		{"no tar", []byte(strings.Repeat("nonsense ", 200)), ImportOptions{}},
		{"cut short", base[:len(base)-1600], ImportOptions{}},
		{"name that leaves the root", tarOf("../x", "y"), ImportOptions{}},
		{"instruction that is none", base, ImportOptions{Changes: []string{"NONSENSE x"}}},
		{"instruction that runs", base, ImportOptions{Changes: []string{"RUN true"}}},
		{"bad reference", base, ImportOptions{Name: "library/UP"}},
	} {
		w := newWorld(t)
		_, err := w.Import(t.Context(), bytes.NewReader(test.data), test.o)
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", test.name, err)
		}
		if len(w.refs()) != 0 {
			t.Errorf("%s: left %q", test.name, w.refs())
		}
	}
}

func FuzzLoad(f *testing.F) {
	config := configOf(base)
	f.Add(archiveOf(member{name: "c", data: config}, member{name: "l.tar", data: base},
		member{name: "manifest.json", data: jsonOf([]archiveItem{{Config: "c", Layers: []string{"l.tar"}}})}))
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld(t)
		loaded, err := w.Load(t.Context(), bytes.NewReader(data), LoadOptions{})
		if (err == nil) != (len(loaded) > 0) {
			t.Errorf("loaded %v, error %v", loaded, err)
		}
		if err != nil && len(w.refs()) > 0 {
			t.Errorf("after %v there is %q", err, w.refs())
		}
		w.whole()
	})
}
