package layer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/containerd/errdefs"
)

// FS is the file system of one layer, read through its index without a mount.
//
// It follows no symbolic link, in no part of a name: where a link leads is
// decided by all the layers of an image together. So Stat is Lstat, and a name
// that goes through something else than directories is not there. Whiteouts
// and opaque directories are there to see, as [Stat] says. Names are those of
// io/fs, but need not be UTF-8.
//
// An FS may be used by several goroutines at once. It holds no resource but
// memory; the readers that it was made from must outlive it.
type FS struct {
	index *pages
	tar   io.ReaderAt
	root  uint64

	implies bool

	tarSize int64 // in bytes, rounded up to blocks
}

var (
	_ fs.ReadDirFS  = (*FS)(nil)
	_ fs.ReadLinkFS = (*FS)(nil)
	_ fs.StatFS     = (*FS)(nil)
)

// Open returns the file system that index, of indexSize bytes, and tar show
// together. An index that another version of shale has made is an
// [errdefs.ErrFailedPrecondition], a damaged one an [errdefs.ErrDataLoss].
func Open(index io.ReaderAt, indexSize int64, tar io.ReaderAt) (*FS, error) {
	f := &FS{index: newPages(index, indexSize), tar: tar}
	b, err := f.index.read(superOffset, blockSize)
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	if f.root, f.implies, err = decodeSuper(b, indexSize); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	f.tarSize = int64(binary.LittleEndian.Uint32(b[superSize+64:])) << blockShift
	root, err := f.inode(f.root)
	if err == nil && root.mode&typeMask != typeDir {
		err = corrupt("root is no directory")
	}
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	return f, nil
}

// Shows reports whether the index is that of a tar of size bytes, as far as
// the size tells.
func (f *FS) Shows(size int64) bool { return f.tarSize == alignUp(size, blockSize) }

// Implies reports whether the layer has a directory, other than the root, that
// its tar doesn't hold ([Stat.Implied]).
func (f *FS) Implies() bool { return f.implies }

// Open opens a file. Those that are neither regular nor a directory can only
// be asked for their Stat. A regular one is an [io.ReaderAt], an [io.Seeker]
// and an [io.WriterTo], too.
func (f *FS) Open(name string) (fs.File, error) {
	in, err := f.find(name)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	switch in.mode & typeMask {
	case typeRegular:
		return &File{fsys: f, name: name, in: in}, nil
	case typeDir:
		return &dirFile{special: special{f, name, in}}, nil
	}
	return &special{f, name, in}, nil
}

// ReadDir returns the entries of a directory, sorted by name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	in, err := f.find(name)
	if err == nil && in.mode&typeMask != typeDir {
		err = errNotDir
	}
	var list []fs.DirEntry
	if err == nil {
		list, err = f.readDir(in)
	}
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	return list, nil
}

// ReadLink returns the target of a symbolic link.
func (f *FS) ReadLink(name string) (string, error) {
	in, err := f.find(name)
	if err == nil && in.mode&typeMask != typeSymlink {
		err = fs.ErrInvalid
	}
	var target []byte
	if err == nil {
		target, err = f.flat(in, 0, in.size)
	}
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	return string(target), nil
}

// Stat is Lstat.
func (f *FS) Stat(name string) (fs.FileInfo, error) { return f.Lstat(name) }

// Lstat describes a file. The Sys method of the result returns a [*Stat].
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	in, err := f.find(name)
	if err != nil {
		return nil, pathError("lstat", name, err)
	}
	fi, err := f.info(name, in)
	if err != nil {
		return nil, pathError("lstat", name, err)
	}
	return fi, nil
}

var errNotDir = errors.New("not a directory")

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("index: %s: %w", fmt.Sprintf(format, args...), errdefs.ErrDataLoss)
}

// find goes down a name.
func (f *FS) find(name string) (*diskInode, error) {
	in, err := f.inode(f.root)
	if err != nil || name == "." {
		return in, err
	}
	for rest, more := name, true; more; {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		if part == "" || part == "." || part == ".." {
			return nil, fs.ErrInvalid
		}
		if in.mode&typeMask != typeDir {
			return nil, fs.ErrNotExist
		}
		nid, err := f.lookup(in, part)
		if err != nil {
			return nil, err
		}
		if in, err = f.inode(nid); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// lookup finds a name in a directory: first its block, then its entry.
func (f *FS) lookup(dir *diskInode, name string) (uint64, error) {
	want := []byte(name)
	low, high := int64(0), (dir.size+blockSize-1)>>blockShift
	for high-low > 1 {
		mid := (low + high) / 2
		block, err := f.dirBlock(dir, mid)
		if err != nil {
			return 0, err
		}
		first, err := block.entry(0)
		if err != nil {
			return 0, err
		}
		if bytes.Compare(first.name, want) <= 0 {
			low = mid
		} else {
			high = mid
		}
	}
	block, err := f.dirBlock(dir, low)
	if err != nil {
		return 0, err
	}
	for i, j := 0, block.n; i < j; {
		mid := (i + j) / 2
		e, err := block.entry(mid)
		if err != nil {
			return 0, err
		}
		switch bytes.Compare(e.name, want) {
		case 0:
			return e.nid, nil
		case -1:
			i = mid + 1
		default:
			j = mid
		}
	}
	return 0, fs.ErrNotExist
}

// readDir returns all entries but "." and "..".
func (f *FS) readDir(dir *diskInode) ([]fs.DirEntry, error) {
	if dir.size > f.index.size {
		return nil, corrupt("directory %d of %d bytes", dir.nid, dir.size)
	}
	list := make([]fs.DirEntry, 0, dir.size/24)
	for i := range (dir.size + blockSize - 1) >> blockShift {
		block, err := f.dirBlock(dir, i)
		if err != nil {
			return nil, err
		}
		for k := range block.n {
			e, err := block.entry(k)
			if err != nil {
				return nil, err
			}
			name := string(e.name)
			if name == "." || name == ".." {
				continue
			}
			if name == "" || strings.ContainsAny(name, "/\x00") {
				return nil, corrupt("entry with the name %q", name)
			}
			list = append(list, &entry{f, name, e.nid, e.kind})
		}
	}
	return list, nil
}
