package tree

import (
	"hash/maphash"
	"io/fs"

	"github.com/shaleproject/shale/internal/sys"
)

// hostTable is a directory that was listed, in a spill.
type hostTable struct {
	table
	path   string
	listed int64
	first  uint32 // the number of the first file
}

// hostTables finds the tables of directories by hashes of their paths. Behind each
// table the spill has what else is to know of it.
type hostTables struct {
	sys.Spill
	seed maphash.Seed
	at   inodeTable // hash of a path: where the rest of it begins, and the length of that
	last hostTable  // that was asked for
	near int        // the number of the file in it that was
}

// has reports whether another path of the same hash has a table.
func (h *hostTables) has(path string) bool {
	_, ok := h.at.get(maphash.String(h.seed, path))
	return ok
}

// put keeps the table of a path whose hash has none.
func (h *hostTables) put(t hostTable) {
	var w tableWriter
	w.encodeTable(t.table)
	w.offset(t.listed)
	w.number(uint64(t.first))
	w.text(t.path)
	place := h.Put(w.records)
	h.at.add(maphash.String(h.seed, t.path), uint64(place)<<nameBits|uint64(len(w.records)))
	h.last = t
}

// get returns the table of a path.
func (h *hostTables) get(path string) (t hostTable, ok bool, err error) {
	if h.last.path == path {
		return h.last, true, nil
	}
	place, ok := h.at.get(maphash.String(h.seed, path))
	if !ok {
		return t, false, nil
	}
	r := record{make([]byte, place&(1<<nameBits-1))}
	if err := h.Read(r.rest, int64(place>>nameBits)); err != nil {
		return t, false, err
	}
	t.table = r.decodeTable(&h.Spill)
	t.listed, t.first, t.path = r.offset(), uint32(r.number()), r.text()
	if t.path != path {
		return t, false, nil
	}
	h.last = t
	return t, true, nil
}

// entryOf returns a file of a table, or nil.
func (d *hostDir) entryOf(t hostTable, name string) (*hostFile, error) {
	r, i, ok, err := t.find(name, d.tables.near)
	if !ok || err != nil {
		return nil, err
	}
	d.tables.near = i
	f := newHostFile(d.listOf(t))
	d.decode(f, t.first+uint32(i), name, r)
	return f, nil
}

// newHostFile makes a file that is no part of a list.
func newHostFile(in *hostList) *hostFile {
	both := &struct {
		hostFile
		stat sys.FileStat
	}{}
	both.hostFile.FileStat, both.in = &both.stat, in
	return &both.hostFile
}

// eachEntry calls f for the files of a directory, which are in memory some at a
// time. d is not locked then.
func (d *hostDir) eachEntry(name string, f func(fs.DirEntry) error) error {
	if err := checkPath("readdir", name); err != nil {
		return err
	}
	d.mu.Lock()
	list, t, err := d.listed(name)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if list != nil {
		for i := range list.files {
			if err := f(&list.files[i]); err != nil {
				return err
			}
		}
		return nil
	}
	list = d.listOf(t)
	return t.each(func(i int, name string, r record) error {
		file := newHostFile(list)
		d.mu.Lock()
		d.decode(file, t.first+uint32(i), name, r)
		d.mu.Unlock()
		return f(file)
	})
}

func (d *hostDir) listOf(t hostTable) *hostList {
	return &hostList{dir: d, path: t.path, listed: t.listed}
}

// encode adds f to a table. The numbers are small where they usually can be.
func (d *hostDir) encode(w *tableWriter, f *hostFile) {
	w.add(f.FileStat.Name)
	w.number(f.Dev ^ d.dev)
	w.number(f.Ino)
	w.number(f.Rdev)
	w.number(uint64(f.FileStat.Mode))
	w.number(uint64(f.Nlink))
	w.offset(f.FileStat.Size)
	w.offset(f.Mtime)
	w.offset(f.Ctime - f.Mtime)
}

func (d *hostDir) decode(f *hostFile, n uint32, name string, r record) {
	f.n, f.FileStat.Name = n, name
	f.Dev, f.Ino, f.Rdev = r.number()^d.dev, r.number(), r.number()
	f.FileStat.Mode, f.Nlink = uint32(r.number()), uint32(r.number())
	f.FileStat.Size, f.Mtime = r.offset(), r.offset()
	f.Ctime = f.Mtime + r.offset()
	f.ino = d.number(f.FileStat)
}
