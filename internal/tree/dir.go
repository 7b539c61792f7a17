package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/sys"
)

// capability is the one extended attribute of a host that a context shows: of
// all that BuildKit sends with a context, its layers keep only this one, and
// the rest (labels of SELinux, where a browser got a file from) would make the
// image depend on the machine.
const capability = "security.capability"

// Dir shows the directory root of the host as a tree that belongs to root:root,
// as BuildKit shows a build context. The result is an [io.Closer].
//
// It never leaves root and opens nothing but directories and regular files,
// whatever happens to the directory meanwhile. Each directory is listed once,
// when it is first needed: all that is told about a file later is from that
// moment, and reading a file that has changed since is [errdefs.ErrAborted].
func Dir(root string) (FS, error) {
	f, err := os.OpenFile(root, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", classed(err))
	}
	stat, err := sys.Fstat(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	d := &hostDir{root: f, dev: stat.Dev, now: time.Now, dirs: map[string]*hostList{}, links: map[*hostFile]string{}, inos: map[[2]uint64]uint64{}}
	stat.Name = "."
	d.self = &hostFile{FileStat: stat, in: &hostList{dir: d, path: "."}}
	return d, nil
}

type hostDir struct {
	root *os.File
	self *hostFile
	dev  uint64
	now  func() time.Time // is compared with times of files and reaches no digest

	modified *time.Time // what files show instead of their own time; see At

	mu     sync.Mutex
	dirs   map[string]*hostList
	links  map[*hostFile]string // targets of symbolic links that were read
	inos   map[[2]uint64]uint64 // numbers for files of other file systems
	opened *os.File             // the directory that was needed last
	at     string
}

// Close lets go of the directory.
func (d *hostDir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opened != nil {
		d.opened.Close()
		d.opened = nil
	}
	return d.root.Close()
}

// withDir calls f with the open directory path.
func (d *hostDir) withDir(path string, f func(*os.File) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.withDirLocked(path, f)
}

func (d *hostDir) withDirLocked(path string, f func(*os.File) error) error {
	if path == "." {
		return f(d.root)
	}
	if d.opened == nil || d.at != path {
		dir, err := sys.OpenBeneath(d.root, path, os.O_RDONLY|syscall.O_DIRECTORY)
		if err != nil {
			return err
		}
		if d.opened != nil {
			d.opened.Close()
		}
		d.opened, d.at = dir, path
	}
	return f(d.opened)
}

// list returns the files of the directory path, sorted by name.
func (d *hostDir) list(path string) ([]hostFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if list, ok := d.dirs[path]; ok {
		return list.files, nil
	}
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
	list.files = make([]hostFile, len(stats))
	for i, stat := range stats {
		f := &list.files[i]
		f.FileStat, f.in, f.ino = stat, list, d.number(stat)
	}
	d.dirs[path] = list
	return list.files, nil
}

// number is the inode number that the tree shows: files of another file system
// mounted below root get one that no other file has.
func (d *hostDir) number(stat sys.FileStat) uint64 {
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

func (d *hostDir) find(op, name string) (*hostFile, error) {
	if err := checkPath(op, name); err != nil {
		return nil, err
	}
	if name == "." {
		return d.self, nil
	}
	parent, last := split(name)
	files, err := d.list(parent)
	if err != nil {
		return nil, err
	}
	i := sort.Search(len(files), func(i int) bool { return files[i].FileStat.Name >= last })
	if i == len(files) || files[i].FileStat.Name != last {
		return nil, notExist(op, name)
	}
	return &files[i], nil
}

// Lstat describes a file.
func (d *hostDir) Lstat(name string) (fs.FileInfo, error) {
	f, err := d.find("lstat", name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// ReadDir returns the entries of a directory, sorted by name.
func (d *hostDir) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := checkPath("readdir", name); err != nil {
		return nil, err
	}
	files, err := d.list(name)
	if err != nil {
		return nil, err
	}
	entries := make([]fs.DirEntry, len(files))
	for i := range files {
		entries[i] = &files[i]
	}
	return entries, nil
}

// ReadLink returns the target of a symbolic link.
func (d *hostDir) ReadLink(name string) (string, error) {
	f, err := d.find("readlink", name)
	if err != nil {
		return "", err
	}
	if f.Mode().Type() != fs.ModeSymlink {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	target, ok := d.links[f]
	if !ok {
		err = d.withDirLocked(f.in.path, func(dir *os.File) (err error) {
			target, err = sys.ReadLinkAt(dir, f.Name())
			return err
		})
		if err == nil {
			d.links[f] = target
		}
	}
	return target, err
}

// Open opens a directory or a regular file.
func (d *hostDir) Open(name string) (fs.File, error) {
	f, err := d.find("open", name)
	if err != nil {
		return nil, err
	}
	switch {
	case f.IsDir():
		return openDir(d, name, f), nil
	case !f.Mode().IsRegular():
		return nil, notRegular(name)
	}
	file, err := sys.OpenBeneath(d.root, name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	if err := f.check(file); err != nil {
		file.Close()
		return nil, err
	}
	return &hostOpen{file, f}, nil
}

// hostList is a directory as it was when it was listed.
type hostList struct {
	dir    *hostDir
	path   string
	listed int64 // when, in the unit of Mtime
	files  []hostFile
}

// hostFile is a file as it was when its directory was listed. There is one for
// each file of a context as long as the build runs: it has room for nothing
// that most files lack.
type hostFile struct {
	sys.FileStat
	in    *hostList
	ino   uint64
	attrs atomic.Pointer[map[string][]byte] // nil until they are read
}

// noAttrs is what attrs of a file without any points at.
var noAttrs = new(map[string][]byte)

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
	if f.FileStat.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return stat
	}
	attrs := f.attrs.Load()
	if attrs == nil {
		attrs = noAttrs
		// A file that vanished or hides its attributes fails when it is read.
		_ = f.in.dir.withDir(f.in.path, func(dir *os.File) error {
			value, err := sys.XattrAt(dir, f.Name(), capability)
			if err == nil && value != nil {
				attrs = &map[string][]byte{capability: value}
			}
			return err
		})
		if !f.attrs.CompareAndSwap(nil, attrs) { // somebody was faster: all are told the same
			attrs = f.attrs.Load()
		}
	}
	stat.Xattrs = *attrs
	return stat
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

// hostOpen is an open regular file. Closing it fails if it was written to
// since it was opened.
type hostOpen struct {
	*os.File
	file *hostFile
}

func (o *hostOpen) Stat() (fs.FileInfo, error) { return o.file, nil }

func (o *hostOpen) Close() error {
	return errors.Join(o.file.check(o.File), o.File.Close())
}

var _ io.ReaderAt = (*hostOpen)(nil)
