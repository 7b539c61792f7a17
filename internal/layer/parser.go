package layer

import (
	"archive/tar"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/containerd/errdefs"
)

// maxHeader bounds what an extended header or a long name may hold, as
// archive/tar does.
const maxHeader = 1 << 20

// parser takes a tar apart while it streams by. It is written to; what it
// finds it hands to its two functions. It never holds more than a header.
type parser struct {
	// member is called when all headers of a file are known. It says whether
	// it wants the content.
	member func(*member) (want bool, err error)

	// content is called with the content of such a file, piece by piece.
	content func(p []byte) error

	off   int64 // bytes taken so far
	end   int64 // where the record at hand ends
	state state
	rec   [recordSize]byte
	fill  int    // bytes of rec
	text  []byte // of an extended header or long name
	left  int64  // bytes until the state changes
	pad   int64  // bytes that fill the last record of a content

	// What the headers before a file have said about it.
	kind     byte // of the header that text belongs to
	pax      *pax
	longName string
	longLink string

	cur    *member
	sparse *sparseText
	want   bool
	err    error
}

type state int

const (
	inHeader     state = iota // before or in a header record
	inText                    // in an extended header or long name
	inSparseMore              // in a record that goes on with an old GNU sparse map
	inSparseText              // in a sparse map that stands before the content
	inContent
	inPadding
	inTrailer // one record of zeros seen
	atEnd     // two: whatever follows is no part of the tar
)

// Write takes the next bytes. After an error, it returns just that.
func (p *parser) Write(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	taken := len(b)
	for len(b) > 0 && p.err == nil {
		var n int
		n, p.err = p.step(b)
		p.off += int64(n)
		b = b[n:]
	}
	if p.err != nil {
		return 0, p.err
	}
	return taken, nil
}

// step takes a part of b, at least one byte.
func (p *parser) step(b []byte) (int, error) {
	switch p.state {
	case atEnd:
		return len(b), nil
	case inText, inContent, inPadding:
		n := int(min(int64(len(b)), p.left))
		p.left -= int64(n)
		switch {
		case p.state == inText:
			p.text = append(p.text, b[:n]...)
		case p.state == inContent && p.want:
			if err := p.content(b[:n]); err != nil {
				return n, err
			}
		}
		if p.left == 0 {
			return n, p.passed()
		}
		return n, nil
	}
	if p.fill == 0 && len(b) >= recordSize {
		p.end = p.off + recordSize
		return recordSize, p.record(b[:recordSize])
	}
	n := copy(p.rec[p.fill:], b)
	if p.fill += n; p.fill == recordSize {
		p.fill = 0
		p.end = p.off + int64(n)
		return n, p.record(p.rec[:])
	}
	return n, nil
}

// passed goes on after the last byte of a text, a content or a padding.
func (p *parser) passed() error {
	if p.state == inText {
		if err := p.endText(); err != nil {
			return err
		}
	}
	if p.state != inPadding && p.pad > 0 {
		p.state, p.left = inPadding, p.pad
		return nil
	}
	p.state = inHeader
	return nil
}

// record takes one whole record.
func (p *parser) record(rec []byte) error {
	switch p.state {
	case inTrailer:
		if !isZero(rec) {
			return p.fail("data after a record of zeros")
		}
		p.state = atEnd
		return nil
	case inSparseMore:
		if err := p.cur.addOldSparse(rec[:504]); err != nil {
			return p.fail("%s", err)
		}
		if rec[504] != 0 {
			return nil
		}
		return p.begin()
	case inSparseText:
		p.cur.stored -= recordSize
		p.cur.offset += recordSize
		done, err := p.sparse.add(rec)
		if err != nil {
			return p.fail("%s", err)
		}
		if !done && p.cur.stored < recordSize {
			return p.fail("sparse map without an end")
		}
		if !done {
			return nil
		}
		p.cur.sparse = p.sparse.segments()
		return p.begin()
	}
	if isZero(rec) {
		p.state = inTrailer
		return nil
	}
	return p.header(rec)
}

// header takes the header record of a file, or of something that belongs to
// the next file.
func (p *parser) header(rec []byte) error {
	m, f, err := decodeHeader(rec)
	if err != nil {
		p.cur = m
		return p.fail("%s", err)
	}
	m.offset = p.end
	p.cur = m
	switch m.kind {
	case tar.TypeXHeader, tar.TypeGNULongName, tar.TypeGNULongLink:
		if m.stored > maxHeader {
			return p.fail("header of %d bytes, more than %d", m.stored, maxHeader)
		}
		p.kind, p.text = m.kind, p.text[:0]
		p.skip(inText, m.stored)
		if m.stored == 0 {
			return p.passed()
		}
		return nil
	case tar.TypeXGlobalHeader:
		// It holds defaults for all files; git puts a comment there. No
		// engine that unpacks layers honours them.
		p.pax, p.longName, p.longLink = nil, "", ""
		p.want = false
		p.skip(inContent, m.stored)
		return nil
	}
	return p.file(m, f, rec)
}

// endText takes an extended header or a long name that is complete.
func (p *parser) endText() error {
	var err error
	switch p.kind {
	case tar.TypeGNULongName:
		p.longName = cString(p.text)
	case tar.TypeGNULongLink:
		p.longLink = cString(p.text)
	default:
		if p.pax, err = parsePax(p.text); err != nil {
			return p.fail("%s", err)
		}
	}
	return nil
}

// file merges all that was said about a file.
func (p *parser) file(m *member, f format, rec []byte) error {
	x := p.pax
	p.pax = nil
	if x != nil {
		if err := x.apply(m); err != nil {
			return p.fail("%s", err)
		}
	}
	if p.longName != "" {
		m.name = p.longName
	}
	if p.longLink != "" {
		m.link = p.longLink
	}
	p.longName, p.longLink = "", ""

	old := m.kind == tar.TypeGNUSparse
	switch {
	case m.kind == 0 && strings.HasSuffix(m.name, "/"):
		m.kind = tar.TypeDir // tars of before POSIX have no type for it
	case m.kind == 0, m.kind == tar.TypeCont, old:
		m.kind = tar.TypeReg
	}
	if !hasContent(m.kind) {
		m.stored = 0
	}
	m.size = m.stored
	switch {
	case old && f == formatGNU:
		var d decoder
		m.holes = true
		if m.size = d.number(rec[483:495]); d.err != nil || m.size < 0 {
			return p.fail("bad size of sparse file")
		}
		if err := m.addOldSparse(rec[386:482]); err != nil {
			return p.fail("%s", err)
		}
		if rec[482] != 0 {
			p.state = inSparseMore
			return nil
		}
	case old:
		return p.fail("sparse file without the magic of GNU tar")
	case x != nil:
		inContent, err := m.sparsePax(x)
		if err != nil {
			return p.fail("%s", err)
		}
		if inContent {
			if m.stored < recordSize {
				return p.fail("sparse map without an end")
			}
			p.sparse, p.state = &sparseText{}, inSparseText
			return nil
		}
	}
	return p.begin()
}

// begin hands the current member on and goes to its content.
func (p *parser) begin() error {
	m := p.cur
	if p.state == inSparseMore {
		m.offset = p.end
	}
	if m.holes {
		if err := m.checkSparse(); err != nil {
			return p.fail("%s", err)
		}
	}
	if m.offset > math.MaxInt64-m.stored-recordSize {
		return p.fail("content of %d bytes", m.stored)
	}
	var err error
	if p.want, err = p.member(m); err != nil {
		return err
	}
	p.skip(inContent, m.stored)
	return nil
}

// skip sets the state for n bytes and the padding that follows them.
func (p *parser) skip(s state, n int64) {
	p.state, p.left, p.pad = s, n, -n&(recordSize-1)
	if n == 0 && s == inContent {
		p.state = inHeader
	}
}

// close says that there is no more. A tar may lack its trailer, but nothing
// else: the kernel reads whole blocks, so even the last padding must be there.
func (p *parser) close() error {
	if p.err != nil {
		return p.err
	}
	switch {
	case p.state == atEnd, (p.state == inHeader || p.state == inTrailer) && p.fill == 0:
		if p.pax == nil && p.longName == "" && p.longLink == "" {
			return nil
		}
	}
	switch p.state {
	case inContent:
		p.err = fmt.Errorf("member %q: %d of %d bytes are missing at the end of the tar: %w: %w",
			p.cur.name, p.left, p.cur.stored, io.ErrUnexpectedEOF, errdefs.ErrInvalidArgument)
	case inPadding:
		p.err = fmt.Errorf("member %q: %d bytes of padding are missing at the end of the tar: %w: %w",
			p.cur.name, p.left, io.ErrUnexpectedEOF, errdefs.ErrInvalidArgument)
	default:
		p.err = p.after("tar ends in the middle of a header: %w", io.ErrUnexpectedEOF)
	}
	return p.err
}

// fail returns the error for a header that is at fault, with the name that it
// has if it has one.
func (p *parser) fail(format string, args ...any) error {
	if p.cur != nil && p.cur.name != "" {
		return refuse(p.cur.name, format, args...)
	}
	return p.after(format, args...)
}

// after returns an error that tells where in the tar it happened.
func (p *parser) after(format string, args ...any) error {
	return fmt.Errorf("tar header before byte %d: %w: %w", p.end, fmt.Errorf(format, args...), errdefs.ErrInvalidArgument)
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
