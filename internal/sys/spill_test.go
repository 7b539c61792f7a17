//go:build linux

package sys

import (
	"bytes"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"testing"
)

// fillSpill puts pieces of all sizes, some megabytes in all.
func fillSpill(t *testing.T, s *Spill) (whole []byte) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	for len(whole) < 3*(spillHead+spillTail) {
		piece := make([]byte, random.IntN(3000))
		for i := range piece {
			piece[i] = byte(random.Uint32())
		}
		if at := s.Put(piece); at != int64(len(whole)) {
			t.Fatal("a piece is not behind those before it")
		}
		whole = append(whole, piece...)
		if len(whole)%7 == 0 { // pages are read while they grow
			last := whole[max(0, len(whole)-100):]
			if s.Read(make([]byte, len(last)), int64(len(whole)-len(last))) != nil {
				t.Fatal("what was put last can't be read")
			}
		}
	}
	return whole
}

func checkSpill(t *testing.T, s *Spill, whole []byte) {
	t.Helper()
	random := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		at := random.IntN(len(whole))
		got := make([]byte, min(random.IntN(50_000), len(whole)-at))
		if err := s.Read(got, int64(at)); err != nil || !bytes.Equal(got, whole[at:at+len(got)]) {
			t.Errorf("%d bytes at %d: %v", len(got), at, err)
			return
		}
	}
	for _, beyond := range []int{len(whole), len(whole) + 5} {
		if s.Read(make([]byte, 1), int64(beyond)) == nil {
			t.Errorf("byte %d of %d is read", beyond, len(whole))
		}
	}
}

func TestSpillReadsMemoryAndFileAlike(t *testing.T) {
	s := &Spill{Dir: t.TempDir()}
	whole := fillSpill(t, s)
	if s.file == nil || len(s.head) == 0 || len(s.tail) == 0 || len(s.head)+len(s.tail) >= len(whole) {
		t.Fatalf("%d bytes in memory, %d to be written: too few for a test", len(s.head), len(s.tail))
	}
	if left, err := os.ReadDir(s.Dir); err != nil || len(left) > 0 {
		t.Errorf("the file has a name: %v, %v", left, err)
	}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() { checkSpill(t, s, whole) })
	}
	readers.Wait()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if s.Read(make([]byte, 1), int64(len(s.head))) == nil {
		t.Error("a closed file is read")
	}
}

func TestSpillKeepsInMemoryWhatTheDiskDoesNotTake(t *testing.T) {
	nowhere := &Spill{Dir: t.TempDir() + "/missing"}
	checkSpill(t, nowhere, fillSpill(t, nowhere))
	if os.Getuid() != 0 {
		t.Skip("a small file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("shale-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, 0)
	s := &Spill{Dir: dir}
	defer s.Close()
	whole := fillSpill(t, s)
	if !s.full || s.size <= int64(len(s.head)) {
		t.Fatalf("full: %v, %d bytes written", s.full, s.size-int64(len(s.head)))
	}
	checkSpill(t, s, whole)
}
