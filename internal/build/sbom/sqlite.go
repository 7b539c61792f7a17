package sbom

import (
	"encoding/binary"
	"errors"
	"io"
)

// errDatabase is what a database is that breaks the rules of its format.
var errDatabase = errors.New("malformed database")

// sqlite reads the rows of a table of an SQLite database
// (sqlite.org/fileformat2.html), as much of it as rpm's needs: tables with a
// rowid, in a file without a journal.
type sqlite struct {
	r      io.ReaderAt
	page   int64 // size of a page
	usable int64 // of it
	left   int   // pages that may still be read: none is needed twice
	bytes  int64 // of rows that may still be read: none share any
}

const (
	maxRow   = 16 << 20 // bytes of one row
	maxDepth = 32       // of a tree of pages

	interiorPage, leafPage = 0x05, 0x0d
)

func openSQLite(r io.ReaderAt, size int64) (*sqlite, error) {
	head := make([]byte, 100)
	if _, err := r.ReadAt(head, 0); err != nil || string(head[:16]) != "SQLite format 3\x00" {
		return nil, errDatabase
	}
	s := &sqlite{r: r, page: int64(binary.BigEndian.Uint16(head[16:]))}
	if s.page == 1 {
		s.page = 65536
	}
	s.usable = s.page - int64(head[20])
	if s.page < 512 || s.page&(s.page-1) != 0 || s.usable < 480 {
		return nil, errDatabase
	}
	s.left, s.bytes = int(size/s.page)+1, size
	return s, nil
}

// table calls yield with the columns of each row of the table called name.
func (s *sqlite) table(name string, yield func([][]byte) error) error {
	root := int64(0)
	err := s.rows(1, 0, func(row [][]byte) error { // type, name, tbl_name, rootpage, sql
		if len(row) >= 4 && string(row[0]) == "table" && string(row[1]) == name {
			for _, b := range row[3] {
				root = root<<8 | int64(b)
			}
		}
		return nil
	})
	if err == nil && root < 1 {
		err = errDatabase
	}
	if err != nil {
		return err
	}
	return s.rows(root, 0, yield)
}

func (s *sqlite) readPage(n int64) ([]byte, error) {
	if s.left--; s.left < 0 || n < 1 || n > 1<<31 {
		return nil, errDatabase
	}
	p := make([]byte, s.page)
	if _, err := s.r.ReadAt(p, (n-1)*s.page); err != nil {
		return nil, errDatabase
	}
	return p[:s.usable], nil
}

// rows walks the tree of pages below page n (section 1.6, "B-tree Pages").
func (s *sqlite) rows(n int64, depth int, yield func([][]byte) error) error {
	p, err := s.readPage(n)
	if err != nil || depth > maxDepth {
		return errDatabase
	}
	head := p
	if n == 1 {
		head = p[100:]
	}
	kind, cells := head[0], int(binary.BigEndian.Uint16(head[3:]))
	at := 8
	if kind == interiorPage {
		at = 12
	} else if kind != leafPage {
		return errDatabase
	}
	if at+2*cells > len(head) {
		return errDatabase
	}
	for i := range cells {
		offset := int(binary.BigEndian.Uint16(head[at+2*i:]))
		if offset+4 > len(p) {
			return errDatabase
		}
		if kind == interiorPage {
			err = s.rows(int64(binary.BigEndian.Uint32(p[offset:])), depth+1, yield)
		} else {
			err = s.row(p[offset:], yield)
		}
		if err != nil {
			return err
		}
	}
	if kind == interiorPage {
		return s.rows(int64(binary.BigEndian.Uint32(head[8:])), depth+1, yield)
	}
	return nil
}

// row reads the cell of a leaf: the size of the payload, the rowid, and the
// payload, which may go on in other pages.
func (s *sqlite) row(cell []byte, yield func([][]byte) error) error {
	size, n := varint(cell)
	_, m := varint(cell[n:])
	if n == 0 || m == 0 || size < 0 || size > maxRow {
		return errDatabase
	}
	if s.bytes -= size; s.bytes < 0 {
		return errDatabase
	}
	cell = cell[n+m:]
	local, least := size, (s.usable-12)*32/255-23
	if size > s.usable-35 {
		if local = least + (size-least)%(s.usable-4); local > s.usable-35 {
			local = least
		}
	}
	if local > int64(len(cell)) || local < size && local+4 > int64(len(cell)) {
		return errDatabase
	}
	payload := append([]byte(nil), cell[:local]...)
	for next := cell[local:]; int64(len(payload)) < size; {
		p, err := s.readPage(int64(binary.BigEndian.Uint32(next)))
		if err != nil {
			return err
		}
		payload = append(payload, p[4:min(int64(len(p)), 4+size-int64(len(payload)))]...)
		next = p
	}
	row, err := columns(payload)
	if err != nil {
		return err
	}
	return yield(row)
}

// columns takes a record apart (section 2.1, "Record Format"). Numbers come
// as they are stored, big-endian.
func columns(record []byte) ([][]byte, error) {
	head, n := varint(record)
	if n == 0 || head < int64(n) || head > int64(len(record)) {
		return nil, errDatabase
	}
	types, body := record[n:head], record[head:]
	var row [][]byte
	for len(types) > 0 {
		kind, n := varint(types)
		if n == 0 || kind < 0 {
			return nil, errDatabase
		}
		types = types[n:]
		size := int64(0)
		switch {
		case kind >= 12:
			size = (kind - 12) / 2
		case kind >= 1 && kind <= 7:
			size = []int64{1, 2, 3, 4, 6, 8, 8}[kind-1]
		}
		if size > int64(len(body)) {
			return nil, errDatabase
		}
		row = append(row, body[:size])
		body = body[size:]
	}
	return row, nil
}

// varint reads a number of 7 bits a byte, highest first, 8 in a ninth. It
// returns how long it is, 0 if it is cut off.
func varint(b []byte) (int64, int) {
	var v int64
	for n := range min(len(b), 9) {
		if n == 8 {
			return v<<8 | int64(b[n]), 9
		}
		v = v<<7 | int64(b[n]&0x7f)
		if b[n] < 0x80 {
			return v, n + 1
		}
	}
	return 0, 0
}
