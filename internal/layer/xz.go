package layer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// xzReader reads the container of xz (The .xz File Format 1.2.1) around
// LZMA2. The library's own reader takes the size of the dictionary from the
// stream, up to 4 GiB; this one refuses what exceeds [maxWindow].
type xzReader struct {
	r     *countReader
	check byte // the type of check, second byte of the stream flags
	block io.Reader
	sum   hash.Hash
	start int64 // where the block's data began
	size  int64 // bytes that came out of the block
	sizes [2]int64
	index []xzRecord
	err   error
}

type xzRecord struct{ unpadded, size int64 }

// maxXzBlocks bounds the memory for what the index at the end is compared to.
const maxXzBlocks = 1 << 20

var (
	xzMagic = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
	errXz   = errors.New("damaged stream")
)

// byteReader is what LZMA2 needs so as to take no byte too many.
type byteReader interface {
	io.Reader
	io.ByteReader
}

type countReader struct {
	r byteReader
	n int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *countReader) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

// take reads n bytes.
func (c *countReader) take(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	return b, unexpected(err)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func newXz(r byteReader) (io.Reader, error) {
	x := &xzReader{r: &countReader{r: r}}
	return x, x.streamHeader(nil)
}

func (x *xzReader) Read(p []byte) (int, error) {
	for x.err == nil && len(p) > 0 {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.Read(p)
		x.size += int64(n)
		if x.sum != nil {
			x.sum.Write(p[:n])
		}
		if err == io.EOF {
			err = x.endBlock()
		}
		x.err = err
		if n > 0 {
			return n, nil
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	return 0, x.err
}

// streamHeader reads section 2.1.1; head is what was read of it already.
func (x *xzReader) streamHeader(head []byte) error {
	rest, err := x.r.take(12 - len(head))
	if err != nil {
		return err
	}
	b := append(head, rest...)
	if !bytes.HasPrefix(b, xzMagic) || b[6] != 0 || b[7] > 15 ||
		crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]) {
		return errXz
	}
	x.check, x.index = b[7], nil
	return nil
}

// next goes to the next block, if need be of the next stream.
func (x *xzReader) next() error {
	size, err := x.r.ReadByte()
	if err != nil {
		return unexpected(err)
	}
	if size != 0 {
		return x.blockHeader(size)
	}
	if err := x.readIndex(); err != nil {
		return err
	}
	for { // section 2.2: streams follow each other, with zeros between them
		head := make([]byte, 4)
		switch n, err := io.ReadFull(x.r, head); {
		case err == io.EOF && n == 0:
			return io.EOF
		case err != nil:
			return unexpected(err)
		case !bytes.Equal(head, make([]byte, 4)):
			return x.streamHeader(head)
		}
	}
}

// blockHeader reads section 3.1 and makes the decoder of the block.
func (x *xzReader) blockHeader(size byte) error {
	x.start = x.r.n - 1
	rest, err := x.r.take((int(size)+1)*4 - 1)
	if err != nil {
		return err
	}
	b := append([]byte{size}, rest...)
	body := b[:len(b)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		return errXz
	}
	flags, fields := body[1], bytes.NewReader(body[2:])
	if flags&0x3f != 0 {
		return fmt.Errorf("filter other than LZMA2")
	}
	x.sizes = [2]int64{-1, -1}
	for i, bit := range []byte{0x40, 0x80} {
		if flags&bit != 0 {
			if x.sizes[i], err = xzNumber(fields); err != nil {
				return err
			}
		}
	}
	var filter [3]byte
	if _, err := io.ReadFull(fields, filter[:]); err != nil || filter[1] != 1 {
		return errXz
	}
	if filter[0] != 0x21 {
		return fmt.Errorf("filter other than LZMA2")
	}
	dict, err := lzma.DecodeDictCap(filter[2])
	if err != nil {
		return errXz
	}
	if dict > maxWindow {
		return fmt.Errorf("dictionary of %d bytes, more than %d", dict, maxWindow)
	}
	x.size = 0
	x.sum = xzCheck(x.check)
	x.block, err = lzma.Reader2Config{DictCap: int(max(dict, lzma.MinDictCap))}.NewReader2(x.r)
	return err
}

// xzCheck returns the hash of section 2.1.1.2, nil for none or one that is
// not known, which may be skipped.
func xzCheck(check byte) hash.Hash {
	switch check {
	case 1:
		return crc32.NewIEEE()
	case 4:
		return crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		return sha256.New()
	}
	return nil
}

// endBlock reads padding and check (sections 3.3 and 3.4) and compares.
func (x *xzReader) endBlock() error {
	x.block = nil
	sizes := [15]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64}
	length := 64
	if x.check < 15 {
		length = sizes[x.check]
	}
	packed := x.r.n - x.start
	pad, err := x.r.take(int(-packed & 3))
	if err != nil {
		return err
	}
	want, err := x.r.take(length)
	if err != nil {
		return err
	}
	if !isZero(pad) || x.sizes[1] >= 0 && x.sizes[1] != x.size || !x.sumFits(want) || len(x.index) == maxXzBlocks {
		return errXz
	}
	x.index = append(x.index, xzRecord{packed + int64(length), x.size})
	return nil
}

func (x *xzReader) sumFits(want []byte) bool {
	if x.sum == nil {
		return true
	}
	sum := x.sum.Sum(nil)
	if x.check != 10 { // CRCs are stored little endian
		for i, j := 0, len(sum)-1; i < j; i, j = i+1, j-1 {
			sum[i], sum[j] = sum[j], sum[i]
		}
	}
	return bytes.Equal(sum, want)
}

// readIndex reads sections 4 and 2.1.2, behind the byte that begins the index.
func (x *xzReader) readIndex() error {
	start := x.r.n - 1
	sum := crc32.NewIEEE()
	sum.Write([]byte{0})
	r := &teeByteReader{x.r, sum}
	n, err := xzNumber(r)
	if err != nil || n != int64(len(x.index)) {
		return errXz
	}
	for _, want := range x.index {
		unpadded, err1 := xzNumber(r)
		size, err2 := xzNumber(r)
		if err1 != nil || err2 != nil || (xzRecord{unpadded, size}) != want {
			return errXz
		}
	}
	for (x.r.n-start)&3 != 0 {
		if b, err := r.ReadByte(); err != nil || b != 0 {
			return errXz
		}
	}
	length := x.r.n - start + 4
	b, err := x.r.take(16)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	footer := b[4:]
	if le.Uint32(b) != sum.Sum32() || le.Uint32(footer) != crc32.ChecksumIEEE(footer[4:10]) ||
		(int64(le.Uint32(footer[4:]))+1)*4 != length || footer[8] != 0 || footer[9] != x.check ||
		string(footer[10:]) != "YZ" {
		return errXz
	}
	return nil
}

type teeByteReader struct {
	r io.ByteReader
	w io.Writer
}

func (t *teeByteReader) ReadByte() (byte, error) {
	b, err := t.r.ReadByte()
	if err == nil {
		t.w.Write([]byte{b})
	}
	return b, err
}

// xzNumber reads section 1.2: seven bits a byte, lowest first, at most 63.
func xzNumber(r io.ByteReader) (int64, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n > 1<<63-1 {
		return 0, errXz
	}
	return int64(n), nil
}
