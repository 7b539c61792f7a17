package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

func TestContentComesBackByItsDigest(t *testing.T) {
	s := open(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // beyond one step of writeback
	in, err := s.Ingest(lease(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := io.Copy(in, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	d, n, err := in.Commit(t.Context(), digest.FromBytes(data), int64(len(data)))
	if err != nil || n != int64(len(data)) {
		t.Fatal(n, err)
	}
	b, err := s.Blob(d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) || b.Size() != n {
		t.Errorf("read %d bytes of %d: %v", len(got), n, err)
	}
	if left := listing(t, s.path(tmpDir)); len(left) != 0 {
		t.Errorf("left in tmp: %q", left)
	}
}

func TestContentThatIsNotWhatWasWantedLeavesNothing(t *testing.T) {
	right := digest.FromString("hello")
	for _, c := range []struct {
		name string
		want digest.Digest
		size int64
		is   func(error) bool
	}{
		{"another digest", digest.FromString("other"), -1, errdefs.IsFailedPrecondition},
		{"another sha512", digest.SHA512.FromString("other"), -1, errdefs.IsFailedPrecondition},
		{"too short", right, 6, errdefs.IsFailedPrecondition},
		{"too long", right, 4, errdefs.IsFailedPrecondition},
		{"unknown algorithm", "md5:5d41402abc4b2a76b9719d911017c592", -1, errdefs.IsInvalidArgument},
		{"a path", "sha256:../../version", -1, errdefs.IsInvalidArgument},
		{"upper case", digest.Digest(strings.ToUpper(string(right))), -1, errdefs.IsInvalidArgument},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			in, err := s.Ingest(lease(t, s))
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(in, "hello")
			if _, _, err := in.Commit(t.Context(), c.want, c.size); !c.is(err) {
				t.Errorf("got %v", err)
			}
			if err := in.Close(); err != nil {
				t.Error(err)
			}
			if got := append(listing(t, s.path(tmpDir)), listing(t, s.path(blobsDir, "sha256"))...); len(got) != 0 {
				t.Errorf("left: %q", got)
			}
		})
	}
}

func TestContentNamedBySHA512IsKeptByThatName(t *testing.T) {
	s := open(t)
	in, err := s.Ingest(lease(t, s))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(in, "hello")
	want := digest.SHA512.FromString("hello")
	if d, _, err := in.Commit(t.Context(), want, 5); d != want || err != nil {
		t.Fatal(d, err)
	}
	if data, err := s.Read(want); string(data) != "hello" || err != nil {
		t.Errorf("read %q, %v", data, err)
	}
}

func TestAnIngestThatIsOverRefusesMore(t *testing.T) {
	s := open(t)
	in, err := s.Ingest(lease(t, s))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := in.Commit(t.Context(), "", -1); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("x")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("write: %v", err)
	}
	if _, _, err := in.Commit(t.Context(), "", -1); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("commit: %v", err)
	}
	if err := errors.Join(in.Close(), in.Close()); err != nil {
		t.Error(err)
	}
}

func TestReadNoticesADocumentThatTheDiskHasChanged(t *testing.T) {
	s := open(t)
	l := lease(t, s)
	d, err := s.Put(t.Context(), l, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	spoil(t, s.Path(d))
	if _, err := s.Read(d); !errdefs.IsDataLoss(err) {
		t.Errorf("read of a spoiled document: %v", err)
	}
	if _, err := s.Put(t.Context(), l, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(d); err != nil {
		t.Errorf("put has not mended it: %v", err)
	}
}

func TestAbsentContentIsNotFound(t *testing.T) {
	s := open(t)
	d := digest.FromString("absent")
	_, statErr := s.Stat(d)
	_, blobErr := s.Blob(d)
	_, readErr := s.Read(d)
	_, indexErr := s.Index(t.Context(), d)
	_, layerErr := s.Layer(d)
	for _, err := range []error{statErr, blobErr, readErr, indexErr, layerErr, lease(t, s).Hold(d)} {
		if !errdefs.IsNotFound(err) {
			t.Errorf("got %v", err)
		}
	}
}

// spoil flips one bit of the last byte of a file.
func spoil(t testing.TB, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// listing returns the names in a directory.
func listing(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
