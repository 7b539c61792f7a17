package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// maxSegments bounds the map of one sparse file: 16 MiB of memory. archive/tar
// has the same limit.
const maxSegments = 1 << 20

// addOldSparse reads the segments of an old GNU header: 24 bytes each, the
// list ends with one that begins with a zero byte.
func (m *member) addOldSparse(entries []byte) error {
	for ; len(entries) >= 24 && entries[0] != 0; entries = entries[24:] {
		var d decoder
		s := segment{d.number(entries[:12]), d.number(entries[12:24])}
		if d.err != nil {
			return fmt.Errorf("sparse map: %w", d.err)
		}
		if len(m.sparse) == maxSegments {
			return fmt.Errorf("sparse map of more than %d segments", maxSegments)
		}
		m.sparse = append(m.sparse, s)
	}
	return nil
}

// sparsePax looks for the three forms in which GNU tar puts sparse files into
// extended headers (GNU tar manual, "Storing Sparse Files"). inContent says
// that the map stands before the data.
func (m *member) sparsePax(p *pax) (inContent bool, err error) {
	major, minor := p.records["GNU.sparse.major"], p.records["GNU.sparse.minor"]
	_, hasMap := p.records["GNU.sparse.map"]
	switch version := major + "." + minor; {
	case version == "1.0":
		inContent = true
	case version == "0.0", version == "0.1", version == "." && (hasMap || p.sparse != nil):
	default:
		return false, nil
	}
	m.holes = true
	if name := p.records["GNU.sparse.name"]; name != "" {
		m.name = name
	}
	size := p.records["GNU.sparse.size"]
	if size == "" {
		size = p.records["GNU.sparse.realsize"]
	}
	m.size = m.stored
	if size != "" {
		if m.size, err = strconv.ParseInt(size, 10, 64); err != nil || m.size < 0 {
			return false, fmt.Errorf("bad size %q of sparse file", size)
		}
	}
	if inContent {
		return true, nil
	}
	m.sparse = p.sparse
	if text := p.records["GNU.sparse.map"]; text != "" {
		if m.sparse, err = segmentsOf(strings.Split(text, ",")); err != nil {
			return false, err
		}
	}
	if n := p.records["GNU.sparse.numblocks"]; n != "" && n != strconv.Itoa(len(m.sparse)) {
		return false, fmt.Errorf("sparse map of %d segments, not %s", len(m.sparse), n)
	}
	return false, nil
}

func segmentsOf(numbers []string) ([]segment, error) {
	if len(numbers)%2 != 0 {
		return nil, fmt.Errorf("sparse map with an odd number of fields")
	}
	s := make([]segment, 0, len(numbers)/2)
	for i := 0; i < len(numbers); i += 2 {
		off, err1 := strconv.ParseInt(numbers[i], 10, 64)
		size, err2 := strconv.ParseInt(numbers[i+1], 10, 64)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("bad sparse map")
		}
		s = append(s, segment{off, size})
	}
	return s, nil
}

// sparseText collects the map of GNU's version 1.0: decimal numbers, a line
// each, the number of segments first, padded to whole records.
type sparseText struct {
	numbers []int64
	part    []byte // of a line that goes on in the next record
}

// add takes one record and says whether the map is complete.
func (t *sparseText) add(rec []byte) (done bool, err error) {
	for {
		line, rest, found := bytes.Cut(rec, []byte("\n"))
		t.part = append(t.part, line...)
		if len(t.part) > 20 {
			return false, fmt.Errorf("bad sparse map")
		}
		if !found {
			return false, nil
		}
		n, err := strconv.ParseInt(string(t.part), 10, 64)
		if err != nil || len(t.numbers) == 0 && n > maxSegments {
			return false, fmt.Errorf("bad sparse map")
		}
		t.numbers = append(t.numbers, n)
		t.part, rec = t.part[:0], rest
		if int64(len(t.numbers)) == 1+2*t.numbers[0] {
			return true, nil
		}
	}
}

func (t *sparseText) segments() []segment {
	s := make([]segment, 0, len(t.numbers)/2)
	for i := 1; i+1 < len(t.numbers); i += 2 {
		s = append(s, segment{t.numbers[i], t.numbers[i+1]})
	}
	return s
}

// checkSparse makes sure that the segments follow each other within the file
// and are just what the tar stores. Empty ones, which mark the end, go.
func (m *member) checkSparse() error {
	if m.kind != tar.TypeReg {
		return fmt.Errorf("sparse map of something that is no regular file")
	}
	var end, sum int64
	kept := m.sparse[:0]
	for _, s := range m.sparse {
		if s.off < end || s.size < 0 || s.off > math.MaxInt64-s.size || s.off+s.size > m.size {
			return fmt.Errorf("sparse map that is not in order or exceeds the file")
		}
		end = s.off + s.size
		sum += s.size
		if s.size > 0 {
			kept = append(kept, s)
		}
	}
	m.sparse = kept
	if sum != m.stored {
		return fmt.Errorf("sparse map of %d bytes for %d bytes of content", sum, m.stored)
	}
	return nil
}
