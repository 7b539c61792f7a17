package layer

import (
	"encoding/binary"

	"github.com/shaleproject/shale/internal/sys"
)

// slab is a list that grows without copying what it has. A tree of a million
// files lives in a few of them, with numbers for pointers, so that the garbage
// collector has nothing to follow, and all but the first entries can lie in a
// file: a layer of any size takes some megabytes of memory.
type slab[T any] struct {
	chunks  [][]T
	n       uint32
	scratch *sys.Scratch
}

const (
	slabChunk = 1 << 12

	// onHeap is how many chunks of a slab are on the heap, whatever comes.
	onHeap = 16
)

func (s *slab[T]) add(v T) uint32 {
	if s.n%slabChunk == 0 {
		s.chunks = append(s.chunks, newChunk[T](s.scratch, slabChunk, len(s.chunks) < onHeap))
	}
	i := s.n
	s.n++
	*s.at(i) = v
	return i
}

// newChunk returns a chunk in scratch or, if that has no room, on the heap.
func newChunk[T any](scratch *sys.Scratch, n int, onHeap bool) []T {
	if !onHeap {
		if c, err := sys.Alloc[T](scratch, n); err == nil {
			return c
		}
	}
	return make([]T, n)
}

func (s *slab[T]) at(i uint32) *T { return &s.chunks[i/slabChunk][i%slabChunk] }

// arena keeps byte strings. A reference to one is the number of a chunk and
// the place in it; 0 is the empty string.
type arena struct {
	chunks  [][]byte
	size    int64
	scratch *sys.Scratch
}

const (
	arenaShift = 20
	arenaChunk = 1 << arenaShift
	// arenaOnHeap is how many chunks are on the heap, whatever comes.
	arenaOnHeap = 3
	// maxArena bounds names, link targets and attributes of one layer.
	maxArena = 256 << 20
)

// add returns the reference of a copy of b. It is false if the arena is full.
func (a *arena) add(b []byte) (uint32, bool) {
	if len(b) == 0 {
		return 0, true
	}
	if a.size += int64(len(b)); a.size > maxArena {
		return 0, false
	}
	need := binary.MaxVarintLen32 + len(b)
	last := len(a.chunks) - 1
	if last < 0 || cap(a.chunks[last])-len(a.chunks[last]) < need {
		size := max(need, arenaChunk)
		if last < 0 {
			size = max(need+1, 4096)
		}
		a.chunks = append(a.chunks, newChunk[byte](a.scratch, size, last+1 < arenaOnHeap)[:0])
		if last++; last == 0 {
			a.chunks[0] = append(a.chunks[0], 0)
		}
	}
	c := a.chunks[last]
	ref := uint32(last)<<arenaShift | uint32(len(c))
	c = binary.AppendUvarint(c, uint64(len(b)))
	a.chunks[last] = append(c, b...)
	return ref, true
}

func (a *arena) at(ref uint32) []byte {
	if ref == 0 {
		return nil
	}
	b := a.chunks[ref>>arenaShift][ref&(arenaChunk-1):]
	size, n := binary.Uvarint(b)
	return b[n : n+int(size)]
}
