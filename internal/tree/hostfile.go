package tree

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/sys"
)

// keptFiles is how many files of a context are kept in memory, at some 130
// bytes each. The rest is in tables.
const keptFiles = 1 << 15

// hostList is a directory as it was when it was listed.
type hostList struct {
	dir    *hostDir
	path   string
	listed int64 // when, in the unit of Mtime
	files  []hostFile
}

// hostFile is a file as it was when its directory was listed.
type hostFile struct {
	*sys.FileStat
	in  *hostList
	ino uint64
	n   uint32 // the number of the file, in the order in which they were listed
}

// hostTable is a directory that was listed, in a spill.
type hostTable struct {
	table
	listed int64
	first  uint32 // the number of the first file
}

// list returns the directory path, its files sorted by name.
func (d *hostDir) list(path string) (*hostList, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if list, ok := d.lists[path]; ok {
		return list, nil
	}
	if t, ok := d.tables[path]; ok {
		return d.load(path, t)
	}
	return d.read(path)
}

// entry returns a file of the directory path, or nil.
func (d *hostDir) entry(path, name string) (*hostFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.lists[path]
	if t, ok := d.tables[path]; ok {
		r, i, ok, err := t.find(name)
		if !ok || err != nil {
			return nil, err
		}
		f := &hostFile{FileStat: &sys.FileStat{}, in: d.listOf(path, t)}
		d.decode(f, t.first+uint32(i), name, r)
		return f, nil
	}
	if list == nil {
		var err error
		if list, err = d.read(path); err != nil {
			return nil, err
		}
	}
	i := sort.Search(len(list.files), func(i int) bool { return list.files[i].FileStat.Name >= name })
	if i == len(list.files) || list.files[i].FileStat.Name != name {
		return nil, nil
	}
	return &list.files[i], nil
}

// read lists a directory.
func (d *hostDir) read(path string) (*hostList, error) {
	dir, err := sys.OpenBeneath(d.root, path, os.O_RDONLY|syscall.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	list := &hostList{dir: d, path: path, listed: d.now().UnixNano()}
	stats, err := sys.ReadDirStat(dir)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(stats, func(a, b sys.FileStat) int { return strings.Compare(a.Name, b.Name) })
	first := d.files
	list.files = make([]hostFile, len(stats))
	for i := range stats {
		list.files[i] = hostFile{FileStat: &stats[i], in: list, ino: d.number(&stats[i]), n: first + uint32(i)}
	}
	d.files += uint32(len(stats))
	if int(d.files) <= d.keep {
		d.lists[path] = list
		return list, nil
	}
	var w tableWriter
	for i := range list.files {
		d.encode(&w, &list.files[i])
	}
	d.tables[path] = hostTable{w.keep(&d.spill), list.listed, first}
	return list, nil
}

// load makes a list of a table.
func (d *hostDir) load(path string, t hostTable) (*hostList, error) {
	list := d.listOf(path, t)
	list.files = make([]hostFile, t.n)
	stats := make([]sys.FileStat, t.n)
	err := t.each(func(i int, name string, r record) error {
		list.files[i].FileStat, list.files[i].in = &stats[i], list
		d.decode(&list.files[i], t.first+uint32(i), name, r)
		return nil
	})
	if err != nil {
		return nil, &fs.PathError{Op: "list", Path: absolute(path), Err: err}
	}
	return list, nil
}

func (d *hostDir) listOf(path string, t hostTable) *hostList {
	return &hostList{dir: d, path: path, listed: t.listed}
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

// number is the inode number that the tree shows: files of another file system
// mounted below root get one that no other file has.
func (d *hostDir) number(stat *sys.FileStat) uint64 {
	if stat.Dev == d.dev {
		return stat.Ino
	}
	key := [2]uint64{stat.Dev, stat.Ino}
	n, ok := d.inos[key]
	if !ok {
		n = mix(uint64(len(d.inos)), stat.Dev)
		d.inos[key] = n
	}
	return n
}

// bits is a set of small numbers.
type bits []uint64

func (b bits) has(n uint32) bool { return int(n/64) < len(b) && b[n/64]>>(n%64)&1 == 1 }

func (b *bits) set(n uint32) {
	for int(n/64) >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[n/64] |= 1 << (n % 64)
}

func (f *hostFile) Name() string               { return f.FileStat.Name }
func (f *hostFile) Size() int64                { return f.FileStat.Size }
func (f *hostFile) IsDir() bool                { return f.FileStat.Mode&syscall.S_IFMT == syscall.S_IFDIR }
func (f *hostFile) Type() fs.FileMode          { return f.Mode().Type() }
func (f *hostFile) Info() (fs.FileInfo, error) { return f, nil }

func (f *hostFile) ModTime() time.Time {
	if f.in.dir.modified != nil {
		return *f.in.dir.modified
	}
	return time.Unix(0, f.Mtime)
}

// Mode turns the mode of stat(2) into Go's.
func (f *hostFile) Mode() fs.FileMode {
	mode := withUnixMode(0, uint16(f.FileStat.Mode&0o7777))
	switch f.FileStat.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
	case syscall.S_IFDIR:
		mode |= fs.ModeDir
	case syscall.S_IFLNK:
		mode |= fs.ModeSymlink
	case syscall.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case syscall.S_IFSOCK:
		mode |= fs.ModeSocket
	case syscall.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case syscall.S_IFBLK:
		mode |= fs.ModeDevice
	default:
		mode |= fs.ModeIrregular
	}
	return mode
}

// Sys reads the capabilities of a regular file when somebody first asks for
// what only a *[layer.Stat] tells.
func (f *hostFile) Sys() any {
	stat := f.plain()
	if f.FileStat.Mode&syscall.S_IFMT == syscall.S_IFREG {
		stat.Xattrs = f.in.dir.attrsOf(f)
	}
	return stat
}

// attrsOf returns the extended attributes of a file. They are read once: all are
// told the same.
func (d *hostDir) attrsOf(f *hostFile) map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asked.has(f.n) {
		return d.attrs[f.n]
	}
	// A file that vanished or hides its attributes fails when it is read.
	_ = d.withDir(f.in.path, func(dir *os.File) error {
		value, err := sys.XattrAt(dir, f.Name(), capability)
		if err == nil && value != nil {
			d.attrs[f.n] = map[string][]byte{capability: value}
		}
		return err
	})
	d.asked.set(f.n)
	return d.attrs[f.n]
}

// plain is what Sys tells, without extended attributes: nothing is read for it.
func (f *hostFile) plain() *layer.Stat {
	return &layer.Stat{Ino: f.ino, Nlink: f.Nlink, Rdev: f.Rdev}
}

// key names this state of the file for a [StatCache].
func (f *hostFile) key() (key StatKey) {
	for i, n := range [...]uint64{f.Dev, f.Ino, uint64(f.FileStat.Size), uint64(f.Mtime), uint64(f.Ctime)} {
		binary.LittleEndian.PutUint64(key[8*i:], n)
	}
	return key
}

// check fails if the open file is not the one that was listed, or not as it was.
func (f *hostFile) check(open *os.File) error {
	now, err := sys.Fstat(open)
	if err != nil {
		return err
	}
	if now.Dev != f.Dev || now.Ino != f.Ino || now.Size != f.FileStat.Size || now.Mtime != f.Mtime {
		return fmt.Errorf("%s changed while it was in use: %w", absolute(join(f.in.path, f.Name())), errdefs.ErrAborted)
	}
	return nil
}
