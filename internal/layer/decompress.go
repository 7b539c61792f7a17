package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/shaleproject/shale/internal/layer/inflate"
)

// maxWindow bounds the memory that a stream can ask for. It is the largest
// window of "zstd --ultra -22" without --long, and of "xz -9".
const maxWindow = 128 << 20

// magics are the first bytes of each form. RFC 1952 2.3.1, RFC 8878 3.1.1 (and
// 3.1.2: the 16 magics of skippable frames), the xz file format 2.1.1.1.
var magics = []struct {
	prefix []byte
	form   Compression
}{
	{[]byte{0x1f, 0x8b, 8}, Gzip},
	{[]byte{0x28, 0xb5, 0x2f, 0xfd}, Zstd},
	{[]byte("BZh"), Bzip2},
	{[]byte{0xfd, '7', 'z', 'X', 'Z', 0}, Xz},
}

// Detect returns the form of the content that begins with head, of which six
// bytes are enough.
func Detect(head []byte) Compression {
	for _, m := range magics {
		if bytes.HasPrefix(head, m.prefix) {
			return m.form
		}
	}
	if len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}) {
		return Zstd
	}
	return None
}

// Decompress returns what r holds without its compression, which is found by
// content, never by name. The caller closes the result; r stays open.
//
// Memory is bounded whatever the stream asks for: windows over 128 MiB are
// refused. How much comes out is for the caller to limit. A stream that is
// damaged or cut off is an [errdefs.ErrInvalidArgument]; errors of r itself
// come back as they are.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	src := &source{r: r}
	buf := bufio.NewReaderSize(src, 32<<10)
	head, err := buf.Peek(6)
	if err != nil && err != io.EOF {
		return nil, None, err
	}
	form := Detect(head)
	d := &decompressor{src: src, form: form, close: func() error { return nil }}
	switch form {
	case None:
		return io.NopCloser(buf), None, nil
	case Gzip:
		d.r, err = inflate.NewReader(buf)
	case Zstd:
		z, zErr := zstd.NewReader(buf, zstd.WithDecoderMaxWindow(maxWindow))
		if err = zErr; err == nil {
			d.r, d.close = z, func() error { z.Close(); return nil }
		}
	case Bzip2:
		d.r, err = bzip2.NewReader(buf), nil
	case Xz:
		d.r, err = newXz(buf)
	}
	if err != nil {
		return nil, form, d.explain(err)
	}
	return d, form, nil
}

// source remembers the error of the reader that a stream comes from, to tell
// a broken connection from a broken stream.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// decompressor gives the errors of a decoder our form.
type decompressor struct {
	src   *source
	r     io.Reader
	form  Compression
	close func() error
}

func (d *decompressor) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && err != io.EOF {
		err = d.explain(err)
	}
	return n, err
}

// WriteTo spares a copy where the decoder can.
func (d *decompressor) WriteTo(w io.Writer) (int64, error) {
	wt, ok := d.r.(io.WriterTo)
	if !ok {
		return io.CopyBuffer(w, struct{ io.Reader }{d}, make([]byte, 256<<10))
	}
	out := &sink{w: w}
	n, err := wt.WriteTo(out)
	if err != nil && out.err == nil {
		err = d.explain(err)
	}
	return n, err
}

// sink remembers the error of the writer that a stream goes to.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

func (d *decompressor) Close() error { return d.close() }

func (d *decompressor) explain(err error) error {
	if d.src.err != nil {
		return d.src.err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("decompress %s: %w: %w", d.form, err, errdefs.ErrInvalidArgument)
}
