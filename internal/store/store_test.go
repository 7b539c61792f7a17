package store

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// open returns a store in a directory of its own.
func open(t testing.TB) *Store {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "store"))
}

func openAt(t testing.TB, root string) *Store {
	t.Helper()
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// lease returns a lease that ends with the test.
func lease(t testing.TB, s *Store) *Lease {
	t.Helper()
	l, err := s.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// ingest takes in data as a blob of any size.
func ingest(s *Store, l *Lease, data []byte) (digest.Digest, error) {
	in, err := s.Ingest(l)
	if err != nil {
		return "", err
	}
	defer in.Close()
	if _, err := in.Write(data); err != nil {
		return "", err
	}
	d, _, err := in.Commit(context.Background(), "", -1)
	return d, err
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// putImage puts an image whose layers are the given content and returns its
// manifest. The layers need not be tars.
func putImage(s *Store, l *Lease, layers ...[]byte) (ocispec.Descriptor, error) {
	config := ocispec.Image{RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, data := range layers {
		d, err := ingest(s, l, data)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d)
		m.Layers = append(m.Layers, describe(ocispec.MediaTypeImageLayer, data))
	}
	put := func(v any) ([]byte, error) {
		data, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		_, err = s.Put(context.Background(), l, data)
		return data, err
	}
	data, err := put(config)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	m.Config = describe(ocispec.MediaTypeImageConfig, data)
	if data, err = put(m); err != nil {
		return ocispec.Descriptor{}, err
	}
	return describe(ocispec.MediaTypeImageManifest, data), nil
}

func mustImage(t testing.TB, s *Store, l *Lease, layers ...string) ocispec.Descriptor {
	t.Helper()
	var data [][]byte
	for _, layer := range layers {
		data = append(data, []byte(layer))
	}
	desc, err := putImage(s, l, data...)
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

func TestEveryDirectoryIs0700UnderAnyUmask(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o777} {
		root := filepath.Join(t.TempDir(), "store")
		old := syscall.Umask(mask)
		s, err := Open(root)
		if err == nil {
			var l *Lease
			if l, err = s.Lease(t.Context()); err == nil {
				var desc ocispec.Descriptor
				if desc, err = putImage(s, l, []byte("layer")); err == nil {
					err = s.SetRef("localhost:5000/a/b:c", desc)
				}
				l.Close()
			}
			s.Close()
		}
		syscall.Umask(old)
		if err != nil {
			t.Fatalf("umask %03o: %v", mask, err)
		}
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				t.Fatal(err)
			}
			info, _ := d.Info()
			if d.IsDir() && info.Mode().Perm() != 0o700 || !d.IsDir() && info.Mode().Perm()&0o477 != 0o400 {
				t.Errorf("umask %03o: %s has mode %v", mask, path, info.Mode())
			}
			return nil
		})
	}
}

func TestAStoreOfANewerFormatIsRefused(t *testing.T) {
	s := open(t)
	if err := WriteFile(s.path("version"), []byte("shale store 2\n")); err != nil {
		t.Fatal(err)
	}
	_, err := Open(s.Root())
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "format 2 is newer") {
		t.Errorf("got %v", err)
	}
}

func TestADirectoryOfSomethingElseIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "thesis.tex") {
		t.Errorf("got %v", err)
	}
}

func TestAStoreThatWasInterruptedWhileItWasMadeIsFinished(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	for _, left := range [][]string{{}, {".tmp-abc"}, {"version"}, {"version", "lock", "blobs/"}} {
		os.RemoveAll(root)
		os.Mkdir(root, 0o700)
		for _, name := range left {
			if name == "blobs/" {
				os.Mkdir(filepath.Join(root, name), 0o700)
				continue
			}
			if err := os.WriteFile(filepath.Join(root, name), []byte("shale store 1\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s := openAt(t, root)
		mustImage(t, s, lease(t, s), "layer")
	}
}
