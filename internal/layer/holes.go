package layer

import (
	"fmt"
	"math/bits"
)

// A sparse file is cut into chunks of equal size. Each is a hole, or lies in
// one piece in the tar, or else has its bytes copied into the index.
type sparseMap struct {
	shift uint       // of the size of a chunk
	runs  []chunkRun // from the first chunk to the last

	segments []segment // of the tar, for the copy
	at       int       // the segment whose content comes next …
	done     int64     // … and how much of it has come
	run      int       // the run that it falls into …
	first    int64     // … and the first chunk of that
	copied   int64     // chunks that the index keeps
	spool    int64     // where they begin in the spool
}

// chunkRun is a number of chunks that follow each other in one place.
type chunkRun struct {
	n     int64
	where place
	start int64 // byte of the tar, or of the chunks that the index keeps
}

type place int

const (
	nothing place = iota
	inTar
	inIndex
)

const (
	// maxChunks bounds the chunks of one file: 8 MiB of index.
	maxChunks = 1 << 20
	// maxCopied bounds the chunks of one file that the index keeps. Each may
	// cost a page on disk for one byte in the tar.
	maxCopied = 1 << 18
	// maxShift is the largest chunk that EROFS knows: 512 bytes << 31.
	maxShift = blockShift + 31
)

// newSparseMap decides about the chunks of m. Chunks are as large as the
// boundaries between data and holes allow, or larger if there were too many.
func newSparseMap(m *member) (*sparseMap, error) {
	s := &sparseMap{segments: m.sparse}
	var all, stored int64
	for _, seg := range m.sparse {
		all |= seg.off | (m.offset+stored-seg.off)&(blockSize-1)
		if end := seg.off + seg.size; end < m.size {
			all |= end
		}
		stored += seg.size
	}
	s.shift = uint(min(bits.TrailingZeros64(uint64(all)), maxShift))
	if s.shift < blockShift {
		s.shift = 12 // such a file is copied, page by page
	}
	for s.shift < maxShift && (m.size-1)>>s.shift >= maxChunks {
		s.shift++
	}
	if m.size > 0 && (m.size-1)>>s.shift >= maxChunks {
		return nil, fmt.Errorf("sparse file of %d bytes", m.size)
	}
	s.divide(m)
	if s.copied > maxCopied {
		return nil, fmt.Errorf("sparse file with %d pieces between holes, more than %d", s.copied, maxCopied)
	}
	return s, nil
}

// divide fills runs.
func (s *sparseMap) divide(m *member) {
	chunk := int64(1) << s.shift
	stored := m.offset // where the current segment lies in the tar
	next := int64(0)   // the first chunk that has no place yet
	for _, seg := range m.sparse {
		first, end := seg.off>>s.shift, seg.off+seg.size
		if first > next {
			s.add(nothing, first-next, 0)
			next = first
		}
		// A chunk that a segment before this has begun is a copy already.
		if seg.off&(chunk-1) != 0 && first == next {
			s.copyChunks(1)
			next++
		}
		whole := end >> s.shift
		if end == m.size {
			whole = (end + chunk - 1) >> s.shift
		}
		if n := whole - next; n > 0 {
			from := stored + next<<s.shift - seg.off
			if from%blockSize == 0 {
				s.add(inTar, n, from)
			} else {
				s.copyChunks(n)
			}
			next = whole
		}
		if end > next<<s.shift {
			s.copyChunks(1)
			next++
		}
		stored += seg.size
	}
	if rest := (m.size+chunk-1)>>s.shift - next; rest > 0 {
		s.add(nothing, rest, 0)
	}
}

func (s *sparseMap) copyChunks(n int64) {
	s.add(inIndex, n, s.copied<<s.shift)
	s.copied += n
}

// add adds n chunks, to the run before if they continue it.
func (s *sparseMap) add(where place, n, start int64) {
	if len(s.runs) > 0 {
		r := &s.runs[len(s.runs)-1]
		if r.where == where && (where == nothing || r.start+r.n<<s.shift == start) {
			r.n += n
			return
		}
	}
	s.runs = append(s.runs, chunkRun{n, where, start})
}

// chunks returns how many there are.
func (s *sparseMap) chunks() int64 {
	var n int64
	for _, r := range s.runs {
		n += r.n
	}
	return n
}

// take is given the content of the file as it comes by, and hands on what the
// index must keep, with its place among the kept chunks.
func (s *sparseMap) take(p []byte, keep func(p []byte, at int64) error) error {
	for len(p) > 0 && s.at < len(s.segments) {
		seg := s.segments[s.at]
		if s.done == seg.size {
			s.at, s.done = s.at+1, 0
			continue
		}
		off := seg.off + s.done
		n := min(int64(len(p)), seg.size-s.done)
		run := s.seek(off >> s.shift)
		start := s.first << s.shift
		n = min(n, start+run.n<<s.shift-off)
		if run.where == inIndex {
			if err := keep(p[:n], run.start+off-start); err != nil {
				return err
			}
		}
		s.done += n
		p = p[n:]
	}
	return nil
}

// seek goes on to the run of a chunk.
func (s *sparseMap) seek(chunk int64) chunkRun {
	for chunk >= s.first+s.runs[s.run].n {
		s.first += s.runs[s.run].n
		s.run++
	}
	return s.runs[s.run]
}
