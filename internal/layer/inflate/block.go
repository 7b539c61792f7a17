package inflate

import (
	"encoding/binary"
	"io"
)

// endBlock goes on behind a block.
func (r *Reader) endBlock() {
	r.state = inBlockHeader
	if r.final {
		r.state = inTrailer
	}
}

// maxBlockHeader is more than the largest header of a block: 17 bits, 19
// lengths of 3 bits, and 320 of at most 14.
const maxBlockHeader = 1024

// blockHeader reads RFC 1951 section 3.2.3.
func (r *Reader) blockHeader() {
	r.fill(maxBlockHeader)
	r.final = r.bits(1) == 1
	switch r.bits(2) {
	case 0:
		r.align()
		r.fill(4)
		if r.end-r.pos < 4 {
			r.fail(io.ErrUnexpectedEOF)
			return
		}
		n := binary.LittleEndian.Uint16(r.in[r.pos:])
		if n != ^binary.LittleEndian.Uint16(r.in[r.pos+2:]) {
			r.fail(ErrFormat)
			return
		}
		r.pos += 4
		r.stored = int(n)
		r.state = inStored
	case 1:
		r.lit, r.dist = fixedTables()
		r.state = inCodes
	case 2:
		r.readCodes()
		r.state = inCodes
	default:
		r.fail(ErrFormat)
	}
	if r.overrun() {
		r.fail(io.ErrUnexpectedEOF)
	}
}

func (r *Reader) copyStored() {
	r.fill(1)
	n := min(r.stored, r.end-r.pos, outSize-r.write)
	if n == 0 && r.stored > 0 && r.pos >= r.end {
		r.fail(io.ErrUnexpectedEOF)
		return
	}
	copy(r.out[r.write:], r.in[r.pos:r.pos+n])
	r.pos += n
	r.write += n
	if r.stored -= n; r.stored == 0 {
		r.endBlock()
	}
}

// codeOrder is the order of RFC 1951 section 3.2.7.
var codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// readCodes reads the codes of a dynamic block.
func (r *Reader) readCodes() {
	nlit, ndist, ncode := int(r.bits(5))+257, int(r.bits(5))+1, int(r.bits(4))+4
	if nlit > 286 || ndist > 30 {
		r.fail(ErrFormat)
		return
	}
	var lengths [19]uint8
	for i := range ncode {
		lengths[codeOrder[i]] = uint8(r.bits(3))
	}
	var code codeTable
	if !code.build(lengths[:]) {
		r.fail(ErrFormat)
		return
	}
	all := r.lengths[:nlit+ndist]
	for i := 0; i < len(all); {
		if r.nbits < 14 {
			r.refill()
		}
		e := code[r.hold&(1<<codeBits-1)]
		r.hold >>= e & 15
		r.nbits -= uint(e & 15)
		symbol := e >> 4
		if e == 0 {
			r.fail(ErrFormat)
			return
		}
		if symbol < 16 {
			all[i] = uint8(symbol)
			i++
			continue
		}
		var value uint8
		var n int
		switch symbol {
		case 16:
			if i == 0 {
				r.fail(ErrFormat)
				return
			}
			value, n = all[i-1], 3+int(r.bits(2))
		case 17:
			n = 3 + int(r.bits(3))
		default:
			n = 11 + int(r.bits(7))
		}
		if n > len(all)-i {
			r.fail(ErrFormat)
			return
		}
		for range n {
			all[i] = value
			i++
		}
	}
	r.lit, r.dist = &r.own.lit, &r.own.dist
	if all[256] == 0 || !r.lit.build(all[:nlit]) || !r.dist.build(all[nlit:]) {
		r.fail(ErrFormat)
	}
}
