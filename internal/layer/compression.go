package layer

import (
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Compression is the form in which a layer travels.
type Compression int

// The forms that shale reads. It writes None, Gzip and Zstd.
const (
	None Compression = iota
	Gzip
	Zstd
	Bzip2
	Xz
)

// String returns the name that people use: "gzip", or "none".
func (c Compression) String() string {
	switch c {
	case None:
		return "none"
	case Gzip:
		return "gzip"
	case Zstd:
		return "zstd"
	case Bzip2:
		return "bzip2"
	case Xz:
		return "xz"
	}
	return fmt.Sprintf("compression %d", int(c))
}

// MediaType returns the OCI media type of a layer in this form. Bzip2 and xz
// have none, because image-spec knows no such layers: it is empty for them.
func (c Compression) MediaType() string {
	switch c {
	case None:
		return ocispec.MediaTypeImageLayer
	case Gzip:
		return ocispec.MediaTypeImageLayerGzip
	case Zstd:
		return ocispec.MediaTypeImageLayerZstd
	}
	return ""
}

// Decompress returns what r holds without its compression, which is found by
// content, never by name. The caller closes the result; r stays open.
//
// Memory is bounded whatever the stream asks for: windows over 128 MiB are
// refused. How much comes out is for the caller to limit.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	return nil, None, fmt.Errorf("decompress: %w", errdefs.ErrNotImplemented)
}

// Compress returns a writer that puts what it is given into w in form c. A
// level of 0 is the default of c. Closing it ends the stream and leaves w open.
//
// The same input gives the same bytes, however many threads there are and in
// whatever pieces the input comes.
func Compress(w io.Writer, c Compression, level int) (io.WriteCloser, error) {
	return nil, fmt.Errorf("compress: %w", errdefs.ErrNotImplemented)
}
