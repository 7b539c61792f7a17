//go:build linux

package sys

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

const (
	spillHead = 1 << 20   // bytes that stay in memory
	spillTail = 256 << 10 // bytes that are written at once
	spillPage = 16 << 10  // bytes that are read at once
	spillKept = 64        // pages that are kept
)

// Spill keeps bytes that are many, and seldom needed: the first in memory, the
// rest in a file without a name ([UnnamedFile]), which is made when it is needed.
// Where that can't be written, memory has to do. The zero value is empty. It may be
// used from several goroutines. Who has it closes it, and uses it no more.
type Spill struct {
	// Dir is a directory on the file system that the file is to be on; "" is
	// that of [os.TempDir]. It is set before the first Put.
	Dir string

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

// Close gives up what is not in memory. It may be called more than once.
func (s *Spill) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = true
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// Put keeps a copy of data and returns its place: it is the number of bytes that
// were put before.
func (s *Spill) Put(data []byte) int64 {
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
func (s *Spill) write() error {
	if s.file == nil {
		f, err := UnnamedFile(s.Dir)
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

// Read fills p with what begins at a place. A place that nothing was put to is an
// [io.ErrUnexpectedEOF].
func (s *Spill) Read(p []byte, at int64) error {
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
func (s *Spill) from(at int64) ([]byte, error) {
	switch head := int64(len(s.head)); {
	case at < head:
		return s.head[at:], nil
	case at < s.size:
		return s.page(at - head)
	}
	return s.tail[min(at-s.size, int64(len(s.tail))):], nil
}

// page returns the bytes of the file from a place to the end of its page.
func (s *Spill) page(at int64) ([]byte, error) {
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
