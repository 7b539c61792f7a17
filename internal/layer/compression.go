package layer

import (
	"fmt"

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
