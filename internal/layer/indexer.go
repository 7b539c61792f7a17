package layer

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/sys"
)

// Indexer makes the index of a layer from its tar while the tar streams by.
// Write never keeps file contents. What it knows of the members takes some 90
// bytes each: of 65,536 of them in memory, of the rest in a file. A tar whose
// names are not in order has the whole of that file in memory, too.
type Indexer struct {
	parser  parser
	tree    *treeBuilder
	scratch *sys.Scratch // of tree
	members int
	spool   spool
	sparse  *sparseMap // of the file whose content is coming
	closed  bool
}

// Info is what an [Indexer] has seen.
type Info struct {
	Members   int   // members of the tar, whiteouts included
	Files     int   // files and directories of the index, hard links counted once
	TarSize   int64 // bytes of the tar
	IndexSize int64 // bytes of the index
	Content   int64 // bytes of all regular files
}

// NewIndexer returns an Indexer, which the caller closes. It keeps what doesn't
// fit memory, which is most of a large tree and the content of some sparse
// files, in files without a name in tmpDir. If that has no room for a large
// tree, all of it is in memory.
func NewIndexer(tmpDir string) *Indexer {
	x := &Indexer{scratch: sys.NewScratch(tmpDir), spool: spool{dir: tmpDir}}
	x.tree = newTreeBuilder(x.scratch)
	x.parser.member = x.member
	x.parser.content = x.content
	return x
}

// Write takes the next bytes of the tar. An error names the member that
// caused it, ends in [errdefs.ErrInvalidArgument] if the tar is at fault or
// [errdefs.ErrResourceExhausted] if it exceeds a limit, and is what every later
// Write and Finish return, too.
func (x *Indexer) Write(p []byte) (n int, err error) {
	defer func() {
		if err != nil && x.parser.err == nil {
			n, x.parser.err = 0, err
		}
	}()
	defer x.scratch.Guard()(&err)
	return x.parser.Write(p)
}

func (x *Indexer) member(m *member) (want bool, err error) {
	x.members++
	x.sparse, err = x.tree.add(m)
	if err != nil || x.sparse == nil {
		return false, err
	}
	x.sparse.spool = x.spool.reserve(x.sparse.copied << x.sparse.shift)
	return x.sparse.copied > 0, nil
}

func (x *Indexer) content(p []byte) error {
	base := x.sparse.spool
	return x.sparse.take(p, func(p []byte, at int64) error { return x.spool.write(p, base+at) })
}

// Finish says that the tar is complete and writes its index to w, which must
// be empty.
func (x *Indexer) Finish(w io.WriterAt) (info Info, err error) {
	if x.closed {
		return Info{}, fmt.Errorf("finish index: %w", errdefs.ErrFailedPrecondition)
	}
	defer func() { err = errors.Join(err, x.drop()) }()
	defer x.scratch.Guard()(&err)
	if err := x.parser.close(); err != nil {
		return Info{}, err
	}
	l, err := newLayout(x.tree)
	if err != nil {
		return Info{}, fmt.Errorf("write index: %w", err)
	}
	data, size, err := writeImage(w, l, x.parser.off)
	if err != nil {
		return Info{}, fmt.Errorf("write index: %w", err)
	}
	if err := x.spool.copyTo(w, data); err != nil {
		return Info{}, fmt.Errorf("write index: %w", err)
	}
	return Info{
		Members:   x.members,
		Files:     int(l.files),
		TarSize:   x.parser.off,
		IndexSize: size,
		Content:   l.content,
	}, nil
}

// Close drops what the Indexer holds. It may be called at any time.
func (x *Indexer) Close() error { return errors.Join(x.drop(), x.spool.close()) }

// drop lets go of the tree.
func (x *Indexer) drop() error {
	x.closed = true
	x.tree = nil
	if x.parser.err == nil {
		x.parser.err = fmt.Errorf("index layer: closed: %w", errdefs.ErrFailedPrecondition)
	}
	return x.scratch.Close()
}

// spool keeps chunks of sparse files until the index is written.
type spool struct {
	dir    string
	file   *os.File
	size   int64
	pieces []segment // that were written, in order
}

// reserve returns the place of n bytes, on a page.
func (s *spool) reserve(n int64) int64 {
	at := alignUp(s.size, dataAlign)
	if n > 0 {
		s.size = at + n
	}
	return at
}

func (s *spool) write(p []byte, at int64) error {
	if s.file == nil {
		f, err := sys.UnnamedFile(s.dir)
		if err != nil {
			return fmt.Errorf("index sparse file: %w", err)
		}
		s.file = f
	}
	if _, err := s.file.WriteAt(p, at); err != nil {
		return fmt.Errorf("index sparse file: %w", err)
	}
	if last := len(s.pieces) - 1; last >= 0 && s.pieces[last].off+s.pieces[last].size == at {
		s.pieces[last].size += int64(len(p))
	} else {
		s.pieces = append(s.pieces, segment{at, int64(len(p))})
	}
	return nil
}

// copyTo writes the chunks to w, from base on, and leaves holes holes.
func (s *spool) copyTo(w io.WriterAt, base int64) error {
	for _, p := range s.pieces {
		_, err := io.Copy(io.NewOffsetWriter(w, base+p.off), io.NewSectionReader(s.file, p.off, p.size))
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}
