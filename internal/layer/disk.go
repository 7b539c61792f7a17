package layer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/containerd/errdefs"
)

// diskInode is an inode as the index has it.
type diskInode struct {
	nid      uint64
	layout   uint16
	mode     uint16
	links    uint32
	uid, gid uint32
	nsec     uint32
	data     uint32
	mtime    int64
	size     int64
	xattrs   int64 // where the attributes begin, after their header …
	end      int64 // … and where they end; a tail or a list of chunks follows
}

// decodeSuper checks the super block and returns the root, and whether other
// directories are implied.
func decodeSuper(b []byte, size int64) (root uint64, implies bool, err error) {
	le := binary.LittleEndian
	if le.Uint32(b) != erofsMagic {
		return 0, false, corrupt("no EROFS image")
	}
	text, _, _ := bytes.Cut(b[64:80], []byte{0})
	name, implies := strings.CutSuffix(string(text), impliesMark)
	if name != volume {
		return 0, false, fmt.Errorf("index: format %q, not %q: %w", name, volume, errdefs.ErrFailedPrecondition)
	}
	sum := bytes.Clone(b)
	clear(sum[4:8])
	if ^crc32.Checksum(sum, crc32.MakeTable(crc32.Castagnoli)) != le.Uint32(b[4:]) {
		return 0, false, corrupt("bad checksum")
	}
	if blocks := int64(le.Uint32(b[36:])); size < blocks<<blockShift {
		return 0, false, corrupt("%d bytes, not %d", size, blocks<<blockShift)
	}
	return uint64(le.Uint16(b[14:])), implies, nil
}

// inode reads the inode with a number.
func (f *FS) inode(nid uint64) (*diskInode, error) {
	if nid > uint64(f.index.size)>>nidShift {
		return nil, corrupt("inode %d", nid)
	}
	at := int64(nid) << nidShift
	b, err := f.index.read(at, inodeSize)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	in := &diskInode{
		nid:    nid,
		layout: le.Uint16(b) >> 1,
		mode:   le.Uint16(b[4:]),
		size:   int64(le.Uint64(b[8:])),
		data:   le.Uint32(b[16:]),
		uid:    le.Uint32(b[24:]),
		gid:    le.Uint32(b[28:]),
		mtime:  int64(le.Uint64(b[32:])),
		nsec:   le.Uint32(b[40:]),
		links:  le.Uint32(b[44:]),
		xattrs: at + inodeSize,
		end:    at + inodeSize,
	}
	if b[0]&extended == 0 || in.size < 0 {
		return nil, corrupt("inode %d", nid)
	}
	if n := int64(le.Uint16(b[2:])); n > 0 {
		in.xattrs += xattrHead
		in.end = in.xattrs + 4*(n-1)
	}
	return in, nil
}

// flat returns bytes of a directory or of the target of a link. They must not
// be changed.
func (f *FS) flat(in *diskInode, off, n int64) ([]byte, error) {
	if in.size > f.index.size {
		return nil, corrupt("inode %d of %d bytes", in.nid, in.size)
	}
	full := in.size
	switch in.layout {
	case layoutPlain:
	case layoutInline:
		full &^= blockSize - 1
	default:
		return nil, corrupt("inode %d with layout %d", in.nid, in.layout)
	}
	start := int64(in.data) << blockShift
	if off+n <= full {
		return f.index.read(start+off, n)
	}
	if off >= full {
		return f.index.read(in.end+off-full, n)
	}
	head, err := f.index.read(start+off, full-off)
	if err != nil {
		return nil, err
	}
	tail, err := f.index.read(in.end, off+n-full)
	return append(bytes.Clone(head), tail...), err
}

// diskBlock is a block of a directory with n entries.
type diskBlock struct {
	b []byte
	n int
}

type diskEntry struct {
	name []byte
	nid  uint64
	kind byte
}

func (f *FS) dirBlock(dir *diskInode, i int64) (diskBlock, error) {
	off := i << blockShift
	b, err := f.flat(dir, off, min(blockSize, dir.size-off))
	if err != nil {
		return diskBlock{}, err
	}
	if len(b) < direntSize {
		return diskBlock{}, corrupt("directory %d", dir.nid)
	}
	names := int(binary.LittleEndian.Uint16(b[8:]))
	if names == 0 || names%direntSize != 0 || names > len(b) {
		return diskBlock{}, corrupt("directory %d", dir.nid)
	}
	return diskBlock{b, names / direntSize}, nil
}

// entry returns an entry. A name ends where the next begins, and the last one
// with the block or a zero.
func (d diskBlock) entry(i int) (diskEntry, error) {
	le := binary.LittleEndian
	b := d.b[i*direntSize:]
	from, to := int(le.Uint16(b[8:])), len(d.b)
	if i+1 < d.n {
		to = int(le.Uint16(b[direntSize+8:]))
	}
	if from > to || to > len(d.b) {
		return diskEntry{}, corrupt("directory entry")
	}
	name := d.b[from:to]
	if i+1 == d.n {
		name, _, _ = bytes.Cut(name, []byte{0})
	}
	return diskEntry{name, le.Uint64(b), b[10]}, nil
}

// attributes puts the extended attributes of in into s: those of overlayfs by
// what they mean, the others as they are.
func (f *FS) attributes(s *Stat, in *diskInode) error {
	b, err := f.index.read(in.xattrs, in.end-in.xattrs)
	if err != nil {
		return err
	}
	for len(b) >= 4 {
		name, size := int(b[0]), int(binary.LittleEndian.Uint16(b[2:]))
		number := int(b[1])
		all := (4 + name + size + 3) &^ 3
		if all > len(b) || number >= len(xattrPrefixes) {
			return corrupt("attributes of inode %d", in.nid)
		}
		key := xattrPrefixes[number] + string(b[4:4+name])
		value := b[4+name : 4+name+size : 4+name+size]
		b = b[all:]
		switch {
		case key == opaqueXattr:
			s.Opaque = string(value) == "y"
		case key == impliedXattr:
			s.Implied = true
		case !ofOverlay(key):
			if s.Xattrs == nil {
				s.Xattrs = map[string][]byte{}
			}
			s.Xattrs[key] = value
		}
	}
	return nil
}
