package build_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// tarOf is an archive with one file.
func tarOf(t *testing.T, name, content string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// layout is an OCI layout in the making.
type layout struct {
	*testing.T
	dir   string
	index ocispec.Index
}

func newLayout(t *testing.T) *layout {
	l := &layout{T: t, dir: t.TempDir(), index: ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}}
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(l.dir, ocispec.ImageLayoutFile), `{"imageLayoutVersion":"1.0.0"}`)
	return l
}

// path is where a blob lies.
func (l *layout) path(d digest.Digest) string {
	return filepath.Join(l.dir, "blobs", "sha256", d.Encoded())
}

func (l *layout) blob(mediaType string, data []byte) ocispec.Descriptor {
	l.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	write(l.T, l.path(d.Digest), string(data))
	return d
}

func (l *layout) json(mediaType string, v any) ocispec.Descriptor {
	l.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		l.Fatal(err)
	}
	return l.blob(mediaType, data)
}

// image adds an image with one file, /name, which has the name as its content.
func (l *layout) image(name string) ocispec.Manifest {
	l.Helper()
	content := tarOf(l.T, name, name+"\n")
	config := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   ocispec.ImageConfig{Env: []string{"FROM_LAYOUT=" + name}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(content)}},
	}
	return ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: l.json(ocispec.MediaTypeImageConfig, config),
		Layers: []ocispec.Descriptor{l.blob(ocispec.MediaTypeImageLayer, content)},
	}
}

// tag names a manifest; it says where it is.
func (l *layout) tag(name string, m ocispec.Manifest) ocispec.Descriptor {
	l.Helper()
	d := l.json(ocispec.MediaTypeImageManifest, m)
	l.add(name, d)
	return d
}

func (l *layout) add(name string, d ocispec.Descriptor) {
	l.Helper()
	d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	l.index.Manifests = append(l.index.Manifests, d)
	data, err := json.Marshal(l.index)
	if err != nil {
		l.Fatal(err)
	}
	write(l.T, filepath.Join(l.dir, ocispec.ImageIndexFile), string(data))
}

// What a layout says of itself leads to nothing that is not in it, and counts
// as far as it is checked.
func TestAHostileLayoutDoesNotLeadOut(t *testing.T) {
	host, unharmed := canary(t)
	defer unharmed()
	secret := filepath.Join(host, "file")
	for name, spoil := range map[string]func(l *layout, m ocispec.Manifest){
		"a manifest whose digest is a path": func(l *layout, _ ocispec.Manifest) {
			l.add("latest", ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.Digest("sha256:../../../" + secret), Size: 7})
		},
		"a layer whose digest is a path": func(l *layout, m ocispec.Manifest) {
			m.Layers[0].Digest = digest.Digest("sha256:../../../" + secret)
			l.tag("latest", m)
		},
		"a digest with an algorithm that is a path": func(l *layout, m ocispec.Manifest) {
			m.Layers[0].Digest = digest.Digest("../../..:" + strings.Repeat("0", 64))
			l.tag("latest", m)
		},
		"a layer that is a link to a file of the host": func(l *layout, m ocispec.Manifest) {
			l.link(m.Layers[0].Digest, secret)
			l.tag("latest", m)
		},
		"a config that is a link to a file of the host": func(l *layout, m ocispec.Manifest) {
			l.link(m.Config.Digest, secret)
			l.tag("latest", m)
		},
		"a layer that is a pipe": func(l *layout, m ocispec.Manifest) {
			l.pipe(m.Layers[0].Digest)
			l.tag("latest", m)
		},
		"a manifest that is a pipe": func(l *layout, m ocispec.Manifest) {
			l.pipe(l.tag("latest", m).Digest)
		},
		"a layer that has no end": func(l *layout, m ocispec.Manifest) {
			l.link(m.Layers[0].Digest, "/dev/zero")
			l.tag("latest", m)
		},
		"an index that has no end": func(l *layout, m ocispec.Manifest) {
			l.tag("latest", m)
			if err := os.Remove(filepath.Join(l.dir, "index.json")); err != nil {
				l.Fatal(err)
			}
			if err := os.Symlink("/dev/zero", filepath.Join(l.dir, "index.json")); err != nil {
				l.Fatal(err)
			}
		},
		"a layer of another content": func(l *layout, m ocispec.Manifest) {
			l.tag("latest", m)
			write(l.T, l.path(m.Layers[0].Digest), string(tarOf(l.T, "other", "other\n")))
		},
		"a manifest of another size than the index says": func(l *layout, m ocispec.Manifest) {
			d := l.json(ocispec.MediaTypeImageManifest, m)
			d.Size++
			l.add("latest", d)
		},
		"a layer of another size than the manifest says": func(l *layout, m ocispec.Manifest) {
			m.Layers[0].Size++
			l.tag("latest", m)
		},
		"a config that promises another layer": func(l *layout, m ocispec.Manifest) {
			m.Config = l.json(ocispec.MediaTypeImageConfig, ocispec.Image{
				Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
				RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("another")}},
			})
			l.tag("latest", m)
		},
		"an index that is too large": func(l *layout, m ocispec.Manifest) {
			l.tag("latest", m)
			write(l.T, filepath.Join(l.dir, "index.json"), strings.Repeat(" ", 8<<20)+"{}")
		},
		"indexes in indexes without end": func(l *layout, m ocispec.Manifest) {
			d := l.json(ocispec.MediaTypeImageManifest, m)
			for range 20 {
				d = l.json(ocispec.MediaTypeImageIndex, ocispec.Index{
					Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d},
				})
			}
			l.add("latest", d)
		},
		"a layer that leaves the root": func(l *layout, m ocispec.Manifest) {
			content := tarOf(l.T, "../../"+secret, "changed\n")
			m.Config = l.json(ocispec.MediaTypeImageConfig, ocispec.Image{
				Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
				RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(content)}},
			})
			m.Layers[0] = l.blob(ocispec.MediaTypeImageLayer, content)
			l.tag("latest", m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t)
			spoil(l, l.image("a"))
			b := newBench(t)
			o := b.named("FROM scratch\nCOPY --from=base / /\n", "base", "oci-layout://"+l.dir)
			if o.err == nil || strings.Contains(o.err.Error(), "canary") {
				t.Errorf("error is %v", o.err)
			}
			nowhere(t, b.Store.Root(), "canary\n")
		})
	}
}

func (l *layout) link(d digest.Digest, target string) {
	l.Helper()
	if err := os.Remove(l.path(d)); err != nil {
		l.Fatal(err)
	}
	if err := os.Symlink(target, l.path(d)); err != nil {
		l.Fatal(err)
	}
}

func (l *layout) pipe(d digest.Digest) {
	l.Helper()
	if err := os.Remove(l.path(d)); err != nil {
		l.Fatal(err)
	}
	if err := syscall.Mkfifo(l.path(d), 0o600); err != nil {
		l.Fatal(err)
	}
}
