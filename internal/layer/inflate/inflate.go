// Package inflate reads gzip, fast.
//
// Inflating is what a pull spends its time on, on one core a layer. The decoder
// keeps 64 bits of input at hand, looks up two literals at a time, copies
// matches 16 bytes at a time, and hands out its window instead of copying from
// it. It allocates a fixed amount whatever the stream says. docs/adr/0002-inflate.md has
// the figures that it was written for.
package inflate

import (
	"errors"
	"hash/crc32"
	"io"
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
