package layer

import (
	"io"
	"sync/atomic"
)

// pages reads an index. It keeps what was read, because every name begins at
// the root; an index is small against its layer, and what it keeps is bounded.
type pages struct {
	r     io.ReaderAt
	size  int64
	kept  atomic.Int64
	cache []atomic.Pointer[[]byte]
}

const (
	pageShift = 15
	maxPages  = 1024 // 32 MiB
)

func newPages(r io.ReaderAt, size int64) *pages {
	size = max(size, 0)
	return &pages{r: r, size: size, cache: make([]atomic.Pointer[[]byte], min(size>>pageShift+1, 1<<16))}
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
	if (off+n-1)>>pageShift == first && first < int64(len(p.cache)) {
		page, err := p.page(first)
		if err != nil {
			return nil, err
		}
		at := off - first<<pageShift
		return page[at : at+n : at+n], nil
	}
	b := make([]byte, n)
	return b, p.fill(b, off)
}

func (p *pages) page(i int64) ([]byte, error) {
	if b := p.cache[i].Load(); b != nil {
		return *b, nil
	}
	off := i << pageShift
	b := make([]byte, min(1<<pageShift, p.size-off))
	if err := p.fill(b, off); err != nil {
		return nil, err
	}
	if p.kept.Add(1) <= maxPages {
		p.cache[i].Store(&b)
	}
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
