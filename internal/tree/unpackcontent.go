package tree

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/shaleproject/shale/internal/sys"
)

// content says where the content of the current member lies, or puts it into
// the spool.
func (u *unpacker) content(h *tar.Header, i *inode) error {
	i.size = h.Size
	if u.plain != nil && !isSparse(h) {
		i.from, i.at = u.plain, rangeName(u.count.n, h.Size)
		return nil
	}
	if u.spool == nil {
		f, err := sys.UnnamedFile(u.Temp)
		if err != nil {
			return err
		}
		u.Changes.spool = append(u.Changes.spool, f)
		u.spool = f
		u.spooled = &ranges{open: func(off, size int64) (fs.File, error) {
			return section{f, off, size}.Open("")
		}}
	}
	n, err := io.Copy(u.spool, u.tar)
	if err != nil {
		return err
	}
	i.from, i.at = u.spooled, rangeName(u.used, n)
	u.used += n
	return nil
}

func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// ranges are the contents of one archive, called by where they lie in it.
type ranges struct {
	section
	open func(off, size int64) (fs.File, error)
}

// rangeName is the name of the content that begins at off and has size bytes.
func rangeName(off, size int64) string { return fmt.Sprintf("%d+%d", off, size) }

// Open opens a content.
func (r *ranges) Open(name string) (fs.File, error) {
	begin, length, _ := strings.Cut(name, "+")
	off, err := strconv.ParseInt(begin, 10, 64)
	if err != nil {
		return nil, notExist("open", name)
	}
	size, err := strconv.ParseInt(length, 10, 64)
	if err != nil {
		return nil, notExist("open", name)
	}
	return r.open(off, size)
}

// part is a file that ranges are parts of.
type part struct {
	fsys FS
	at   string
}

// open opens size bytes of the file from off on.
func (p part) open(off, size int64) (fs.File, error) {
	f, err := p.fsys.Open(p.at)
	if err != nil {
		return nil, err
	}
	if r, ok := f.(io.ReaderAt); ok {
		return &partFile{f, io.NewSectionReader(r, off, size)}, nil
	}
	if _, err := io.CopyN(io.Discard, f, off); err != nil {
		f.Close()
		return nil, err
	}
	return &partFile{f, io.LimitReader(f, size)}, nil
}

type partFile struct {
	fs.File
	r io.Reader
}

func (p *partFile) Read(b []byte) (int, error) { return p.r.Read(b) }
