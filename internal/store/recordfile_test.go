package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// patterned writes size bytes that tell where they are, in pieces of that
// length.
func patterned(size, piece int) func(io.Writer) error {
	return func(w io.Writer) error {
		buf := make([]byte, piece)
		for off := 0; off < size; off += piece {
			for i := range buf {
				buf[i] = byte((off + i) * 7 >> 3)
			}
			if _, err := w.Write(buf[:min(piece, size-off)]); err != nil {
				return err
			}
		}
		return nil
	}
}

func wantPatterned(t *testing.T, r io.ReaderAt, size int) {
	t.Helper()
	buf := make([]byte, 4096)
	for off := 0; off < size; off += len(buf) {
		n, err := r.ReadAt(buf, int64(off))
		if n != min(len(buf), size-off) || err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("%d bytes at %d: %v", n, off, err)
		}
		for i, c := range buf[:n] {
			if c != byte((off+i)*7>>3) {
				t.Fatalf("byte %d is %d", off+i, c)
			}
		}
	}
	if n, err := r.ReadAt(buf, int64(size)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d bytes behind the end: %v", n, err)
	}
}

func TestARecordOfAnySizeIsTheSameAgain(t *testing.T) {
	s := open(t)
	c := s.Cache("step")
	l := lease(t, s)
	held, err := ingest(s, l, []byte("held"))
	if err != nil {
		t.Fatal(err)
	}
	key := "a key\nof \"two\" lines"
	head := digestLine + len(fmt.Sprintf(`{"key":"a key\nof \"two\" lines","holds":["%s"]}`, held)) + 1
	sizes := []int{0, 1, 1000, recordWindow, 3*recordWindow + 1}
	for d := -1; d <= 1; d++ {
		sizes = append(sizes, recordWindow-head+d, 2*recordWindow-head+d)
	}
	for _, size := range sizes {
		for _, piece := range []int{7, 4096, recordWindow - head, recordWindow, recordWindow + 1, 5 * recordWindow} {
			if err := c.PutFrom(key, []digest.Digest{held}, patterned(size, piece)); err != nil {
				t.Fatal(err)
			}
			f, err := c.Open(key)
			if err != nil {
				t.Fatalf("%d bytes in pieces of %d: %v", size, piece, err)
			}
			r, err := c.Get(key)
			if err != nil {
				t.Fatal(err)
			}
			if f.Size() != int64(size) || len(r.Data) != size || len(f.Holds) != 1 || f.Holds[0] != held || len(r.Holds) != 1 || r.Holds[0] != held {
				t.Errorf("%d bytes: %d and %d, %v and %v", size, f.Size(), len(r.Data), f.Holds, r.Holds)
			}
			wantPatterned(t, f, size)
			wantPatterned(t, bytes.NewReader(r.Data), size)
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	wantWhole(t, s)
}

func TestAnOpenRecordStaysAsItWas(t *testing.T) {
	s := open(t)
	c := s.Cache("step")
	const size = 2 * recordWindow
	for what, change := range map[string]func() error{
		"replaced": func() error { return c.Put("key", Record{Data: []byte("other")}) },
		"deleted":  func() error { return c.Delete("key") },
	} {
		if err := c.PutFrom("key", nil, patterned(size, 4096)); err != nil {
			t.Fatal(err)
		}
		f, err := c.Open("key")
		if err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Error(what, err)
		}
		wantPatterned(t, f, size)
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestARecordThatCannotBeWrittenLeavesTheOldOne(t *testing.T) {
	s := open(t)
	c := s.Cache("step")
	if err := c.Put("key", Record{Data: []byte("old")}); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 3 * recordWindow} {
		err := c.PutFrom("key", nil, func(w io.Writer) error {
			return errors.Join(patterned(size, size)(w), errdefs.ErrAborted)
		})
		if !errdefs.IsAborted(err) {
			t.Errorf("put: %v", err)
		}
	}
	if err := c.Put(strings.Repeat("k", maxRecordHead), Record{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("put under a key that is too long: %v", err)
	}
	if r, err := c.Get("key"); err != nil || string(r.Data) != "old" {
		t.Errorf("left: %q, %v", r.Data, err)
	}
	if left := listing(t, s.path(tmpDir)); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

func TestAFullDiskIsAClassOfItsOwnForRecords(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	dir, unmount := mountTmpfs(t, 1<<20, 200)
	defer unmount()
	s, err := Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Cache("step").PutFrom("key", nil, patterned(2<<20, 1000)); !errdefs.IsResourceExhausted(err) {
		t.Errorf("put: %v", err)
	}
	if err := s.Cache("step").Put("key", Record{Data: make([]byte, 2<<20)}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("put: %v", err)
	}
	if left := listing(t, s.path(tmpDir)); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// mangled returns ways to spoil the file of a record.
func mangled(file []byte) map[string][]byte {
	flip := func(at int) []byte {
		out := bytes.Clone(file)
		out[at] ^= 0x10
		return out
	}
	body, _ := json.Marshal(map[string]any{"key": "key", "data": []byte("the form of an older version")})
	other := fmt.Appendf(nil, "{\"key\":\"other\"}\ndata")
	return map[string][]byte{
		"empty": nil, "digest line": flip(10), "newline": flip(digestLine - 1), "head": flip(digestLine + 3),
		"data": flip(len(file) - 1), "middle": flip(len(file) / 2), "longer": append(bytes.Clone(file), 0),
		"short line": file[:digestLine-1], "first line only": file[:digestLine], "cut": file[:len(file)/2], "last byte": file[:len(file)-1],
		"older version": fmt.Appendf(nil, "%s\n%s", digest.FromBytes(body), body),
		"no head":       fmt.Appendf(nil, "%s\n", digest.FromBytes(nil)),
		"no JSON":       fmt.Appendf(nil, "%s\nabc\n", digest.FromString("abc\n")),
		"other key":     fmt.Appendf(nil, "%s\n%s", digest.FromBytes(other), other),
	}
}

func TestASpoiledRecordOfAnySizeIsAMissAndGoes(t *testing.T) {
	for _, size := range []int{20, 3 * recordWindow} {
		s := open(t)
		c := s.Cache("step")
		if err := c.PutFrom("key", nil, patterned(size, 4096)); err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(c.path("key"))
		if err != nil {
			t.Fatal(err)
		}
		for what, data := range mangled(file) {
			spoil := func() {
				if err := os.WriteFile(c.path("key"), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			spoil()
			if problems, err := s.Fsck(t.Context(), false); err != nil || len(problems) != 1 || !errdefs.IsDataLoss(problems[0].Err) {
				t.Errorf("%s: fsck: %v, %v", what, problems, err)
			}
			if err := c.Walk(t.Context(), func(key string, r *RecordFile) error { return errors.New(key) }); err != nil {
				t.Errorf("%s: walk: found %v", what, err)
			}
			if r := collect(t, s, CollectOptions{}); r.Records != 1 {
				t.Errorf("%s: collect: %+v", what, r)
			}
			spoil()
			if _, err := c.Open("key"); !errdefs.IsNotFound(err) {
				t.Errorf("%s: open: %v", what, err)
			}
			spoil()
			if _, err := c.Get("key"); !errdefs.IsNotFound(err) {
				t.Errorf("%s: get: %v", what, err)
			}
			wantWhole(t, s)
		}
	}
}

func TestALargeRecordIsNeverInMemory(t *testing.T) {
	s := open(t)
	c := s.Cache("step")
	l := lease(t, s)
	held, err := ingest(s, l, []byte("held"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	const size = 65 << 20
	budget := CollectOptions{CacheBudget: 1 << 40}
	for _, do := range []func(){
		func() {
			if err := c.PutFrom("key", []digest.Digest{held}, patterned(size, 1000)); err != nil {
				t.Error(err)
			}
		},
		func() { wantWhole(t, s) },
		func() {
			if u, err := s.Usage(t.Context()); err != nil || u.Cache.Size < size {
				t.Error(u, err)
			}
		},
		func() {
			found := int64(0)
			err := c.Walk(t.Context(), func(_ string, r *RecordFile) error {
				found += r.Size()
				return nil
			})
			if err != nil || found != size {
				t.Errorf("walk: %d bytes, %v", found, err)
			}
		},
		func() {
			f, err := c.Open("key")
			if err != nil {
				t.Fatal(err)
			}
			wantPatterned(t, f, size)
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		},
		func() {
			if r := collect(t, s, budget); r.Records != 0 || r.Blobs != 0 {
				t.Errorf("collect: %+v", r)
			}
		},
		func() {
			spoilAt(t, c.path("key"), size/2)
			if problems, err := s.Fsck(t.Context(), false); err != nil || len(problems) != 1 {
				t.Errorf("fsck: %v, %v", problems, err)
			}
			if r := collect(t, s, budget); r.Records != 1 || r.Blobs != 1 {
				t.Errorf("collect what is spoiled: %+v", r)
			}
		},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		do()
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
			t.Errorf("%d bytes allocated", n)
		}
	}
	wantWhole(t, s)
}

func spoilAt(t *testing.T, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{b[0] ^ 1}, off); err != nil {
		t.Fatal(err)
	}
}
