package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sort"
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

// entry returns a file of the directory path, or nil.
func (d *hostDir) entry(path, name string) (*hostFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list, t, err := d.listed(path)
	if err != nil {
		return nil, err
	}
	if list == nil {
		return d.entryOf(t, name)
	}
	i := sort.Search(len(list.files), func(i int) bool { return list.files[i].FileStat.Name >= name })
	if i == len(list.files) || list.files[i].FileStat.Name != name {
		return nil, nil
	}
	return &list.files[i], nil
}

// listed returns what is known of a directory, a list or else a table. It is
// listed if that has not been done yet.
func (d *hostDir) listed(path string) (*hostList, hostTable, error) {
	if list, ok := d.lists[path]; ok {
		return list, hostTable{}, nil
	}
	t, ok, err := d.tables.get(path)
	if ok || err != nil {
		return nil, t, err
	}
	dir, err := sys.OpenBeneath(d.root, path, os.O_RDONLY|syscall.O_DIRECTORY)
	if err != nil {
		return nil, t, err
	}
	defer dir.Close()
	list := &hostList{dir: d, path: path, listed: d.now().UnixNano()}
	names, err := sys.ReadDirNames(dir)
	if err != nil {
		return nil, t, err
	}
	slices.Sort(names)
	if int(d.files)+len(names) <= d.keep || d.tables.has(path) {
		if err := d.readList(list, dir, names); err != nil {
			return nil, t, err
		}
		d.lists[path] = list
		return list, t, nil
	}
	t, err = d.readTable(list, dir, names)
	if err == nil {
		d.tables.put(t)
	}
	return nil, t, err
}

// readList describes the files with those names.
func (d *hostDir) readList(list *hostList, dir *os.File, names []string) error {
	stats := make([]sys.FileStat, 0, len(names))
	for _, name := range names {
		stat, err := sys.StatAt(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went meanwhile
		}
		if err != nil {
			return err
		}
		stats = append(stats, stat)
	}
	list.files = make([]hostFile, len(stats))
	for i := range stats {
		list.files[i] = hostFile{FileStat: &stats[i], in: list, ino: d.number(&stats[i]), n: d.files}
		d.files++
	}
	return nil
}

// readTable is readList of files that are not to be in memory.
func (d *hostDir) readTable(list *hostList, dir *os.File, names []string) (hostTable, error) {
	t := hostTable{path: list.path, listed: list.listed, first: d.files}
	w := tableWriter{in: &d.tables.Spill}
	for _, name := range names {
		stat, err := sys.StatAt(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return t, err
		}
		d.encode(&w, &hostFile{FileStat: &stat})
		d.files++
	}
	t.table = w.done()
	return t, nil
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
