package tree

import (
	"encoding/binary"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/shaleproject/shale/internal/sys"
)

// packs are where edits keep the directories that they have packed. Trees that
// were shown read them while more are coming.
type packs struct {
	sys.Spill
	froms [maxFroms]FS // what packed files have their content from
	n     int          // how many there are
}

// packedNames are names of one directory, of which only a table of a spill knows.
// Packing and unpacking a directory changes nothing that is seen of it.
type packedNames struct {
	table
	in   *packs
	last string // the last of the names
	from int    // where the contents of its files lie: in froms, unless it is -1, …
	dir  string // … in this directory, under the same names
}

// packRun is how many names a directory has as nodes before they are packed while
// more are coming.
const packRun = 8192

// put gives a node to a name that has none.
func (c *Changes) put(dir *node, name string, kid *node) {
	dir.set(name, kid)
	if len(dir.kids) >= max(packRun, dir.packNext) {
		c.pack(dir)
		dir.packNext = packRun + 2*len(dir.kids) // what can't be packed isn't looked at each time
	}
}

// pack moves those names of a directory that nobody else can have a hold of, and
// that come after all that are packed, into a table. What it has once unpacked
// again, to change it, stays so: another copy may need it next.
//
// A copied directory of a context ends here: a context of a million files would
// need some 250 MB for their nodes.
func (c *Changes) pack(n *node) {
	if n.unpacked {
		return
	}
	names := slices.Sorted(maps.Keys(n.kids))
	if len(n.packed) > 0 {
		last := n.packed[len(n.packed)-1].last
		names = slices.DeleteFunc(names, func(name string) bool { return name <= last })
	}
	c.packs.Dir = c.Temp
	p := &packedNames{in: &c.packs}
	for _, name := range names {
		if kid := n.kids[name]; kid.inode != nil && kid.mode.IsRegular() {
			p.from = c.packs.number(kid.from)
			p.dir, _ = split(kid.at)
			break
		}
	}
	w := tableWriter{in: &c.packs.Spill}
	for _, name := range names {
		if kid := n.kids[name]; p.takes(name, kid) {
			w.add(name)
			p.encode(&w, name, kid)
			p.last = name
			delete(n.kids, name)
		}
	}
	if w.table.n == 0 {
		return
	}
	p.table = w.done()
	n.packed = append(slices.Clip(n.packed), p) // a clone of n may have the rest of it
	if len(n.kids) == 0 {
		n.kids = nil // a map doesn't shrink
	}
}

// maxFroms bounds froms: every file could have a tree of its own.
const maxFroms = 64

// number is the place of a tree in froms, or -1.
func (s *packs) number(from FS) int {
	for i, f := range s.froms[:s.n] {
		if sameFS(f, from) {
			return i
		}
	}
	if s.n == maxFroms {
		return -1
	}
	s.froms[s.n] = from
	s.n++
	return s.n - 1
}

func sameFS(a, b FS) bool {
	return reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

// takes reports whether a table can say all that there is to say of kid.
func (p *packedNames) takes(name string, kid *node) bool {
	if kid.gone || len(kid.kids) > 0 {
		return false
	}
	if kid.inode == nil {
		return true
	}
	if len(kid.xattrs) > 0 {
		return false
	}
	switch kid.mode.Type() {
	case fs.ModeDir:
		return true
	case fs.ModeSymlink:
		return kid.single
	case 0:
		return kid.single && p.from >= 0 && sameFS(kid.from, p.in.froms[p.from])
	}
	return false
}

// What the first byte of a record says.
const (
	packedInode     = 1 << iota // the node has an inode
	packedMerged                // what the base has there shines through
	packedLinked                // other names may share the inode
	packedElsewhere             // its content does not lie where the name says
)

func (p *packedNames) encode(w *tableWriter, name string, kid *node) {
	var flags byte
	if kid.inode != nil {
		flags |= packedInode
		if kid.nlink > 1 {
			flags |= packedLinked
		}
	}
	if kid.merged {
		flags |= packedMerged
	}
	elsewhere := kid.inode != nil && kid.mode.IsRegular() && kid.at != join(p.dir, name)
	if elsewhere {
		flags |= packedElsewhere
	}
	w.records = append(w.records, flags)
	if i := kid.inode; i != nil {
		w.number(uint64(i.mode))
		w.number(uint64(i.owner.UID))
		w.number(uint64(i.owner.GID))
		w.offset(i.mtime.Unix())
		w.number(uint64(i.mtime.Nanosecond()))
		w.offset(i.size)
		w.records = binary.LittleEndian.AppendUint64(w.records, i.ino)
		w.text(i.target)
		if elsewhere {
			w.text(i.at)
		}
	}
	w.number(uint64(len(kid.packed)))
	for _, sub := range kid.packed {
		w.encodeTable(sub.table)
		w.offset(int64(sub.from))
		w.text(sub.dir)
		w.text(sub.last)
	}
}

// node makes the node of a record. It is nobody else's.
func (p *packedNames) node(name string, r record) *node {
	flags := r.rest[0]
	r.rest = r.rest[1:]
	n := &node{merged: flags&packedMerged != 0, single: true}
	if flags&packedInode != 0 {
		i := &inode{mode: fs.FileMode(r.number()), nlink: 1}
		i.owner.UID, i.owner.GID = uint32(r.number()), uint32(r.number())
		sec := r.offset()
		i.mtime = time.Unix(sec, int64(r.number()))
		i.size = r.offset()
		i.ino = binary.LittleEndian.Uint64(r.rest)
		r.rest = r.rest[8:]
		i.target = r.text()
		if flags&packedLinked != 0 {
			i.nlink = 2
		}
		if i.mode.IsRegular() {
			i.from, i.at = p.in.froms[p.from], join(p.dir, name)
			if flags&packedElsewhere != 0 {
				i.at = r.text()
			}
		}
		n.inode = i
	}
	for range r.number() {
		sub := &packedNames{in: p.in}
		sub.table = r.decodeTable(p.table.in)
		sub.from, sub.dir, sub.last = int(r.offset()), r.text(), r.text()
		n.packed = append(n.packed, sub)
	}
	return n
}

// kid returns the node of a name, or nil. It must not be changed.
func (n *node) kid(name string) (*node, error) {
	if kid := n.kids[name]; kid != nil {
		return kid, nil
	}
	for _, p := range n.packed {
		if name > p.last {
			continue
		}
		r, _, ok, err := p.find(name, p.n/2)
		if !ok || err != nil {
			return nil, err
		}
		return p.node(name, r), nil
	}
	return nil, nil
}

// own returns the node of a name, or nil, as one that may be changed.
func (n *node) own(name string) (*node, error) {
	kid, err := n.kid(name)
	if kid == nil || n.kids[name] != nil || err != nil {
		return kid, err
	}
	if err := n.unpack(); err != nil {
		return nil, err
	}
	return n.kids[name], nil
}

// unpack makes all names nodes that may be changed.
func (n *node) unpack() error {
	kids := map[string]*node{}
	for _, p := range n.packed {
		err := p.each(func(_ int, name string, r record) error {
			kids[name] = p.node(name, r)
			return nil
		})
		if err != nil {
			return err
		}
	}
	maps.Copy(kids, n.kids)
	n.kids, n.packed, n.unpacked = kids, nil, true
	return nil
}

// each calls f for every name that the edits know something about, in order.
// The nodes must not be changed.
func (n *node) each(f func(name string, kid *node) error) error {
	names := slices.Sorted(maps.Keys(n.kids))
	upTo := func(bound string, all bool) error {
		for len(names) > 0 && (all || names[0] < bound) {
			if err := f(names[0], n.kids[names[0]]); err != nil {
				return err
			}
			names = names[1:]
		}
		return nil
	}
	for _, p := range n.packed {
		err := p.each(func(_ int, name string, r record) error {
			if err := upTo(name, false); err != nil {
				return err
			}
			return f(name, p.node(name, r))
		})
		if err != nil {
			return err
		}
	}
	return upTo("", true)
}
