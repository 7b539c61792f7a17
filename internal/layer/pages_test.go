package layer

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// countedReader counts what is read.
type countedReader struct {
	io.ReaderAt
	bytes atomic.Int64
}

func (c *countedReader) ReadAt(p []byte, off int64) (int, error) {
	c.bytes.Add(int64(len(p)))
	return c.ReaderAt.ReadAt(p, off)
}

func TestAWalkReadsALargeIndexOnce(t *testing.T) {
	data := make([]byte, 5*maxPages<<pageShift+100)
	r := &countedReader{ReaderAt: bytes.NewReader(data)}
	p := newPages(r, int64(len(data)))
	for off := int64(0); off < int64(len(data)); off += 64 {
		for _, at := range []int64{0, off} { // every name begins at the root
			if _, err := p.read(at, min(64, int64(len(data))-at)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if read := r.bytes.Load(); read > int64(len(data))*3/2 {
		t.Errorf("%d bytes read of %d", read, len(data))
	}
	kept := 0
	for i := range p.kept {
		for k := range p.kept[i].pages {
			if have := p.kept[i].pages[k].Load(); have != nil {
				kept += len(have.data)
			}
		}
	}
	if kept > maxPages<<pageShift {
		t.Errorf("%d bytes kept", kept)
	}
}

func TestPagesAreTheIndexForSeveralReaders(t *testing.T) {
	data := make([]byte, 3*maxPages<<pageShift+7)
	random := rand.New(rand.NewPCG(1, 2))
	for i := 0; i < len(data); i += 512 {
		data[i] = byte(random.Uint32())
	}
	p := newPages(bytes.NewReader(data), int64(len(data)))
	var readers sync.WaitGroup
	for n := range uint64(4) {
		readers.Go(func() {
			random := rand.New(rand.NewPCG(n, 3))
			for range 20_000 {
				off := random.Int64N(int64(len(data)))
				n := min(random.Int64N(40<<10), int64(len(data))-off)
				got, err := p.read(off, n)
				if err != nil || !bytes.Equal(got, data[off:off+n]) {
					t.Errorf("%d bytes at %d: %v", n, off, err)
					return
				}
			}
		})
	}
	readers.Wait()
	for _, bad := range [][2]int64{{-1, 1}, {0, -1}, {int64(len(data)), 1}, {0, int64(len(data)) + 1}} {
		if _, err := p.read(bad[0], bad[1]); err == nil {
			t.Errorf("%v is read", bad)
		}
	}
}
