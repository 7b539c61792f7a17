package cache

import (
	"io"

	"github.com/shaleproject/shale/internal/sys"
	"github.com/shaleproject/shale/internal/tree"
)

// The format: for each file a uvarint length, the key, and the 32 bytes of
// the SHA-256. docs/format/build.md. A length other than that of a key is none
// of ours.

const statEntrySize = 1 + len(tree.StatKey{}) + len(tree.Sum{})

func appendEntry(out []byte, key tree.StatKey, sum tree.Sum) []byte {
	out = append(out, byte(len(key)))
	out = append(out, key[:]...)
	return append(out, sum[:]...)
}

func keyOf(entry []byte) tree.StatKey { return tree.StatKey(entry[1:]) }

func sumOf(entry []byte) tree.Sum { return tree.Sum(entry[1+len(tree.StatKey{}):]) }

// pageEntries is how many entries are read at once: 16 KB. A build asks for
// them nearly in the order in which they were saved, so that bigger pages
// would save little, and cost those that it asks for in another order.
const pageEntries = 224

// statPages are entries in a file. It remembers pages that it has read, so
// that walks through several parts of a directory don't disturb each other.
type statPages struct {
	from io.ReaderAt
	n    int // how many entries there are

	pages [16]struct {
		number int // plus one
		data   []byte
	}
}

// entry returns the bytes of an entry, which are good until the next call; nil
// if they can't be read.
func (p *statPages) entry(i int) []byte {
	number, off := i/pageEntries, i%pageEntries*statEntrySize
	page := &p.pages[number%len(p.pages)]
	if page.number != number+1 {
		size := min(pageEntries, p.n-number*pageEntries) * statEntrySize
		if cap(page.data) < size {
			page.data = make([]byte, size)
		}
		page.number, page.data = number+1, page.data[:size]
		if n, _ := p.from.ReadAt(page.data, int64(number)*pageEntries*int64(statEntrySize)); n < size {
			page.number = 0
			return nil
		}
	}
	return page.data[off:][:statEntrySize]
}

// statTail is entries that come one by one.
type statTail struct {
	sys.Spill
	n   int
	buf [statEntrySize]byte
}

// entry is [statPages.entry].
func (t *statTail) entry(i int) []byte {
	if err := t.Read(t.buf[:], int64(i)*int64(statEntrySize)); err != nil {
		return nil
	}
	return t.buf[:]
}

func (t *statTail) add(key tree.StatKey, sum tree.Sum) {
	t.Put(appendEntry(t.buf[:0], key, sum))
	t.n++
}
