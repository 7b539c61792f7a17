package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/sys"
)

// A record may have a directory of files beside it: <record>.d, which counts
// as the record's own size and goes when it goes. The file "lock" in it is
// locked, shared, by whoever uses the directory; then the record stays.

const (
	recordDirSuffix = ".d"
	recordDirLock   = "lock"
)

// PutDir is [Cache.Put] of a new record with a directory beside it, for which
// the tree at dir, on the file system of the store, is moved away. Nothing in
// it is synced: a power cut may leave files in it that are cut short.
//
// A key that is taken is an [errdefs.ErrAlreadyExists].
func (c *Cache) PutDir(key string, r Record, dir string) error {
	lock, err := os.OpenFile(filepath.Join(dir, recordDirLock), os.O_CREATE|os.O_RDONLY, 0o600)
	if err == nil {
		err = lock.Close()
	}
	if err == nil {
		err = c.put(recordHead{key, r.Holds}, r.write, dir)
	}
	if err != nil {
		return fmt.Errorf("put %s record %.100q: %w", c.kind, key, err)
	}
	return nil
}

// RecordDir is the directory of a record, in use until Close.
type RecordDir struct {
	Path string
	lock *sys.FileLock
}

// Close gives the directory back.
func (d *RecordDir) Close() error { return d.lock.Close() }

// Dir returns the directory of a record. The caller closes it. A record that
// has none is an [errdefs.ErrNotFound].
func (c *Cache) Dir(key string) (*RecordDir, error) {
	path := c.path(key) + recordDirSuffix
	var lock *sys.FileLock
	err := c.store.shared(func() (err error) { // the collector is not looking
		if _, err = os.Lstat(filepath.Join(path, recordDirLock)); err == nil {
			lock, err = sys.Lock(filepath.Join(path, recordDirLock), sys.Shared)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = errdefs.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("open directory of %s record %.100q: %w", c.kind, key, err)
	}
	return &RecordDir{path, lock}, nil
}

// removeDir removes the directory of the record at path. One that is in use is
// an [errdefs.ErrUnavailable].
func (s *Store) removeDir(path string) error {
	dir := path + recordDirSuffix
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	at := ""
	err := s.shared(func() error {
		busy, err := dirInUse(dir)
		if busy {
			err = fmt.Errorf("somebody uses it: %w", errdefs.ErrUnavailable)
		}
		if err == nil {
			at, err = s.moveAway(dir)
		}
		return err
	})
	if err != nil || at == "" {
		return err
	}
	return removeTree(at)
}

// dirInUse reports whether somebody has locked the directory of a record.
func dirInUse(dir string) (bool, error) {
	name := filepath.Join(dir, recordDirLock)
	if _, err := os.Lstat(name); err != nil {
		return false, nil // it can't be locked either
	}
	lock, err := sys.TryLock(name, sys.Exclusive)
	if errdefs.IsUnavailable(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, lock.Close()
}

// DirSize returns what the directory of a record takes on disk, in bytes.
func (c *Cache) DirSize(key string) int64 { return dirSize(c.path(key)) }

// dirSize returns what the directory of the record at path takes on disk.
func dirSize(path string) int64 {
	dir := path + recordDirSuffix
	if _, err := os.Lstat(dir); err != nil {
		return 0
	}
	return treeSize(dir)
}

// deadDirs returns the directories whose record is not among records.
func deadDirs(dir string, entries []fs.DirEntry, records map[string]bool) []string {
	var dead []string
	for _, e := range entries {
		if record, ok := strings.CutSuffix(e.Name(), recordDirSuffix); ok && e.IsDir() && !records[filepath.Join(dir, record)] {
			dead = append(dead, filepath.Join(dir, e.Name()))
		}
	}
	return dead
}
