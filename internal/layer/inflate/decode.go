package inflate

import (
	"encoding/binary"
	"io"
)

// decode reads symbols until the window is full, the input runs short or the
// block ends. It is one long function so that what it works on stays in
// registers.
func (r *Reader) decode() {
	r.fill(inSize / 2)
	last := r.end - 16 // where the input runs short
	if r.eof {
		last = r.end + 8
	}
	var (
		in, out   = r.in, r.out
		pos       = r.pos
		hold      = r.hold
		nbits     = r.nbits
		w         = r.write
		lit, dist = r.lit, r.dist
		start     = r.start
	)
	done := false
	for w < outSize && pos <= last {
		// Only the lowest six bits of nbits count here. 56 bits: two entries of two literals, or a length and a distance.
		hold |= binary.LittleEndian.Uint64(in[pos:]) << (nbits & 63)
		pos += int(^nbits >> 3 & 7)
		nbits |= 56

		e := lit[hold&(1<<litBits-1)]
		if e&isLiteral != 0 {
			binary.LittleEndian.PutUint16(out[w:], uint16(e>>16))
			w += int(e >> 8 & 3)
			hold >>= e & 63
			nbits -= uint(e)
			e = lit[hold&(1<<litBits-1)]
			if e&isLiteral != 0 {
				binary.LittleEndian.PutUint16(out[w:], uint16(e>>16))
				w += int(e >> 8 & 3)
				hold >>= e & 63
				nbits -= uint(e)
				e = lit[hold&(1<<litBits-1)]
				if e&isLiteral != 0 {
					binary.LittleEndian.PutUint16(out[w:], uint16(e>>16))
					w += int(e >> 8 & 3)
					hold >>= e & 63
					nbits -= uint(e)
					continue
				}
			}
			hold |= binary.LittleEndian.Uint64(in[pos:]) << (nbits & 63)
			pos += int(^nbits >> 3 & 7)
			nbits |= 56
		}
		if e&isSpecial != 0 {
			if e&isLink != 0 {
				e = lit[e>>16+uint32(hold>>litBits)&(1<<(e>>8&15)-1)]
			}
			if e&isLiteral != 0 {
				out[w] = byte(e >> 16)
				w++
				hold >>= e & 63
				nbits -= uint(e)
				continue
			}
			if e&isSpecial != 0 {
				hold >>= e & 63
				nbits -= uint(e)
				if e&isEnd == 0 {
					r.fail(ErrFormat)
				}
				done = true
				break
			}
		}
		// A length: the bits of its code and its extra bits.
		all, code := e&63, e>>8&31
		length := int(e>>16&0x1ff) + int(hold&(1<<all-1)>>code)
		hold >>= all
		nbits -= uint(all)

		d := dist[hold&(1<<distBits-1)]
		if d&isLink != 0 {
			d = dist[d>>16+uint32(hold>>distBits)&(1<<(d>>8&15)-1)]
		}
		if d&isSpecial != 0 {
			r.fail(ErrFormat)
			break
		}
		all, code = d&63, d>>8&15
		distance := int(d>>16) + int(hold&(1<<all-1)>>code)
		hold >>= all
		nbits -= uint(all)
		if distance > w-start {
			r.fail(ErrFormat)
			break
		}

		from, to := w-distance, w
		w += length
		switch {
		case distance >= 16:
			for {
				*(*[16]byte)(out[to:]) = *(*[16]byte)(out[from:])
				from += 16
				if to += 16; to >= w {
					break
				}
			}
		case distance == 1:
			b := out[from]
			run := out[to:w]
			for i := range run {
				run[i] = b
			}
		case distance >= 8:
			for {
				*(*[8]byte)(out[to:]) = *(*[8]byte)(out[from:])
				from += 8
				if to += 8; to >= w {
					break
				}
			}
		default:
			for to < w {
				out[to] = out[from]
				from++
				to++
			}
		}
	}
	r.pos, r.hold, r.nbits, r.write = pos, hold, nbits&63, w
	if r.err != nil {
		return
	}
	if r.overrun() || pos > r.end+8 {
		r.fail(io.ErrUnexpectedEOF)
	} else if done {
		r.endBlock()
	}
}
