package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/shaleproject/shale/internal/sys"
)

const (
	spillHead = 1 << 20   // bytes that stay in memory
	spillTail = 256 << 10 // bytes that are written at once
	spillPage = 16 << 10  // bytes that are read at once
	spillKept = 64        // pages that are kept
)

// spill keeps bytes that are many, and seldom needed: the first in memory, the
// rest in a file without a name in the directory temp. Where that can't be
// written, memory has to do. The zero value is empty; it may be used from
// several goroutines.
type spill struct {
	temp string

	mu    sync.Mutex
	head  []byte
	size  int64    // of head and file
	file  *os.File // what comes after head
	tail  []byte   // what comes after file
	full  bool     // nothing more can be written
	pages [spillKept]spilledPage
}

// spilledPage is a part of the file.
type spilledPage struct {
	at   int64 // its place in the file; 0 is none if data is nil
	data []byte
}

// Close gives up what is not in memory.
func (s *spill) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// put keeps a copy of data and returns its place.
func (s *spill) put(data []byte) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.size + int64(len(s.tail))
	if at+int64(len(data)) <= spillHead && at == int64(len(s.head)) {
		s.head = append(s.head, data...)
		s.size = int64(len(s.head))
		return at
	}
	s.tail = append(s.tail, data...)
	if len(s.tail) >= spillTail && !s.full {
		s.full = s.write() != nil
	}
	return at
}

// write moves the tail to the file.
func (s *spill) write() error {
	if s.file == nil {
		f, err := sys.UnnamedFile(s.temp)
		if err != nil {
			return err
		}
		s.file = f
	}
	at := s.size - int64(len(s.head))
	if _, err := s.file.WriteAt(s.tail, at); err != nil {
		return errors.Join(err, s.file.Truncate(at))
	}
	s.pages[at/spillPage%spillKept] = spilledPage{} // the last one, which was short
	s.size += int64(len(s.tail))
	s.tail = s.tail[:0]
	return nil
}

// read fills p with what begins at a place.
func (s *spill) read(p []byte, at int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		part, err := s.from(at)
		if err == nil && len(part) == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("read what did not fit into memory: %w", err)
		}
		n := copy(p, part)
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// from returns some of the bytes that begin at a place.
func (s *spill) from(at int64) ([]byte, error) {
	switch head := int64(len(s.head)); {
	case at < head:
		return s.head[at:], nil
	case at < s.size:
		return s.page(at - head)
	}
	return s.tail[at-s.size:], nil
}

// page returns the bytes of the file from a place to the end of its page.
func (s *spill) page(at int64) ([]byte, error) {
	begin := at / spillPage * spillPage
	p := &s.pages[begin/spillPage%spillKept]
	if p.data == nil || p.at != begin {
		size := min(spillPage, s.size-int64(len(s.head))-begin)
		if cap(p.data) == 0 {
			p.data = make([]byte, spillPage)
		}
		p.data = p.data[:size]
		if _, err := s.file.ReadAt(p.data, begin); err != nil {
			*p = spilledPage{}
			return nil, err
		}
		p.at = begin
	}
	return p.data[at-begin:], nil
}

// table is a list of records with names, in the order of these, that a spill
// keeps. It costs no memory, however long it is. Its bytes are, for each record,
// four that say where it begins, and then the records: the length of the name
// as a uvarint, the name, the rest.
type table struct {
	in   *spill
	at   int64
	n    int
	size int
}

// tableWriter makes a table.
type tableWriter struct {
	starts  []uint32
	records []byte
}

// add begins the next record. Its bytes are to be appended to the records.
func (w *tableWriter) add(name string) {
	w.starts = append(w.starts, uint32(len(w.records)))
	w.records = binary.AppendUvarint(w.records, uint64(len(name)))
	w.records = append(w.records, name...)
}

// number and offset append to the record.
func (w *tableWriter) number(n uint64) { w.records = binary.AppendUvarint(w.records, n) }
func (w *tableWriter) offset(n int64)  { w.records = binary.AppendVarint(w.records, n) }
func (w *tableWriter) text(s string) {
	w.number(uint64(len(s)))
	w.records = append(w.records, s...)
}

// keep puts the table into a spill, and begins another one.
func (w *tableWriter) keep(in *spill) table {
	t := table{in: in, n: len(w.starts), size: 4*len(w.starts) + len(w.records)}
	data := make([]byte, 0, t.size)
	for _, start := range w.starts {
		data = binary.LittleEndian.AppendUint32(data, start+uint32(4*t.n))
	}
	t.at = in.put(append(data, w.records...))
	w.starts, w.records = w.starts[:0], w.records[:0]
	return t
}

// record is one record of a table, or what is left of it.
type record struct{ rest []byte }

func (r *record) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	r.rest = r.rest[size:]
	return n
}

func (r *record) offset() int64 {
	n, size := binary.Varint(r.rest)
	r.rest = r.rest[size:]
	return n
}

func (r *record) text() string {
	n := r.number()
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

// span returns the records from number i to number j.
func (t *table) span(i, j int) ([]record, error) {
	starts := make([]byte, 4*(j-i), 4*(j-i)+4)
	if j < t.n {
		starts = starts[:cap(starts)]
	}
	if err := t.in.read(starts, t.at+int64(4*i)); err != nil {
		return nil, err
	}
	if j == t.n {
		starts = binary.LittleEndian.AppendUint32(starts, uint32(t.size))
	}
	start := func(k int) int { return int(binary.LittleEndian.Uint32(starts[4*k:])) }
	first := start(0)
	data := make([]byte, start(j-i)-first)
	if err := t.in.read(data, t.at+int64(first)); err != nil {
		return nil, err
	}
	records := make([]record, j-i)
	for k := range records {
		records[k].rest = data[start(k)-first : start(k+1)-first]
	}
	return records, nil
}

// find returns the record that has a name, and its number. ok is false if there
// is none.
func (t *table) find(name string) (r record, i int, ok bool, err error) {
	low, high := 0, t.n
	for low < high {
		i := (low + high) / 2
		found, err := t.span(i, i+1)
		if err != nil {
			return record{}, 0, false, err
		}
		r := found[0]
		switch text := r.text(); {
		case text == name:
			return r, i, true, nil
		case text < name:
			low = i + 1
		default:
			high = i
		}
	}
	return record{}, 0, false, nil
}

// spanned is how many records are read at once.
const spanned = 4096

// each calls f with every record, in order, with its number and its name.
func (t *table) each(f func(i int, name string, r record) error) error {
	for i := 0; i < t.n; i += spanned {
		records, err := t.span(i, min(i+spanned, t.n))
		if err != nil {
			return err
		}
		for k, r := range records {
			if err := f(i+k, r.text(), r); err != nil {
				return err
			}
		}
	}
	return nil
}
