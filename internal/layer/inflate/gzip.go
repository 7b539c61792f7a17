package inflate

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

// byte takes one byte of a header.
func (r *Reader) byte() (b byte, ok bool) {
	r.fill(1)
	if r.pos >= r.end {
		return 0, false
	}
	r.pos++
	return r.in[r.pos-1], true
}

// header reads RFC 1952 section 2.3.
func (r *Reader) header() {
	var h [10]byte
	sum := crc32.NewIEEE()
	next := func() byte {
		b, ok := r.byte()
		if !ok {
			r.fail(io.ErrUnexpectedEOF)
		}
		sum.Write([]byte{b})
		return b
	}
	for i := range h {
		b, ok := r.byte()
		if !ok && i == 0 && r.members > 0 {
			r.fail(io.EOF)
			return
		}
		if !ok {
			r.fail(io.ErrUnexpectedEOF)
			return
		}
		h[i] = b
	}
	sum.Write(h[:])
	flags := h[3]
	if h[0] != 0x1f || h[1] != 0x8b || h[2] != 8 || flags&0xe0 != 0 {
		r.fail(ErrFormat)
		return
	}
	if flags&4 != 0 { // extra field
		for n := int(next()) | int(next())<<8; n > 0 && r.err == nil; n-- {
			next()
		}
	}
	for _, bit := range []byte{8, 16} { // name, comment
		if flags&bit != 0 {
			for r.err == nil && next() != 0 {
			}
		}
	}
	if flags&2 != 0 {
		want := uint16(sum.Sum32())
		if got := uint16(next()) | uint16(next())<<8; got != want && r.err == nil {
			r.fail(ErrFormat)
		}
	}
	r.members++
	r.start, r.crc, r.size = r.write, 0, 0
	r.state = inBlockHeader
}

// trailer reads RFC 1952 section 2.3.1.
func (r *Reader) trailer() {
	r.align()
	r.fill(8)
	if r.end-r.pos < 8 {
		r.fail(io.ErrUnexpectedEOF)
		return
	}
	le := binary.LittleEndian
	if le.Uint32(r.in[r.pos:]) != r.crc || le.Uint32(r.in[r.pos+4:]) != r.size {
		r.fail(ErrChecksum)
		return
	}
	r.pos += 8
	r.state = inHeader
}
