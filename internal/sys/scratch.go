//go:build linux

package sys

import (
	"fmt"
	"os"
	"runtime/debug"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Scratch is memory that lies in a file without a name ([UnnamedFile]): for
// more data than a process should hold, of which little is looked at at a time.
// What [Scratch.Trim] gives back is no memory of the process any more; it stays
// in the page cache or on the disk, and comes back when it is touched.
//
// A Scratch serves one goroutine. Who has it closes it; nothing that came from
// it may be touched after that.
type Scratch struct {
	dir  string
	file *os.File
	size int64    // bytes that were given out, each with its place on the disk
	maps [][]byte // the file, scratchMap bytes each; only size bytes may be touched
}

// scratchMap is what one mapping spans: address space, which costs nothing.
const scratchMap = 64 << 20

// NewScratch returns a Scratch whose file, which is made when the first memory
// is asked for, is on the file system of dir; "" is that of [os.TempDir].
func NewScratch(dir string) *Scratch { return &Scratch{dir: dir} }

// Alloc returns n zero values of a type without pointers, in s. They take at
// most 64 MiB.
//
// The disk space is reserved before (fallocate(2)), so that a full disk is an
// [errdefs.ErrResourceExhausted] here and not a SIGBUS later. A file system
// that can't do that is an [errdefs.ErrNotImplemented]. The caller is expected
// to do without s then.
func Alloc[T any](s *Scratch, n int) ([]T, error) {
	var zero T
	b, err := s.alloc(n * int(unsafe.Sizeof(zero)))
	if err != nil || len(b) == 0 {
		return nil, err
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n), nil
}

func (s *Scratch) alloc(n int) ([]byte, error) {
	page := os.Getpagesize()
	n = (n + page - 1) &^ (page - 1)
	if n < 0 || n > scratchMap {
		return nil, fmt.Errorf("allocate %d bytes of scratch file: %w", n, errdefs.ErrInvalidArgument)
	}
	if s.file == nil {
		f, err := UnnamedFile(s.dir)
		if err != nil {
			return nil, fmt.Errorf("make scratch file: %w", classify(errnoOf(err)))
		}
		s.file = f
	}
	at := s.size
	if rest := scratchMap - at%scratchMap; int64(n) > rest {
		at += rest
	}
	err := retry(func() error { return unix.Fallocate(int(s.file.Fd()), 0, at, int64(n)) })
	if err != nil {
		return nil, fmt.Errorf("allocate %d bytes of scratch file: %w", n, classify(err))
	}
	i := int(at / scratchMap)
	if i == len(s.maps) {
		m, err := unix.Mmap(int(s.file.Fd()), at, scratchMap, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return nil, fmt.Errorf("map scratch file: %w", classify(err))
		}
		s.maps = append(s.maps, m)
	}
	s.size = at + int64(n)
	from := int(at % scratchMap)
	return s.maps[i][from : from+n : from+n], nil
}

// Trim lets go of the memory that s has in the process. Contents stay.
func (s *Scratch) Trim() {
	for i, m := range s.maps {
		used := min(s.size-int64(i)*scratchMap, scratchMap)
		_ = unix.Madvise(m[:used], unix.MADV_DONTNEED) // else it stays: no harm
	}
}

// Guard returns a function to be deferred. It turns a fault in the memory of s
// into an error: the disk couldn't be read, or a file system that copies on
// write has no room for what it had promised. What was being done then is half
// done.
//
//	defer s.Guard()(&err)
func (s *Scratch) Guard() func(*error) {
	old := debug.SetPanicOnFault(true)
	return func(err *error) {
		debug.SetPanicOnFault(old)
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }:
			if !s.holds(r.Addr()) {
				panic(r)
			}
			*err = fmt.Errorf("access scratch file: %w", unix.EIO)
		default:
			panic(r)
		}
	}
}

func (s *Scratch) holds(addr uintptr) bool {
	for _, m := range s.maps {
		if from := uintptr(unsafe.Pointer(unsafe.SliceData(m))); addr >= from && addr-from < uintptr(len(m)) {
			return true
		}
	}
	return false
}

// Close gives back memory and disk space. It may be called more than once.
func (s *Scratch) Close() error {
	var first error
	for _, m := range s.maps {
		if err := unix.Munmap(m); first == nil && err != nil {
			first = fmt.Errorf("unmap scratch file: %w", err)
		}
	}
	s.maps, s.size = nil, 0
	if s.file != nil {
		if err := s.file.Close(); first == nil {
			first = err
		}
		s.file = nil
	}
	return first
}
