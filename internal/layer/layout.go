package layer

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
)

// maxIndex bounds an index: 32 bits name an inode.
const maxIndex = 1 << (32 + nidShift)

// layout gives every inode of a tree its place in the image. Places grow in
// the order of [layout.walk], which the writing follows: a directory's entries
// come right before the inodes of its files, and then each of its directories.
type layout struct {
	*treeBuilder
	next     int64  // the first free byte
	whiteout uint32 // the inode of all whiteouts
	implies  bool   // directories other than the root are implied
	files    uint64
	content  int64
	kids     []uint32 // of the directory that is sorted
}

// newLayout fails with an [errdefs.ErrResourceExhausted] if an inode has no
// place that a number of 32 bits can name.
func newLayout(t *treeBuilder) (*layout, error) {
	l := &layout{treeBuilder: t, next: metaOffset}
	l.sort(0)
	l.placeInode(0)
	l.walk(func(dir uint32) {
		in := l.inode(dir)
		in.links = 2
		l.placeBlocks(in)
		for id := range l.children(dir) {
			child := l.inode(id)
			child.links++
			if child.mode&typeMask == typeDir {
				in.links++
				l.sort(id)
			}
			if child.nid == 0 {
				l.placeInode(id)
			}
		}
	})
	if l.next > maxIndex {
		return nil, fmt.Errorf("layout of more than %d bytes: %w", int64(maxIndex), errdefs.ErrResourceExhausted)
	}
	return l, nil
}

// walk calls visit for every directory, parents first, siblings by name.
func (l *layout) walk(visit func(dir uint32)) {
	stack := []uint32{0}
	for len(stack) > 0 {
		dir := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		visit(dir)
		top := len(stack)
		for id := range l.children(dir) {
			if l.inode(id).mode&typeMask == typeDir {
				stack = append(stack, id)
			}
		}
		slices.Reverse(stack[top:])
	}
}

// children ranges over a directory that has been sorted.
func (l *layout) children(dir uint32) func(func(uint32) bool) {
	return func(yield func(uint32) bool) {
		for id := l.nodes.at(dir).child; id != 0; id = l.nodes.at(id).next {
			if l.look(id); !yield(id) {
				return
			}
		}
	}
}

// sort puts the children of a directory into the order of their names and
// drops those that aren't in the image. Of a tar in order, they are in
// descending order already.
func (l *layout) sort(dir uint32) {
	var first uint32
	for next := l.nodes.at(dir).child; next != 0; {
		id := next
		n := l.nodes.at(id)
		next = n.next
		if l.look(id); l.settle(dir, id) {
			first, n.next = id, first
		}
	}
	l.nodes.at(dir).child = first
	if l.disorder {
		l.sortAny(dir)
	}
	in := l.inode(dir)
	in.size = l.dirSize(dir)
	l.implies = l.implies || in.is(flagImplied) && dir != 0
}

// settle says whether a child of a directory is in the image, and decides what
// whiteouts mean: one whose name the layer itself has again hides only what is
// below, so such a directory is opaque, and has nothing to do with one below,
// even if it is only implied.
func (l *layout) settle(dir, id uint32) bool {
	n := l.nodes.at(id)
	switch {
	case n.dead || n.inode == 0 && !n.whiteout:
		return false
	case n.inode == 0:
		if l.whiteout == 0 {
			l.whiteout = l.inodes.add(inode{mode: typeChar})
		}
		n.inode = l.whiteout
		l.inode(dir).flags |= flagVeils
	case n.whiteout && l.inode(id).mode&typeMask == typeDir:
		in := l.inode(id)
		in.flags = in.flags&^flagImplied | flagOpaque
	}
	return true
}

// sortAny sorts children that are in any order.
func (l *layout) sortAny(dir uint32) {
	kids := l.kids[:0]
	for id := range l.children(dir) {
		kids = append(kids, id)
	}
	slices.SortFunc(kids, func(a, b uint32) int { return bytes.Compare(l.nameOf(a), l.nameOf(b)) })
	link := &l.nodes.at(dir).child
	for _, id := range kids {
		l.look(id)
		*link = id
		link = &l.nodes.at(id).next
	}
	*link = 0
	l.kids = kids
}

func (l *layout) nameOf(id uint32) []byte { return l.text.at(l.nodes.at(id).name) }

// entries calls yield for each entry of a directory, "." and ".." included, in
// the order of the bytes of their names.
func (l *layout) entries(dir uint32, yield func(name []byte, in *inode)) {
	dots := []struct {
		name string
		in   *inode
	}{{".", l.inode(dir)}, {"..", l.inode(l.nodes.at(dir).parent)}}
	for id := range l.children(dir) {
		name := l.nameOf(id)
		for len(dots) > 0 && dots[0].name < string(name) {
			yield([]byte(dots[0].name), dots[0].in)
			dots = dots[1:]
		}
		yield(name, l.inode(id))
	}
	for _, dot := range dots {
		yield([]byte(dot.name), dot.in)
	}
}

// dirSize returns the bytes of a directory: full blocks, and a last one that
// ends with its last name.
func (l *layout) dirSize(dir uint32) int64 {
	var full, used int64
	l.entries(dir, func(name []byte, _ *inode) {
		need := int64(direntSize + len(name))
		if used+need > blockSize {
			full, used = full+blockSize, 0
		}
		used += need
	})
	return full + used
}

// xattrsOf returns the attributes of an inode as they stand in the image.
func (l *layout) xattrsOf(in *inode) []byte {
	set := slices.Clip(l.text.at(in.xattrs))
	if in.is(flagOpaque) {
		set = appendXattr(set, opaqueXattr, "y")
	}
	if in.is(flagVeils) {
		set = appendXattr(set, originXattr, "")
	}
	if in.is(flagImplied) {
		set = appendXattr(set, impliedXattr, "y")
	}
	return set
}

// placeInode gives an inode, with its attributes and list of chunks, its place.
func (l *layout) placeInode(id uint32) {
	in := l.inode(id)
	head := headSize(len(l.xattrsOf(in)))
	at := l.inodeAt(l.next)
	end := at + head
	switch in.mode & typeMask {
	case typeRegular:
		l.content += in.size
		if n := l.chunksOf(in); n > 0 {
			end = alignUp(end, chunkSize) + n*chunkSize
		}
	case typeDir, typeSymlink:
		at, end = l.placeTail(in, at, head)
	}
	in.nid = uint32(at >> nidShift)
	l.files++
	l.next = end
	if size := in.inBlocks(); in.mode&typeMask == typeSymlink && size > 0 {
		l.next = alignUp(end, blockSize) + size
	}
}

// headSize returns the bytes of an inode with its attributes.
func headSize(xattrs int) int64 {
	if xattrs == 0 {
		return inodeSize
	}
	return inodeSize + xattrHead + int64(xattrs)
}

// inodeAt returns the next place where an inode lies within one block.
func (l *layout) inodeAt(off int64) int64 {
	off = alignUp(off, 1<<nidShift)
	if off&(blockSize-1) > blockSize-inodeSize {
		off = alignUp(off, blockSize)
	}
	return off
}

// placeTail decides where the last part of a block goes: behind the inode,
// where it must not cross the end of a block, or into a block of its own,
// whichever wastes less. It returns where the inode begins and ends.
func (l *layout) placeTail(in *inode, at, head int64) (int64, int64) {
	tail := in.size & (blockSize - 1)
	if tail == 0 {
		return at, at + head
	}
	for _, try := range []int64{at, l.inodeAt(alignUp(at+head, blockSize) - head)} {
		if try >= at && (try+head)&(blockSize-1)+tail <= blockSize && try-at <= blockSize-tail {
			in.flags |= flagTail
			return try, try + head + tail
		}
	}
	return at, at + head
}

// placeBlocks gives the data of a directory its blocks.
func (l *layout) placeBlocks(in *inode) {
	if size := in.inBlocks(); size > 0 {
		start := alignUp(l.next, blockSize)
		in.data = uint32(start >> blockShift)
		l.next = start + size
	}
}

func (l *layout) chunksOf(in *inode) int64 {
	switch {
	case in.is(flagSparse):
		return l.sparse[in.data].chunks()
	case in.size > 0:
		return 1
	}
	return 0
}

func alignUp(n, to int64) int64 { return (n + to - 1) &^ (to - 1) }
