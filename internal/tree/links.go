package tree

import "github.com/shaleproject/shale/internal/sys"

// inodeTable are numbers by those of inodes: what is known of files that may have
// more names. A file takes 16 bytes, in a table that is at most two thirds full.
// The zero value is empty.
type inodeTable struct {
	slots []inodeSlot // as many as a power of two
	used  int
	zero  *uint64 // of inode 0, which says that a slot is free
}

type inodeSlot struct{ ino, to uint64 }

// get returns the number of an inode.
func (l *inodeTable) get(ino uint64) (to uint64, ok bool) {
	if ino == 0 {
		if l.zero == nil {
			return 0, false
		}
		return *l.zero, true
	}
	if l.used == 0 {
		return 0, false
	}
	s := l.slot(ino)
	return s.to, s.ino == ino
}

// add gives a number to an inode that has none.
func (l *inodeTable) add(ino, to uint64) {
	if ino == 0 {
		l.zero = &to
		return
	}
	if 3*(l.used+1) > 2*len(l.slots) {
		old := l.slots
		l.slots = make([]inodeSlot, max(64, 2*len(old)))
		for _, s := range old {
			if s.ino != 0 {
				*l.slot(s.ino) = s
			}
		}
	}
	l.used++
	*l.slot(ino) = inodeSlot{ino, to}
}

// slot returns where an inode is, or belongs.
func (l *inodeTable) slot(ino uint64) *inodeSlot {
	mask := uint64(len(l.slots) - 1)
	for i := mix(ino, 0) & mask; ; i = (i + 1) & mask {
		if s := &l.slots[i]; s.ino == ino || s.ino == 0 {
			return s
		}
	}
}

// linkNames are the first names of files that may have more. The caller closes
// it.
type linkNames struct {
	sys.Spill
	at inodeTable
}

// first returns the name of an inode that came first. If that is this one, it is
// noted, and again is false.
func (l *linkNames) first(ino uint64, name string) (first string, again bool, err error) {
	at, ok := l.at.get(ino)
	if !ok {
		l.at.add(ino, uint64(l.Put([]byte(name)))<<nameBits|uint64(len(name)))
		return name, false, nil
	}
	text := make([]byte, at&(1<<nameBits-1))
	err = l.Read(text, int64(at>>nameBits))
	return string(text), true, err
}

// nameBits hold the length of a path. Linux has none of more than 4095 bytes, but
// a tree can: its names are of 255 bytes, and it is as deep as it likes.
const nameBits = 24
