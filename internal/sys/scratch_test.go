//go:build linux

package sys

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

type pair struct {
	a uint32
	b int64
}

// allocate skips the test where no file system can hold a Scratch.
func allocate[T any](t *testing.T, s *Scratch, n int) []T {
	t.Helper()
	list, err := Alloc[T](s, n)
	if errdefs.IsNotImplemented(err) {
		t.Skip(err)
	}
	if err != nil || len(list) != n {
		t.Fatalf("%d values of %d, %v", len(list), n, err)
	}
	return list
}

func TestScratchKeepsWhatIsTrimmed(t *testing.T) {
	dir := t.TempDir()
	s := NewScratch(dir)
	defer s.Close()
	pairs, more := allocate[pair](t, s, 1000), allocate[pair](t, s, 1000)
	one := allocate[byte](t, s, 1)
	large := allocate[byte](t, s, scratchMap/2+1) // in the same mapping
	other := allocate[byte](t, s, scratchMap)     // in one of its own
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("the file has a name: %v, %v", entries, err)
	}
	if pairs[999] != (pair{}) || more[0] != (pair{}) || one[0] != 0 || !bytes.Equal(large, make([]byte, len(large))) {
		t.Error("new memory is not zero")
	}
	for i := range pairs {
		pairs[i], more[i] = pair{uint32(i), -1}, pair{1, int64(i)}
	}
	one[0], large[len(large)-1], other[0], other[len(other)-1] = 1, 2, 3, 4
	at := &pairs[999]
	s.Trim()
	if *at != (pair{999, -1}) || pairs[0] != (pair{0, -1}) || more[0] != (pair{1, 0}) || more[999] != (pair{1, 999}) {
		t.Errorf("%v %v %v %v", *at, pairs[0], more[0], more[999])
	}
	if one[0] != 1 || large[len(large)-1] != 2 || other[0] != 3 || other[len(other)-1] != 4 {
		t.Error("bytes are lost")
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestScratchRefusesWhatNoMappingHolds(t *testing.T) {
	s := NewScratch(t.TempDir())
	defer s.Close()
	if _, err := Alloc[byte](s, scratchMap+1); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	gone := NewScratch(t.TempDir() + "/gone")
	defer gone.Close()
	if _, err := Alloc[byte](gone, 1); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
	gone.Trim()
}

// What has been given out can be written, however full the disk is.
func TestScratchOnAFullDiskIsAnError(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a small disk needs root")
	}
	dir := t.TempDir()
	err := PrivateMounts(func() error {
		err := MountAll([]Mount{{Type: "tmpfs", Source: "tmpfs", Target: dir, Data: "size=1m"}})
		if err != nil {
			return err
		}
		s := NewScratch(dir)
		defer s.Close()
		var all [][]byte
		for len(all) < 100 {
			b, aerr := Alloc[byte](s, 100_000)
			if aerr != nil {
				err = aerr
				break
			}
			all = append(all, b)
		}
		if len(all) == 0 || !errdefs.IsResourceExhausted(err) {
			t.Errorf("after %d pieces: %v", len(all), err)
		}
		for _, b := range all {
			copy(b, bytes.Repeat([]byte{1}, len(b)))
		}
		return nil
	})
	if err != nil {
		t.Skipf("no small disk here: %v", err)
	}
}

func TestScratchGuardTurnsItsFaultsIntoErrors(t *testing.T) {
	s := NewScratch(t.TempDir())
	defer s.Close()
	b := allocate[byte](t, s, 1<<20)
	if err := s.file.Truncate(0); err != nil { // as if the disk were broken
		t.Fatal(err)
	}
	touch := func(f func()) (err error) {
		defer s.Guard()(&err)
		f()
		return nil
	}
	if err := touch(func() { b[5000] = 1 }); err == nil || !strings.Contains(err.Error(), "access scratch file") {
		t.Errorf("fault: %v", err)
	}
	if err := touch(func() {}); err != nil {
		t.Error(err)
	}
	defer func() {
		if r := recover(); r == nil {
			t.Error("a panic of another kind is lost")
		}
	}()
	touch(func() { _ = make([]int, 1)[len(b)] })
}
