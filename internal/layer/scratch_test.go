package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/sys"
)

// large has more members than a tree keeps on the heap. Their order is the
// canonical one, but for the last members with a mess.
func large(t testing.TB, mess bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	put := func(h tar.Header) {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	const n = (onHeap + 8) * slabChunk
	for i := range n {
		if i%100 == 0 {
			put(tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("%04d", i/100), Mode: 0o755})
		}
		put(tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%04d/%s%06d", i/100, strings.Repeat("n", 60), i), Mode: 0o644})
	}
	for i := 0; mess && i < n; i += 50 {
		put(tar.Header{Typeflag: tar.TypeLink, Name: fmt.Sprintf("again/%d", i%9973), Linkname: fmt.Sprintf("%04d/%s%06d", i/100, strings.Repeat("n", 60), i)})
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// indexIn returns the index that an Indexer with a file in tmp makes.
func indexIn(t testing.TB, tmp string, data []byte) []byte {
	t.Helper()
	x := NewIndexer(tmp)
	defer x.Close()
	if _, err := x.Write(data); err != nil {
		t.Fatal(err)
	}
	var out growing
	if _, err := x.Finish(&out); err != nil {
		t.Fatal(err)
	}
	return out.b
}

func TestTreeInAFileHasTheSameIndex(t *testing.T) {
	for _, mess := range []bool{false, true} {
		data := large(t, mess)
		onHeap := indexIn(t, filepath.Join(t.TempDir(), "gone"), data)
		if !bytes.Equal(indexIn(t, t.TempDir(), data), onHeap) {
			t.Errorf("mess %t: the index differs from that of a tree on the heap", mess)
		}
	}
}

func TestTreeIsOnTheHeapWhereTheDiskIsFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a small disk needs root")
	}
	data := large(t, true)
	want := indexIn(t, t.TempDir(), data)
	dir := t.TempDir()
	err := sys.PrivateMounts(func() error {
		err := sys.MountAll([]sys.Mount{{Type: "tmpfs", Source: "tmpfs", Target: dir, Data: "size=1m"}})
		if err == nil && !bytes.Equal(indexIn(t, dir, data), want) {
			t.Error("the index differs from that of a tree in a file")
		}
		return err
	})
	if err != nil {
		t.Skipf("no small disk here: %v", err)
	}
}

// needScratch skips a test where no memory can lie in a file.
func needScratch(t *testing.T, dir string) {
	t.Helper()
	s := sys.NewScratch(dir)
	defer s.Close()
	if _, err := sys.Alloc[byte](s, 1); errdefs.IsNotImplemented(err) {
		t.Skip(err)
	}
}

// A disk that can't be read any more ends in an error, and only there.
func TestBrokenDiskUnderATreeIsAnError(t *testing.T) {
	for _, finish := range []bool{false, true} {
		dir := t.TempDir()
		needScratch(t, dir)
		x := NewIndexer(dir)
		defer x.Close()
		data := large(t, false)
		data = data[:len(data)-2*recordSize]
		if _, err := x.Write(data); err != nil {
			t.Fatal(err)
		}
		truncateUnnamed(t, dir)
		var err error
		if finish {
			_, err = x.Finish(discard{})
		} else {
			_, err = x.Write(data)
		}
		if err == nil || !strings.Contains(err.Error(), "access scratch file") {
			t.Errorf("finish %t: %v", finish, err)
		}
		if _, err := x.Finish(discard{}); err == nil {
			t.Error("finish again: no error")
		}
		if _, err := x.Write(data); err == nil {
			t.Error("write after it: no error")
		}
	}
}

// truncateUnnamed cuts off the file without a name that this process has in
// dir.
func truncateUnnamed(t *testing.T, dir string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, fd := range fds {
		link := filepath.Join("/proc/self/fd", fd.Name())
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, dir+"/") {
			if err := os.Truncate(link, 0); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("there is no such file")
}

// An index is small against its layer, on disk as in memory, where little of
// it is.
func TestMemoryPerMemberIsBounded(t *testing.T) {
	const n = 400_000
	needScratch(t, t.TempDir())
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	x := NewIndexer(t.TempDir())
	defer x.Close()
	for i := range n {
		head, err := (&file{name: fmt.Sprintf("some/directory-%04d/file-%06d", i/100, i), kind: tar.TypeReg}).encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.Write(head); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("%d bytes for %d members", grown, n)
	}
	runtime.KeepAlive(x)
}
