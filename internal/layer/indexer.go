package layer

import (
	"fmt"
	"io"

	"github.com/containerd/errdefs"
)

// Indexer makes the index of a layer from its tar while the tar streams by.
// Write never keeps file contents; memory grows with the number of members.
type Indexer struct {
	tmpDir string
}

// Info is what an [Indexer] has seen.
type Info struct {
	Members   int   // members of the tar, whiteouts included
	Files     int   // files and directories of the index, hard links counted once
	TarSize   int64 // bytes of the tar
	IndexSize int64 // bytes of the index
	Content   int64 // bytes of all regular files
}

// NewIndexer returns an Indexer. It keeps what doesn't fit memory, which is
// the content of sparse files, in a file without a name in tmpDir.
func NewIndexer(tmpDir string) *Indexer { return &Indexer{tmpDir: tmpDir} }

// Write takes the next bytes of the tar. An error names the member that
// caused it, ends in [errdefs.ErrInvalidArgument] if the tar is at fault, and
// is what every later Write and Finish return, too.
func (x *Indexer) Write(p []byte) (int, error) {
	return 0, fmt.Errorf("index layer: %w", errdefs.ErrNotImplemented)
}

// Finish says that the tar is complete and writes its index to w, which must
// be empty.
func (x *Indexer) Finish(w io.WriterAt) (Info, error) {
	return Info{}, fmt.Errorf("index layer: %w", errdefs.ErrNotImplemented)
}

// Close drops what the Indexer holds. It may be called at any time.
func (x *Indexer) Close() error { return nil }
