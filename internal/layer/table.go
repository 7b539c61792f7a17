package layer

import (
	"bytes"
	"hash/maphash"
)

// near is how many of the newest names of a directory are looked at before the
// table of names is made.
const near = 32

// find returns the node of a name in a directory, 0 if there is none, and the
// place of the name in the table of names, nil as long as there is no table.
//
// A tar in canonical order needs none: while each name that came was greater
// than those before it in its directory, the newest comes first in the list of
// children, and what is greater than that is new. The table is made when a
// name is to be added that isn't, which is disorder, or when one is sought that
// is far from the newest.
func (t *treeBuilder) find(parent uint32, name []byte, adding bool) (id uint32, slot *uint32) {
	if !t.names.made() {
		if id, ok := t.newest(parent, name, adding); ok {
			return id, nil
		}
		t.names.make(t)
	}
	slot = t.names.slot(t, parent, name)
	if id = *slot & maxID; id == 0 && adding && !t.disorder {
		_, last := t.newest(parent, name, true)
		t.disorder = !last
	}
	return id, slot
}

// newest looks for a name among the newest of a directory whose children are
// in descending order. It is not ok if it can't tell whether there is one, or,
// with adding, if the name is none of them and may not become the first.
func (t *treeBuilder) newest(parent uint32, name []byte, adding bool) (id uint32, ok bool) {
	id = t.nodes.at(parent).child
	for i := range near {
		if id == 0 {
			return 0, i == 0 || !adding
		}
		n := t.nodes.at(id)
		switch c := bytes.Compare(name, t.text.at(n.name)); {
		case c > 0:
			return 0, i == 0 || !adding
		case c == 0 && !n.dead: // who has the name follows the dead
			return id, true
		}
		id = n.next
	}
	return 0, false
}

// names finds a node by its parent and its name. It consists of small tables,
// so that growing needs little memory.
type names struct {
	seed   maphash.Seed
	shards []shard // by the lowest bits of the hash; none until the table is made
}

// shard is a table with open addressing. A slot is the number of a node, and
// above it the highest bits of the hash, which spare most looks at other names.
type shard struct {
	slots []uint32 // 0 is free; the length is a power of two
	used  int
}

const (
	shardBits = 6
	maxID     = maxNodes - 1 // the bits of a slot that hold a number
)

func (h *names) made() bool { return h.shards != nil }

// make takes in all nodes.
func (h *names) make(t *treeBuilder) {
	h.seed, h.shards = maphash.MakeSeed(), make([]shard, 1<<shardBits)
	size := 64
	for size < int(t.nodes.n)>>shardBits*2 {
		size *= 2
	}
	for i := range h.shards {
		h.shards[i].slots = make([]uint32, size)
	}
	for id := uint32(1); id < t.nodes.n; id++ {
		if n := t.nodes.at(id); !n.dead {
			name := t.text.at(n.name)
			h.fill(h.slot(t, n.parent, name), n.parent, name, id)
		}
	}
}

func (h *names) hash(parent uint32, name []byte) uint64 {
	x := maphash.Bytes(h.seed, name) ^ uint64(parent)*0x9e3779b97f4a7c15
	return x ^ x>>32
}

// tag is what a slot holds of a hash.
func tag(hash uint64) uint32 { return uint32(hash>>32) &^ maxID }

// slot returns where the node is, or the free place where it belongs.
func (h *names) slot(t *treeBuilder, parent uint32, name []byte) *uint32 {
	x := h.hash(parent, name)
	s := &h.shards[x&(1<<shardBits-1)]
	if s.used*3 >= len(s.slots)*2 {
		h.grow(t, s)
	}
	return s.slot(t, x, parent, name)
}

func (s *shard) slot(t *treeBuilder, x uint64, parent uint32, name []byte) *uint32 {
	mask := uint64(len(s.slots) - 1)
	for i := x >> shardBits & mask; ; i = (i + 1) & mask {
		id := s.slots[i]
		if id == 0 {
			return &s.slots[i]
		}
		if id&^maxID != tag(x) {
			continue
		}
		if n := t.nodes.at(id & maxID); n.parent == parent && bytes.Equal(t.text.at(n.name), name) {
			return &s.slots[i]
		}
	}
}

// fill puts a node into the free place that slot has returned.
func (h *names) fill(slot *uint32, parent uint32, name []byte, id uint32) {
	x := h.hash(parent, name)
	*slot = tag(x) | id
	h.shards[x&(1<<shardBits-1)].used++
}

// replace gives the place of a node to another with the same name.
func (h *names) replace(t *treeBuilder, old, id uint32) {
	if !h.made() {
		return
	}
	n := t.nodes.at(old)
	slot := h.slot(t, n.parent, t.text.at(n.name))
	*slot = *slot&^maxID | id
}

// grow keeps at least a third of the places free.
func (h *names) grow(t *treeBuilder, s *shard) {
	old := s.slots
	s.slots = make([]uint32, 2*len(old))
	for _, id := range old {
		if id != 0 {
			n := t.nodes.at(id & maxID)
			name := t.text.at(n.name)
			x := h.hash(n.parent, name)
			*s.slot(t, x, n.parent, name) = id
		}
	}
}
