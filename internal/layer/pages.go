package layer

import (
	"io"
	"sync/atomic"
)

// pages reads an index. It keeps the pages that were read last, because every
// name begins at the root.
type pages struct {
	r    io.ReaderAt
	size int64
	kept []pageSet // each page is in the one that its number has modulo the length
}

// pageSet has a few places, so that pages which are needed in turn, such as that
// of the root and one further on, do not drive each other out.
type pageSet struct {
	pages [4]atomic.Pointer[page]
	next  atomic.Uint32 // the place for the next one
}

// page is a part of an index.
type page struct {
	i    int64 // its number
	data []byte
}

const (
	pageShift = 14
	maxPages  = 512 // 8 MiB
)

func newPages(r io.ReaderAt, size int64) *pages {
	size = max(size, 0)
	return &pages{r: r, size: size, kept: make([]pageSet, min(size>>pageShift+1, maxPages/4))}
}

// read returns n bytes, which must not be changed.
func (p *pages) read(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > p.size-n {
		return nil, corrupt("%d bytes at %d, of %d", n, off, p.size)
	}
	if n == 0 {
		return nil, nil
	}
	first := off >> pageShift
	if (off+n-1)>>pageShift == first {
		data, err := p.page(first)
		if err != nil {
			return nil, err
		}
		at := off - first<<pageShift
		return data[at : at+n : at+n], nil
	}
	b := make([]byte, n)
	return b, p.fill(b, off)
}

// page returns page number i.
func (p *pages) page(i int64) ([]byte, error) {
	set := &p.kept[i%int64(len(p.kept))]
	for k := range set.pages {
		if have := set.pages[k].Load(); have != nil && have.i == i {
			return have.data, nil
		}
	}
	off := i << pageShift
	b := make([]byte, min(1<<pageShift, p.size-off))
	if err := p.fill(b, off); err != nil {
		return nil, err
	}
	set.pages[set.next.Add(1)%uint32(len(set.pages))].Store(&page{i, b})
	return b, nil
}

func (p *pages) fill(b []byte, off int64) error {
	n, err := p.r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == io.EOF {
		err = corrupt("ends at %d, not %d", off+int64(n), p.size)
	}
	return err
}
