package layer

import (
	"archive/tar"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
)

// Writer writes a layer in its canonical form: headers with no field that
// depends on the machine, PAX records only where a field needs them. The order
// of the members is the caller's.
type Writer struct {
	w io.Writer
}

// NewWriter returns a Writer that writes to w. Closing it leaves w open.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// WriteHeader begins a member. Extended attributes are given as PAX records
// "SCHILY.xattr.NAME"; user and group names, access and change times are
// dropped, and the modification time is cut to the second.
func (w *Writer) WriteHeader(h *tar.Header) error {
	return fmt.Errorf("write header of %s: %w", h.Name, errdefs.ErrNotImplemented)
}

// Write adds to the content of the member that WriteHeader began.
func (w *Writer) Write(p []byte) (int, error) {
	return 0, fmt.Errorf("write content: %w", errdefs.ErrNotImplemented)
}

// ReadFrom copies r into the content of the current member.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	return 0, fmt.Errorf("write content: %w", errdefs.ErrNotImplemented)
}

// Whiteout says that path, which a lower layer has, is no more.
func (w *Writer) Whiteout(path string) error {
	return fmt.Errorf("write whiteout of %s: %w", path, errdefs.ErrNotImplemented)
}

// Opaque says that nothing which lower layers have in dir is there any more.
func (w *Writer) Opaque(dir string) error {
	return fmt.Errorf("write opaque %s: %w", dir, errdefs.ErrNotImplemented)
}

// Close ends the tar. It does not close the writer below.
func (w *Writer) Close() error {
	return fmt.Errorf("close layer: %w", errdefs.ErrNotImplemented)
}
