package store

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// tarOf returns a tar of regular files.
func tarOf(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, files[i+1])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// ingestLayer takes in a tar in pieces of some size.
func ingestLayer(t testing.TB, s *Store, data []byte, want digest.Digest, piece int) (digest.Digest, error) {
	t.Helper()
	in, err := s.IngestLayer(lease(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	}()
	for p := range slices.Chunk(data, piece) {
		if _, err := in.Write(p); err != nil {
			return "", err
		}
	}
	d, _, err := in.Commit(t.Context(), want)
	return d, err
}

func wantNothingLeft(t testing.TB, s *Store) {
	t.Helper()
	for _, dir := range []string{"tmp", "blobs/sha256", "index/sha256"} {
		if left := listing(t, s.path(dir)); len(left) != 0 {
			t.Errorf("left in %s: %q", dir, left)
		}
	}
}

func TestALayerIsHashedWrittenAndIndexedInOnePass(t *testing.T) {
	content := string(bytes.Repeat([]byte("0123456789"), 300_000)) // more than all buffers
	data := tarOf(t, "dir/hello", "hello", "big", content)
	for _, piece := range []int{1 << 30, 100_000, 777} {
		s := open(t)
		d, err := ingestLayer(t, s, data, "", piece)
		if err != nil || d != digest.FromBytes(data) {
			t.Fatal(d, err)
		}
		l, err := s.Layer(d)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for name, want := range map[string]string{"dir/hello": "hello", "big": content} {
			if got, err := fs.ReadFile(l, name); string(got) != want || err != nil {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
		if left := listing(t, s.path(tmpDir)); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
		wantWhole(t, s)
	}
}

func TestALayerNamedBySHA512IsKeptByThatName(t *testing.T) {
	s := open(t)
	data := tarOf(t, "hello", "hello")
	want := digest.SHA512.FromBytes(data)
	if d, err := ingestLayer(t, s, data, want, 1000); d != want || err != nil {
		t.Fatal(d, err)
	}
	l, err := s.Layer(want)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	wantWhole(t, s)
}

func TestATarThatIsNoLayerLeavesNothing(t *testing.T) {
	good := tarOf(t, "hello", "hello")
	for name, data := range map[string][]byte{
		"leaves the root": tarOf(t, "../../hello", "hello"),
		"no tar":          bytes.Repeat([]byte("x"), 3<<20),
		"truncated":       good[:700],
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			if _, err := ingestLayer(t, s, data, "", 1<<20); !errdefs.IsInvalidArgument(err) {
				t.Errorf("got %v", err)
			}
			wantNothingLeft(t, s)
		})
	}
	t.Run("another digest", func(t *testing.T) {
		s := open(t)
		if _, err := ingestLayer(t, s, good, digest.FromString("x"), 1<<20); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("got %v", err)
		}
		wantNothingLeft(t, s)
	})
	t.Run("never committed", func(t *testing.T) {
		s := open(t)
		in, err := s.IngestLayer(lease(t, s))
		if err != nil {
			t.Fatal(err)
		}
		in.Write(good)
		if err := errors.Join(in.Close(), in.Close()); err != nil {
			t.Error(err)
		}
		if _, err := in.Write(good); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("write after close: %v", err)
		}
		wantNothingLeft(t, s)
	})
}

func TestAnIndexThatIsLostOrDamagedIsMadeAgain(t *testing.T) {
	s := open(t)
	d, err := ingestLayer(t, s, tarOf(t, "hello", "hello"), "", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	path := s.derived(indexDir, d)
	right, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"lost":      func() error { return os.Remove(path) },
		"empty":     func() error { os.Remove(path); return os.WriteFile(path, nil, 0o600) },
		"truncated": func() error { os.Chmod(path, 0o600); return os.Truncate(path, int64(len(right)/2)) },
		"other":     func() error { os.Remove(path); return os.WriteFile(path, make([]byte, len(right)), 0o600) },
	} {
		for how, use := range map[string]func() error{
			"Index": func() error { _, err := s.Index(t.Context(), d); return err },
			"Layer": func() error { l, err := s.Layer(d); return errors.Join(err, l.Close()) },
		} {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			if err := use(); err != nil {
				t.Errorf("%s, %s: %v", name, how, err)
			}
			if got, err := os.ReadFile(path); !bytes.Equal(got, right) || err != nil {
				t.Errorf("%s, %s: index differs (%v)", name, how, err)
			}
		}
	}
	wantWhole(t, s)
	for i := len(right) - 1; i >= 1024; i -= 511 {
		bad := bytes.Clone(right)
		bad[i] ^= 1
		os.Remove(path)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if problems, err := s.Fsck(t.Context(), true); err != nil || len(problems) == 0 || !errdefs.IsDataLoss(problems[0].Err) {
			t.Errorf("bit of byte %d: %v, %v", i, problems, err)
		}
	}
}

func TestATruncatedLayerIsFoundBeforeItIsUsed(t *testing.T) {
	s := open(t)
	d, err := ingestLayer(t, s, tarOf(t, "hello", "hello"), "", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(s.Path(d), 0o600), os.Truncate(s.Path(d), 512)); err != nil {
		t.Fatal(err)
	}
	if problems, err := s.Fsck(t.Context(), false); err != nil || len(problems) != 1 || !errdefs.IsDataLoss(problems[0].Err) {
		t.Errorf("fsck: %v, %v", problems, err)
	}
	if _, err := s.Index(t.Context(), d); !errdefs.IsDataLoss(err) {
		t.Errorf("index: %v", err)
	}
	if _, err := s.Layer(d); !errdefs.IsDataLoss(err) {
		t.Errorf("layer: %v", err)
	}
}

func TestNoIndexIsMadeOfContentThatTheDiskHasChanged(t *testing.T) {
	s := open(t)
	d, err := ingestLayer(t, s, tarOf(t, "hello", "hello"), "", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(s.derived(indexDir, d))
	spoil(t, s.Path(d))
	if _, err := s.Index(t.Context(), d); !errdefs.IsDataLoss(err) {
		t.Errorf("got %v", err)
	}
	if left := append(listing(t, s.path(tmpDir)), listing(t, s.path(indexDir, "sha256"))...); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	// Whoever brings the content again mends it.
	if _, err := ingestLayer(t, s, tarOf(t, "hello", "hello"), d, 1<<20); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, s)
}

func BenchmarkIngestLayer(b *testing.B) {
	s := open(b)
	var files []string
	for i := range 64 {
		files = append(files, fmt.Sprintf("file%d", i), string(bytes.Repeat([]byte{byte(i)}, 2<<20)))
	}
	data := tarOf(b, files...)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		in, err := s.IngestLayer(lease(b, s))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(in, struct{ io.Reader }{bytes.NewReader(data)}); err != nil {
			b.Fatal(err)
		}
		if _, _, err := in.Commit(b.Context(), ""); err != nil {
			b.Fatal(err)
		}
		in.Close()
	}
}

func BenchmarkIngestBlob(b *testing.B) {
	s := open(b)
	data := bytes.Repeat([]byte("x"), 128<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := ingest(s, lease(b, s), data); err != nil {
			b.Fatal(err)
		}
	}
}
