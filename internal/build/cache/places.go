package cache

// places is a hash table of numbers, the places of entries whose keys are kept
// elsewhere. It takes 6 bytes for each that it has room for.
//
// A slot is 0, or the place plus one with some bits of the hash above it, so
// that a key is hardly ever read in vain.
type places struct {
	slots []uint32
	n     int
}

const (
	placeBits = 23
	placeMask = 1<<placeBits - 1

	// maxPlaces is how many places there can be.
	maxPlaces = placeMask
)

// newPlaces returns an empty table with room for n places, and for some in any
// case.
func newPlaces(n int) places {
	return places{slots: make([]uint32, max(64, n+n/2))}
}

// full reports whether p has no room for one more.
func (p *places) full() bool { return p.n >= len(p.slots)/3*2 }

// find returns the slot of the first place of that hash for which is returns
// true. If there is none, ok is false and a place can be put into the slot.
func (p *places) find(hash uint64, is func(place int) bool) (slot int, ok bool) {
	// The upper half of the hash says where to begin, the lower which bits.
	slot = int(hash >> 32 * uint64(len(p.slots)) >> 32)
	for p.slots[slot] != 0 {
		if p.slots[slot]&^placeMask == uint32(hash)<<placeBits && is(p.place(slot)) {
			return slot, true
		}
		if slot++; slot == len(p.slots) {
			slot = 0
		}
	}
	return slot, false
}

// place returns the place in a slot that is not empty.
func (p *places) place(slot int) int { return int(p.slots[slot]&placeMask) - 1 }

// put sets the place in a slot that find has returned for hash.
func (p *places) put(slot int, hash uint64, place int) {
	if p.slots[slot] == 0 {
		p.n++
	}
	p.slots[slot] = uint32(hash)<<placeBits | uint32(place+1)
}
