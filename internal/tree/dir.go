package tree

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

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
//
// Of a large directory the listings are kept in a file without a name in temp;
// "" is the directory of [os.TempDir].
func Dir(root, temp string) (FS, error) {
	f, err := os.OpenFile(root, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open directory: %w", classed(err))
	}
	stat, err := sys.Fstat(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	d := &hostDir{
		root: f, dev: stat.Dev, now: time.Now, keep: keptFiles,
		lists: map[string]*hostList{}, tables: hostTables{Spill: sys.Spill{Dir: temp}, seed: maphash.MakeSeed()},
		links: map[uint32]string{}, attrs: map[uint32]map[string][]byte{}, inos: map[[2]uint64]uint64{},
	}
	stat.Name = "."
	d.self = &hostFile{FileStat: &stat, in: &hostList{dir: d, path: "."}}
	return d, nil
}

type hostDir struct {
	root *os.File
	self *hostFile
	dev  uint64
	now  func() time.Time // is compared with times of files and reaches no digest

	modified *time.Time // what files show instead of their own time; see At

	keep int // how many files are kept in memory

	mu     sync.Mutex
	files  uint32                       // that were listed
	lists  map[string]*hostList         // directories that were listed
	tables hostTables                   // and those for which memory is too small
	links  map[uint32]string            // targets of symbolic links that were read, by their files' numbers
	asked  bits                         // files whose attributes were read
	attrs  map[uint32]map[string][]byte // of those that have any
	inos   map[[2]uint64]uint64         // numbers for files of other file systems
	opened *os.File                     // the directory that was needed last
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
	return errors.Join(d.tables.Close(), d.root.Close())
}

// withDir calls f with the open directory path. d is locked.
func (d *hostDir) withDir(path string, f func(*os.File) error) error {
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

func (d *hostDir) find(op, name string) (*hostFile, error) {
	if err := checkPath(op, name); err != nil {
		return nil, err
	}
	if name == "." {
		return d.self, nil
	}
	parent, last := split(name)
	f, err := d.entry(parent, last)
	if err == nil && f == nil {
		err = notExist(op, name)
	}
	return f, err
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
func (d *hostDir) ReadDir(name string) ([]fs.DirEntry, error) { return allEntries(d, name) }

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
	target, ok := d.links[f.n]
	if !ok {
		err = d.withDir(f.in.path, func(dir *os.File) (err error) {
			target, err = sys.ReadLinkAt(dir, f.Name())
			return err
		})
		if err == nil {
			d.links[f.n] = target
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
