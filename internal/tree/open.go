package tree

import (
	"io"
	"io/fs"
	"syscall"
)

// dirFile is an open directory of any FS.
type dirFile struct {
	fsys FS
	path string
	info fs.FileInfo

	entries []fs.DirEntry
	read    bool
}

func openDir(fsys FS, path string, info fs.FileInfo) fs.ReadDirFile {
	return &dirFile{fsys: fsys, path: path, info: info}
}

func (d *dirFile) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *dirFile) Close() error               { return nil }

func (d *dirFile) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.path, Err: syscall.EISDIR}
}

// ReadDir returns the next n entries as [fs.ReadDirFile] demands it.
func (d *dirFile) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.read {
		entries, err := d.fsys.ReadDir(d.path)
		if err != nil {
			return nil, err
		}
		d.entries, d.read = entries, true
	}
	if n <= 0 {
		rest := d.entries
		d.entries = nil
		return rest, nil
	}
	if len(d.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.entries))
	next := d.entries[:n]
	d.entries = d.entries[n:]
	return next, nil
}

// notRegular is the answer to opening what must not be opened: a FIFO would
// block, a device would be the host's.
func notRegular(path string) error {
	return &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
}
