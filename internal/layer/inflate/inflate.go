// Package inflate reads gzip, fast.
//
// Inflating is what a pull spends its time on, on one core a layer. The decoder
// keeps 64 bits of input at hand, looks up two literals at a time, copies
// matches 16 bytes at a time, and hands out its window instead of copying from
// it. It allocates a fixed amount whatever the stream says. docs/adr/0002-inflate.md has
// the figures that it was written for.
package inflate

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/bits"
)

var (
	// ErrFormat says that the stream is no gzip stream, or a damaged one.
	ErrFormat = errors.New("damaged stream")
	// ErrChecksum says that what came out isn't what went in.
	ErrChecksum = errors.New("checksum does not fit")
)

const (
	inSize  = 64 << 10
	inSlack = 32 // zeros that may be read behind the end of the input

	history  = 32 << 10 // how far back a match may reach
	outSize  = history + 128<<10
	outSlack = 258 + 32 // what one round of the loop may write
)

type state int

const (
	inHeader state = iota
	inBlockHeader
	inStored
	inCodes
	inTrailer
)

// Reader reads one or several gzip streams that follow each other (RFC 1952
// section 2.2).
type Reader struct {
	src     io.Reader
	in      *[inSize + inSlack]byte
	pos     int // of the next byte that is not in hold
	end     int // of the input in in
	eof     bool
	srcErr  error
	hold    uint64 // bits that come next, lowest first
	nbits   uint   // how many of them
	state   state
	err     error
	members int

	out    *[outSize + outSlack]byte
	read   int // what was handed out
	write  int // what was decoded
	start  int // where the member begins, or may be reached back to
	crc    uint32
	size   uint32
	final  bool
	stored int // bytes left of a stored block

	lit  *litTable
	dist *distTable
	own  struct {
		lit  litTable
		dist distTable
	}
	lengths [288 + 32]uint8
}

// NewReader returns a Reader of src, and reads the first header.
func NewReader(src io.Reader) (*Reader, error) {
	r := &Reader{
		src: src,
		in:  new([inSize + inSlack]byte),
		out: new([outSize + outSlack]byte),
	}
	if r.step(); r.err != nil {
		return nil, r.err
	}
	return r, nil
}

// Read fills p with what comes next.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !r.more() {
		return 0, r.err
	}
	n := copy(p, r.out[r.read:r.write])
	r.read += n
	return n, nil
}

// WriteTo writes all that is left to w.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for r.more() {
		n, err := w.Write(r.out[r.read:r.write])
		r.read += n
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	if r.err == io.EOF {
		return total, nil
	}
	return total, r.err
}

// more decodes until there is something to hand out, or an error.
func (r *Reader) more() bool {
	for r.read == r.write && r.err == nil {
		r.makeRoom()
		from := r.write
		for r.err == nil && r.write < outSize {
			r.step()
			if r.state == inTrailer || r.state == inHeader {
				break // the checksum needs all that came before
			}
		}
		r.count(from)
		if r.state == inTrailer && r.err == nil {
			r.step()
		}
	}
	return r.read < r.write
}

// makeRoom moves the history to the front once the window is full.
func (r *Reader) makeRoom() {
	if r.write < outSize {
		return
	}
	shift := r.write - history
	copy(r.out[:], r.out[shift:r.write])
	r.read, r.write = history, history
	r.start = max(0, r.start-shift)
}

// count adds what was decoded to checksum and size.
func (r *Reader) count(from int) {
	r.crc = crc32.Update(r.crc, crc32.IEEETable, r.out[from:r.write])
	r.size += uint32(r.write - from)
}

// step goes on in the current state.
func (r *Reader) step() {
	switch r.state {
	case inHeader:
		r.header()
	case inBlockHeader:
		r.blockHeader()
	case inStored:
		r.copyStored()
	case inCodes:
		r.decode()
	case inTrailer:
		r.trailer()
	}
}

func (r *Reader) fail(err error) {
	if r.srcErr != nil {
		err = r.srcErr
	}
	r.err = err
}

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

// decode reads symbols until the window is full, the input runs short or the
// block ends.
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

// reverse turns a code round: it is written highest bit first.
func reverse(code uint32, length uint) uint32 {
	return bits.Reverse32(code) >> (32 - length)
}
