package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/sys"
)

// node is one name in a directory. Number 0 is the root, and none else.
type node struct {
	parent, child, next uint32 // child is the first in the directory, next the next in the parent
	name                uint32 // in the arena
	inode               uint32 // 0 while only a whiteout has the name
	whiteout            bool   // a whiteout has the name
	dead                bool   // another node has taken the name
}

// inode is what names have in common that are hard links of each other. It has
// 48 bytes.
type inode struct {
	mtime    int64
	size     int64
	data     uint32 // where the content is: see below
	nid      uint32 // the place in the image, 0 until it has one
	links    uint32
	uid, gid uint32
	nsec     uint32
	xattrs   uint32 // in the arena, as they stand in the image
	mode     uint16 // type and permissions, as in stat(2)
	flags    flags
}

// The data of an inode is, of
//
//   - a regular file its first block in the tar, or, if it is flagSparse, its
//     number in treeBuilder.sparse;
//   - a directory its first block in the image, 0 if it has none;
//   - a symbolic link its target in the arena;
//   - a device its number.

// flags are what an inode has beside its mode.
type flags uint16

const (
	flagOpaque  flags = 1 << iota
	flagImplied       // a directory that is no member
	flagVeils         // a directory that holds whiteouts
	flagTail          // the last part of a block of data stands behind the inode
	flagSparse
)

func (in *inode) is(f flags) bool { return in.flags&f != 0 }

// inBlocks returns how many bytes of the image the data of a directory or
// symbolic link take that doesn't stand behind the inode.
func (in *inode) inBlocks() int64 {
	if in.is(flagTail) {
		return in.size &^ (blockSize - 1)
	}
	return alignUp(in.size, blockSize)
}

// File types of stat(2).
const (
	typeMask    = 0o170000
	typeFifo    = 0o010000
	typeChar    = 0o020000
	typeDir     = 0o040000
	typeBlock   = 0o060000
	typeRegular = 0o100000
	typeSymlink = 0o120000
)

const (
	// maxNodes bounds the names of one layer, and with them what making its
	// index takes: some 90 bytes each, most of them in a file. That file is
	// memory, too, though memory that the kernel can take back, if names come
	// out of order; then the table of names takes 6 to 12 bytes each.
	maxNodes = 4 << 20

	// maxFollow bounds what following symbolic links costs: the links on one
	// way, as Linux has it, and the parts of names on all ways of a layer.
	maxLinks  = 40
	maxFollow = 16 << 20
)

// treeBuilder is the file system that a tar describes, as far as it is known.
type treeBuilder struct {
	nodes  slab[node]
	inodes slab[inode]
	text   arena
	names  names
	xattrs map[string]uint32 // sets of attributes that came before
	sparse []*sparseMap

	disorder bool // a name was less than one before it in its directory

	lastDir string // the directory of the member before …
	last    uint32 // … and its node
	follows int    // parts of names seen behind symbolic links

	scratch *sys.Scratch // holds most of nodes, inodes and text
	group   uint32       // of the node that was looked at last …
	steps   int          // … and how often that was another one
}

// look is told of the nodes that are looked at, where they are many, and now
// and then lets go of what lies in scratch: after a number of steps from one
// group of nodes, which is less than a page of anything, to another. In a tree
// that came in order, what is left behind won't be touched again soon. In
// another it will, and getting it back costs more than the memory is worth.
func (t *treeBuilder) look(id uint32) {
	const groupBits, steps = 6, 256
	if t.disorder || id>>groupBits == t.group {
		return
	}
	t.group = id >> groupBits
	if t.steps++; t.steps%steps == 0 {
		t.scratch.Trim()
	}
}

// impliedDir is a directory that a tar needs and doesn't hold. Unpackers agree
// on these attributes where no layer below has others.
var impliedDir = inode{mode: typeDir | 0o755, flags: flagImplied}

// newTreeBuilder returns an empty tree. The caller closes scratch, and with it
// the tree.
func newTreeBuilder(scratch *sys.Scratch) *treeBuilder {
	t := &treeBuilder{xattrs: map[string]uint32{}, scratch: scratch}
	t.nodes.scratch, t.inodes.scratch, t.text.scratch = scratch, scratch, scratch
	t.inodes.add(inode{}) // number 0 is none
	t.nodes.add(node{inode: t.inodes.add(impliedDir)})
	t.lastDir = "."
	return t
}

// add puts a member in its place. It returns the sparse map of a sparse file.
func (t *treeBuilder) add(m *member) (*sparseMap, error) {
	clean, err := cleanName(m.name)
	if err != nil {
		return nil, err
	}
	dir, base, mark, err := markerOf(m.name, clean)
	if err != nil || mark == ignored {
		return nil, err
	}
	if clean == "." {
		return nil, t.setRoot(m)
	}
	parent, err := t.directory(m.name, dir)
	if err != nil {
		return nil, err
	}
	switch mark {
	case opaque:
		t.inode(parent).flags |= flagOpaque
		return nil, nil
	case whiteout:
		id, err := t.child(m.name, parent, []byte(base))
		if err != nil {
			return nil, err
		}
		t.nodes.at(id).whiteout = true
		return nil, nil
	}
	return t.place(m, parent, base)
}

// place gives the name base in parent to m. What had it before is gone, but
// for a directory that gives way to a directory: its children stay.
func (t *treeBuilder) place(m *member, parent uint32, base string) (*sparseMap, error) {
	if m.kind == tar.TypeLink {
		return nil, t.link(m, parent, base)
	}
	if m.kind == tar.TypeChar && m.major == 0 && m.minor == 0 {
		return nil, nil // to overlayfs a whiteout, but not one of the layer's
	}
	in, sparse, err := t.newInode(m)
	if err != nil {
		return nil, err
	}
	id, err := t.child(m.name, parent, []byte(base))
	if err != nil {
		return nil, err
	}
	if old := t.inode(id); m.kind == tar.TypeDir && old.mode&typeMask == typeDir {
		in.flags |= old.flags & flagOpaque
		*old = in
		return nil, nil
	}
	fresh, err := t.addInode(m.name, in)
	if err != nil {
		return nil, err
	}
	return sparse, t.give(m.name, id, fresh)
}

// link gives one more name to a file.
func (t *treeBuilder) link(m *member, parent uint32, base string) error {
	clean, err := cleanLink(m)
	if err != nil {
		return err
	}
	target, err := t.lookup(m.name, clean)
	if err != nil {
		return err
	}
	if target == 0 || t.nodes.at(target).inode == 0 {
		return refuse(m.name, "hard link to %s, which isn't there", clip(m.link))
	}
	in := t.nodes.at(target).inode
	if t.inodes.at(in).mode&typeMask == typeDir {
		return refuse(m.name, "hard link to %s, which is a directory", clip(m.link))
	}
	id, err := t.child(m.name, parent, []byte(base))
	if err != nil {
		return err
	}
	return t.give(m.name, id, in)
}

func (t *treeBuilder) setRoot(m *member) error {
	if m.kind != tar.TypeDir {
		return refuse(m.name, "a %s in the place of the root", kindName(m.kind))
	}
	in, _, err := t.newInode(m)
	if err != nil {
		return err
	}
	root := t.inode(0)
	in.flags |= root.flags & flagOpaque
	*root = in
	return nil
}

// child returns the node of a name in a directory, which is new if there was
// none.
func (t *treeBuilder) child(member string, parent uint32, name []byte) (uint32, error) {
	id, slot := t.find(parent, name, true)
	if id != 0 {
		t.look(id)
		return id, nil
	}
	text, err := t.keep(member, name)
	if err != nil {
		return 0, err
	}
	dir := t.nodes.at(parent)
	if id, err = t.addNode(member, node{parent: parent, name: text, next: dir.child}); err != nil {
		return 0, err
	}
	dir.child = id
	t.look(id)
	if slot != nil {
		t.names.fill(slot, parent, name, id)
	}
	return id, nil
}

func (t *treeBuilder) addNode(member string, n node) (uint32, error) {
	if t.nodes.n >= maxNodes {
		return 0, tooMany(member)
	}
	return t.nodes.add(n), nil
}

// addInode takes more inodes than there are names: one that is given again has
// a new one each time.
func (t *treeBuilder) addInode(member string, in inode) (uint32, error) {
	if t.inodes.n >= 2*maxNodes {
		return 0, tooMany(member)
	}
	return t.inodes.add(in), nil
}

func tooMany(member string) error {
	return fmt.Errorf("member %q: layer of more than %d files: %w", clip(member), maxNodes, errdefs.ErrResourceExhausted)
}

// give gives a name to a file. If a directory had it, a new node takes the
// name, and so what is below the old one is forgotten.
func (t *treeBuilder) give(member string, id, inode uint32) error {
	n := t.nodes.at(id)
	if n.inode == 0 {
		n.inode = inode
		return nil
	}
	t.lastDir, t.last = ".", 0 // the way there may have led through this name
	if t.inode(id).mode&typeMask != typeDir {
		n.inode = inode
		return nil
	}
	// It comes behind the old one, where the names stay in order.
	fresh, err := t.addNode(member, node{parent: n.parent, next: n.next, name: n.name, inode: inode, whiteout: n.whiteout})
	if err != nil {
		return err
	}
	n.dead, n.next = true, fresh
	t.names.replace(t, id, fresh)
	return nil
}

func (t *treeBuilder) keep(member string, b []byte) (uint32, error) {
	ref, ok := t.text.add(b)
	if !ok {
		return 0, fmt.Errorf("member %q: layer with more than %d bytes of names and attributes: %w",
			clip(member), maxArena, errdefs.ErrResourceExhausted)
	}
	return ref, nil
}

func (t *treeBuilder) inode(id uint32) *inode { return t.inodes.at(t.nodes.at(id).inode) }

// directory returns the node of the directory that a clean name leads to. What
// is missing is made, as unpackers do.
func (t *treeBuilder) directory(member, name string) (uint32, error) {
	if name == t.lastDir {
		return t.last, nil
	}
	id, err := t.walk(member, name, true)
	if err == nil {
		t.lastDir, t.last = name, id
	}
	return id, err
}

// lookup returns the node of a clean name. It doesn't follow the last part; it
// returns 0 if there is no such file.
func (t *treeBuilder) lookup(member, name string) (uint32, error) {
	if name == "." {
		return 0, refuse(member, "hard link to the root")
	}
	dir, base := ".", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir, base = name[:i], name[i+1:]
	}
	parent, err := t.walk(member, dir, false)
	if err != nil || parent == nowhere {
		return 0, err
	}
	id, _ := t.find(parent, []byte(base), false)
	return id, nil
}

// nowhere is what walk returns for a directory that isn't there.
const nowhere = math.MaxUint32

// walk goes down a name. Symbolic links are followed as if the root of the
// layer were that of the machine, so that they can't lead out of it.
func (t *treeBuilder) walk(member, name string, create bool) (uint32, error) {
	at, links := uint32(0), 0
	for rest := name; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if links > 0 {
			if t.follows++; t.follows > maxFollow {
				return 0, refuse(member, "too many symbolic links in the layer")
			}
		}
		switch part {
		case "", ".":
			continue
		case "..":
			at = t.nodes.at(at).parent
			continue
		}
		if len(part) > maxName {
			return 0, refuse(member, "lies below a symbolic link with a part of more than %d bytes", maxName)
		}
		id, err := t.step(member, at, part, create)
		if err != nil || id == nowhere {
			return id, err
		}
		in := t.inode(id)
		switch in.mode & typeMask {
		case typeDir:
			at = id
		case typeSymlink:
			if links++; links > maxLinks {
				return 0, refuse(member, "lies below a loop of symbolic links")
			}
			target := string(t.text.at(in.data))
			if strings.HasPrefix(target, "/") {
				at = 0
			}
			if rest != "" {
				target += "/" + rest
			}
			rest = target
		default:
			return 0, refuse(member, "lies below %s, which is no directory", clip(t.path(id)))
		}
	}
	return at, nil
}

// step returns a child that is more than a whiteout.
func (t *treeBuilder) step(member string, at uint32, part string, create bool) (uint32, error) {
	if !create {
		id, _ := t.find(at, []byte(part), false)
		if id == 0 || t.nodes.at(id).inode == 0 {
			return nowhere, nil
		}
		return id, nil
	}
	id, err := t.child(member, at, []byte(part))
	if err != nil {
		return 0, err
	}
	if n := t.nodes.at(id); n.inode == 0 {
		n.inode, err = t.addInode(member, impliedDir)
	}
	return id, err
}

// path returns the name of a node, for messages.
func (t *treeBuilder) path(id uint32) string {
	var parts [][]byte
	for ; id != 0; id = t.nodes.at(id).parent {
		parts = append([][]byte{t.text.at(t.nodes.at(id).name)}, parts...)
	}
	return string(bytes.Join(parts, []byte("/")))
}
