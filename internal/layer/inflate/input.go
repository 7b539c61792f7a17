package inflate

import (
	"encoding/binary"
	"io"
)

// fill makes sure that n bytes, at most inSlack less than the buffer, or all
// that is left are in the buffer behind pos. Behind the end of everything come
// zeros; overrun finds out if they were taken for input.
func (r *Reader) fill(n int) {
	if r.end-r.pos >= n || r.eof {
		return
	}
	// Give whole bytes back, so that align never goes behind the buffer.
	r.pos -= int(r.nbits >> 3)
	r.nbits &= 7
	r.hold &= 1<<r.nbits - 1
	copy(r.in[:], r.in[r.pos:r.end])
	r.end -= r.pos
	r.pos = 0
	for empty := 0; r.end < n && !r.eof; {
		k, err := r.src.Read(r.in[r.end:inSize])
		r.end += k
		if k == 0 && err == nil {
			if empty++; empty > 100 {
				err = io.ErrNoProgress
			}
		}
		if err != nil {
			r.eof = true
			if err != io.EOF {
				r.srcErr = err
			}
		}
	}
	if r.eof {
		clear(r.in[r.end:])
	}
}

// overrun says whether more bits were used than there were.
func (r *Reader) overrun() bool {
	return r.eof && r.pos-int(r.nbits>>3) > r.end
}

// align drops the bits up to the next byte and gives whole bytes back.
func (r *Reader) align() {
	r.pos -= int(r.nbits >> 3)
	r.hold, r.nbits = 0, 0
}

// bits takes up to 32 bits.
func (r *Reader) bits(n uint) uint32 {
	if r.nbits < n {
		r.refill()
	}
	v := uint32(r.hold & (1<<n - 1))
	r.hold >>= n
	r.nbits -= n
	return v
}

// refill takes in as many whole bytes as fit, at least 56 bits. The bits above
// nbits may be of the next byte already, which comes again and is the same.
func (r *Reader) refill() {
	if r.pos > r.end+8 {
		r.pos = r.end + 8 // far behind the end: overrun knows enough
	}
	r.hold |= binary.LittleEndian.Uint64(r.in[r.pos:]) << r.nbits
	r.pos += int(63-r.nbits) >> 3
	r.nbits |= 56
}
