package layer

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
)

// slab is a list that grows without copying what it has. A tree of a million
// files lives in a few of them, with numbers for pointers, so that a file
// costs some 100 bytes and the garbage collector has nothing to follow.
type slab[T any] struct {
	chunks [][]T
	n      uint32
}

const slabChunk = 1 << 12

func (s *slab[T]) add(v T) uint32 {
	if s.n%slabChunk == 0 {
		s.chunks = append(s.chunks, make([]T, slabChunk))
	}
	i := s.n
	s.n++
	*s.at(i) = v
	return i
}

func (s *slab[T]) at(i uint32) *T { return &s.chunks[i/slabChunk][i%slabChunk] }

// arena keeps byte strings. A reference to one is the number of a chunk and
// the place in it; 0 is the empty string.
type arena struct {
	chunks [][]byte
	size   int64
}

const (
	arenaShift = 20
	arenaChunk = 1 << arenaShift
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
		a.chunks = append(a.chunks, make([]byte, 0, size))
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

// names finds a node by its parent and its name.
type names struct {
	seed  maphash.Seed
	slots []uint32 // numbers of nodes, 0 is free; the length is a power of two
	used  int
}

func (h *names) hash(parent uint32, name []byte) uint64 {
	return maphash.Bytes(h.seed, name) ^ uint64(parent)*0x9e3779b97f4a7c15
}

// slot returns where the node is, or the free place where it belongs.
func (h *names) slot(t *treeBuilder, parent uint32, name []byte) *uint32 {
	mask := uint64(len(h.slots) - 1)
	x := h.hash(parent, name)
	for i := (x ^ x>>32) & mask; ; i = (i + 1) & mask {
		id := h.slots[i]
		if id == 0 {
			return &h.slots[i]
		}
		if n := t.nodes.at(id); n.parent == parent && bytes.Equal(t.text.at(n.name), name) {
			return &h.slots[i]
		}
	}
}

// grow keeps at least a third of the places free.
func (h *names) grow(t *treeBuilder) {
	if len(h.slots) == 0 {
		h.seed, h.slots = maphash.MakeSeed(), make([]uint32, 1024)
	}
	if h.used*3 < len(h.slots)*2 {
		return
	}
	old := h.slots
	h.slots = make([]uint32, 2*len(old))
	for _, id := range old {
		if id != 0 {
			n := t.nodes.at(id)
			*h.slot(t, n.parent, t.text.at(n.name)) = id
		}
	}
}
