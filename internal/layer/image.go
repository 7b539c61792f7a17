package layer

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
)

// image writes the EROFS image of a tree that has been laid out.
type image struct {
	*layout
	w    *bufio.Writer
	off  int64 // where the next byte goes
	data int64 // where the chunks begin that the index keeps
	sum  hash.Hash

	zeros [blockSize]byte
	buf   [blockSize]byte // of what is encoded
	block dirBlock
}

// dataAlign is where the kept chunks of sparse files begin: on a page, so that
// holes between them take no space.
const dataAlign = 4096

// writeImage writes all but the kept chunks. It returns where those go, and
// the size of the whole.
func writeImage(w io.WriterAt, l *layout, tarSize int64) (data, end int64, err error) {
	end = alignUp(l.next, blockSize)
	data = alignUp(end, dataAlign)
	for _, s := range l.sparse {
		if s.copied > 0 {
			end = max(end, data+s.spool+s.copied<<s.shift)
		}
	}
	im := &image{layout: l, off: metaOffset, data: data, sum: sha256.New()}
	im.w = bufio.NewWriterSize(io.MultiWriter(io.NewOffsetWriter(w, metaOffset), im.sum), 256<<10)
	im.emitInode(0)
	im.walk(im.emitDir)
	im.pad(alignUp(l.next, blockSize))
	if err := im.w.Flush(); err != nil {
		return 0, 0, err
	}
	if end > im.off {
		if _, err := w.WriteAt([]byte{0}, end-1); err != nil {
			return 0, 0, err
		}
	}
	s := superBlock{
		root:      uint16(l.inode(0).nid),
		inodes:    l.files,
		blocks:    uint32(end >> blockShift),
		tarBlocks: uint32(alignUp(tarSize, blockSize) >> blockShift),
		implies:   l.implies,
	}
	// overlayfs tells its layers apart by UUID.
	copy(s.uuid[:], im.sum.Sum(nil))
	if _, err := w.WriteAt(make([]byte, superOffset), 0); err != nil {
		return 0, 0, err
	}
	_, err = w.WriteAt(s.encode(), superOffset)
	return data, end, err
}

// emit writes b. Errors stay in the buffered writer until it is flushed.
func (im *image) emit(b []byte) {
	im.w.Write(b)
	im.off += int64(len(b))
}

// pad writes zeros up to a place.
func (im *image) pad(to int64) {
	for im.off < to {
		im.emit(im.zeros[:min(to-im.off, blockSize)])
	}
}

// emitDir writes what belongs to a directory: its blocks, then the inodes of
// its files. Those with more than one name may have been written before.
func (im *image) emitDir(dir uint32) {
	if in := im.inode(dir); in.data != 0 {
		im.pad(int64(in.data) << blockShift)
		im.emitEntries(dir, 0, in.inBlocks())
		im.pad(alignUp(im.off, blockSize))
	}
	for id := range im.children(dir) {
		if int64(im.inode(id).nid)<<nidShift >= im.off {
			im.emitInode(id)
		}
	}
}

// emitInode writes an inode and all that stands behind it.
func (im *image) emitInode(id uint32) {
	in := im.inode(id)
	im.pad(int64(in.nid) << nidShift)
	set := im.xattrsOf(in)
	im.emit(im.encodeInode(in, len(set)))
	if len(set) > 0 {
		im.emit(im.zeros[:xattrHead])
		im.emit(set)
	}
	switch in.mode & typeMask {
	case typeRegular:
		if im.chunksOf(in) > 0 {
			im.pad(alignUp(im.off, chunkSize))
			im.emitChunks(in)
		}
	case typeDir:
		if in.is(flagTail) {
			im.emitEntries(id, in.size&^(blockSize-1), in.size)
		}
	case typeSymlink:
		target := im.text.at(in.data)
		full := min(in.inBlocks(), in.size)
		im.emit(target[full:])
		if full > 0 {
			im.pad(alignUp(im.off, blockSize))
			im.emit(target[:full])
			im.pad(alignUp(im.off, blockSize))
		}
	}
}

// encodeInode returns the 64 bytes of an extended inode, until the next call.
func (im *image) encodeInode(in *inode, xattrs int) []byte {
	layout, data := uint16(layoutPlain), uint32(0)
	switch in.mode & typeMask {
	case typeRegular:
		if im.chunksOf(in) > 0 {
			layout, data = layoutChunks, chunkIndexes|uint32(im.shiftOf(in)-blockShift)
		}
	case typeDir, typeChar, typeBlock:
		data = in.data
	case typeSymlink:
		if n := in.inBlocks(); n > 0 {
			end := im.off + headSize(xattrs) + max(in.size-n, 0)
			data = uint32(alignUp(end, blockSize) >> blockShift)
		}
	}
	if in.is(flagTail) {
		layout = layoutInline
	}
	b := im.buf[:inodeSize]
	clear(b)
	le := binary.LittleEndian
	le.PutUint16(b[0:], layout<<1|extended)
	if xattrs > 0 {
		le.PutUint16(b[2:], uint16(xattrs/4+1))
	}
	le.PutUint16(b[4:], in.mode)
	le.PutUint64(b[8:], uint64(in.size))
	le.PutUint32(b[16:], data)
	le.PutUint32(b[20:], in.nid)
	le.PutUint32(b[24:], in.uid)
	le.PutUint32(b[28:], in.gid)
	le.PutUint64(b[32:], uint64(in.mtime))
	le.PutUint32(b[40:], in.nsec)
	le.PutUint32(b[44:], in.links)
	return b
}

// shiftOf returns the size of the chunks of a file. One that isn't sparse is a
// single chunk, as large as it must be.
func (im *image) shiftOf(in *inode) uint {
	if in.is(flagSparse) {
		return im.sparse[in.data].shift
	}
	shift := uint(blockShift)
	for (in.size-1)>>shift > 0 {
		shift++
	}
	return shift
}

func (im *image) emitChunks(in *inode) {
	if !in.is(flagSparse) {
		im.emitChunk(inTar, int64(in.data)<<blockShift)
		return
	}
	s := im.sparse[in.data]
	for _, r := range s.runs {
		for i := range r.n {
			at := r.start + i<<s.shift
			if r.where == inIndex {
				at += im.data + s.spool
			}
			im.emitChunk(r.where, at)
		}
	}
}

// emitChunk writes where one chunk lies. Device 1 is the tar, 0 the index.
func (im *image) emitChunk(where place, at int64) {
	block, device := uint32(at>>blockShift), uint16(0)
	switch where {
	case nothing:
		block = nullBlock
	case inTar:
		device = 1
	}
	b := im.buf[:chunkSize]
	clear(b)
	binary.LittleEndian.PutUint16(b[2:], device)
	binary.LittleEndian.PutUint32(b[4:], block)
	im.emit(b)
}

// emitEntries writes the blocks of a directory between two places of its data.
func (im *image) emitEntries(dir uint32, from, to int64) {
	block := &im.block
	var at int64
	flush := func(size int64) {
		if at >= from && at < to {
			im.emit(block.encode(im.buf[:size]))
		}
		at += blockSize
		block.entries, block.used = block.entries[:0], 0
	}
	im.entries(dir, func(name []byte, in *inode) {
		if block.used+direntSize+len(name) > blockSize {
			flush(blockSize)
		}
		block.entries = append(block.entries, dirent{name, uint64(in.nid), fileType(in.mode)})
		block.used += direntSize + len(name)
	})
	flush(int64(block.used))
}

type dirent struct {
	name []byte
	nid  uint64
	kind byte
}

// dirBlock is one block of a directory: entries of fixed size, then the names.
type dirBlock struct {
	entries []dirent
	used    int
}

// encode fills b, which is as large as the block.
func (d *dirBlock) encode(b []byte) []byte {
	clear(b)
	name := len(d.entries) * direntSize
	for i, e := range d.entries {
		at := b[i*direntSize:]
		binary.LittleEndian.PutUint64(at, e.nid)
		binary.LittleEndian.PutUint16(at[8:], uint16(name))
		at[10] = e.kind
		name += copy(b[name:], e.name)
	}
	return b
}
