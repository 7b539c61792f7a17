package layer

import (
	"encoding/binary"
	"io"
	"io/fs"
	"path"
	"time"
)

// File is a regular file of an [FS]. ReadAt may be called by several
// goroutines at once, the rest not.
type File struct {
	fsys *FS
	name string
	in   *diskInode
	pos  int64
}

var (
	_ io.ReaderAt   = (*File)(nil)
	_ io.ReadSeeker = (*File)(nil)
	_ io.WriterTo   = (*File)(nil)
)

// Stat describes the file.
func (f *File) Stat() (fs.FileInfo, error) { return f.fsys.info(f.name, f.in) }

// Close does nothing.
func (f *File) Close() error { return nil }

// Size returns the bytes of the file.
func (f *File) Size() int64 { return f.in.size }

// InTar returns where the content lies in the tar, if it lies there in one
// piece.
func (f *File) InTar() (off int64, ok bool) {
	if f.in.size == 0 {
		return 0, true
	}
	e, err := f.fsys.extent(f.in, 0)
	return e.at, err == nil && e.size == f.in.size && e.where == inTar
}

// Read reads on from the current place.
func (f *File) Read(p []byte) (int, error) {
	if f.pos >= f.in.size && len(p) > 0 {
		return 0, io.EOF
	}
	n, err := f.ReadAt(p, f.pos)
	f.pos += int64(n)
	if err == io.EOF && n > 0 {
		err = nil
	}
	return n, err
}

// ReadAt reads from any place.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, pathError("read", f.name, fs.ErrInvalid)
	}
	done := 0
	for len(p) > done {
		if off >= f.in.size {
			return done, io.EOF
		}
		e, err := f.fsys.extent(f.in, off)
		if err != nil {
			return done, pathError("read", f.name, err)
		}
		n, err := f.fsys.readExtent(p[done:][:min(int64(len(p)-done), e.size)], e)
		done += n
		off += int64(n)
		if err != nil {
			return done, pathError("read", f.name, err)
		}
	}
	return done, nil
}

// Seek moves the current place.
func (f *File) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += f.pos
	case io.SeekEnd:
		off += f.in.size
	}
	if off < 0 {
		return 0, pathError("seek", f.name, fs.ErrInvalid)
	}
	f.pos = off
	return off, nil
}

// WriteTo writes what follows the current place to w. A writer that can read
// from a file gets the tar itself.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	size := max(f.in.size-f.pos, 0)
	r := io.NewSectionReader(f, f.pos, size)
	if off, ok := f.InTar(); ok {
		r = io.NewSectionReader(f.fsys.tar, off+f.pos, size)
	}
	n, err := io.Copy(w, r)
	f.pos += n
	if err == nil && n < size {
		err = pathError("read", f.name, io.ErrUnexpectedEOF)
	}
	return n, err
}

// extent is a run of bytes of a file in one place.
type extent struct {
	where place
	at    int64
	size  int64
}

// extent returns the run that begins at a byte of a file.
func (f *FS) extent(in *diskInode, off int64) (extent, error) {
	if in.layout != layoutChunks || in.data&chunkIndexes == 0 {
		return extent{}, corrupt("inode %d with layout %d", in.nid, in.layout)
	}
	shift := blockShift + uint(in.data&chunkBits)
	chunk := off >> shift
	b, err := f.index.read(alignUp(in.end, chunkSize)+chunk*chunkSize, chunkSize)
	if err != nil {
		return extent{}, err
	}
	start := chunk << shift
	block := binary.LittleEndian.Uint32(b[4:])
	e := extent{inTar, int64(block)<<blockShift + off - start, min(start+1<<shift, in.size) - off}
	switch device := binary.LittleEndian.Uint16(b[2:]); {
	case block == nullBlock:
		e.where = nothing
	case device == 0:
		e.where = inIndex
	case device != 1:
		return extent{}, corrupt("device %d", device)
	}
	return e, nil
}

func (f *FS) readExtent(p []byte, e extent) (int, error) {
	r := f.tar
	switch e.where {
	case nothing:
		clear(p)
		return len(p), nil
	case inIndex:
		r = f.index.r
	}
	n, err := r.ReadAt(p, e.at)
	if n == len(p) {
		return n, nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// special is a file without content of its own.
type special struct {
	fsys *FS
	name string
	in   *diskInode
}

func (s *special) Stat() (fs.FileInfo, error) { return s.fsys.info(s.name, s.in) }
func (s *special) Close() error               { return nil }
func (s *special) Read([]byte) (int, error)   { return 0, pathError("read", s.name, fs.ErrInvalid) }

// dirFile is an open directory.
type dirFile struct {
	special
	list []fs.DirEntry
	read bool
}

func (d *dirFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.read {
		list, err := d.fsys.readDir(d.in)
		if err != nil {
			return nil, pathError("readdir", d.name, err)
		}
		d.list, d.read = list, true
	}
	if n <= 0 {
		n = len(d.list)
	} else if len(d.list) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.list))
	list := d.list[:n:n]
	d.list = d.list[n:]
	return list, nil
}

// entry is one name in a directory.
type entry struct {
	fsys *FS
	name string
	nid  uint64
	kind byte
}

func (e *entry) Name() string      { return e.name }
func (e *entry) IsDir() bool       { return e.kind == 2 }
func (e *entry) Type() fs.FileMode { return modeOfType[e.kind%8] }
func (e *entry) String() string    { return fs.FormatDirEntry(e) }

func (e *entry) Info() (fs.FileInfo, error) {
	in, err := e.fsys.inode(e.nid)
	if err != nil {
		return nil, pathError("lstat", e.name, err)
	}
	return e.fsys.info(e.name, in)
}

// modeOfType has the modes of the types of directory entries.
var modeOfType = [8]fs.FileMode{
	0: fs.ModeIrregular,
	2: fs.ModeDir,
	3: fs.ModeDevice | fs.ModeCharDevice,
	4: fs.ModeDevice,
	5: fs.ModeNamedPipe,
	6: fs.ModeSocket,
	7: fs.ModeSymlink,
}

// info is what an FS says about a file.
type info struct {
	name string
	in   *diskInode
	stat *Stat
}

func (f *FS) info(name string, in *diskInode) (fs.FileInfo, error) {
	s := &Stat{Ino: in.nid, Nlink: in.links, UID: in.uid, GID: in.gid}
	switch in.mode & typeMask {
	case typeChar, typeBlock:
		s.Rdev = uint64(in.data)
		s.Whiteout = in.data == 0 && in.mode&typeMask == typeChar
	}
	if in.end > in.xattrs {
		if err := f.attributes(s, in); err != nil {
			return nil, err
		}
	}
	return &info{path.Base(name), in, s}, nil
}

func (i *info) Name() string       { return i.name }
func (i *info) Size() int64        { return i.in.size }
func (i *info) Mode() fs.FileMode  { return goMode(i.in.mode) }
func (i *info) ModTime() time.Time { return time.Unix(i.in.mtime, int64(i.in.nsec)) }
func (i *info) IsDir() bool        { return i.in.mode&typeMask == typeDir }
func (i *info) Sys() any           { return i.stat }
func (i *info) String() string     { return fs.FormatFileInfo(i) }

// goMode translates a mode of stat(2).
func goMode(mode uint16) fs.FileMode {
	m := fs.FileMode(mode&0o777) | modeOfType[fileType(mode)]
	if mode&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	if mode&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if mode&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}
