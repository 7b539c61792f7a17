package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/shaleproject/shale/internal/sys"
)

// Record is one entry of a [Cache]. It can be lost at any time: to the cache
// budget, or to a disk that spoils it.
type Record struct {
	// Data is whatever the owner of the kind keeps in it.
	Data []byte

	// Holds is content that stays in the store for as long as the record
	// does. Whoever goes on to use it takes [Lease.Hold] first, and treats
	// an error as a miss.
	Holds []digest.Digest

	Updated time.Time // when the record was put
	Used    time.Time // when it was last got
}

// Cache is one kind of records, by key. It is a directory, cache/records/<kind>/,
// of one file a record. The time of last access of a file, which nothing but Get
// moves, is when the record was last used.
type Cache struct {
	store *Store
	kind  string
}

// Cache returns the records of one kind. The kind is a name of the program,
// never of a user: lower-case letters, digits and "-".
func (s *Store) Cache(kind string) *Cache {
	if !validComponent(kind) {
		panic("store: invalid kind of cache: " + kind)
	}
	return &Cache{store: s, kind: kind}
}

func (c *Cache) dir() string { return c.store.path(recordsDir, c.kind) }

// path is the file of a record. Keys are of any length and any characters.
func (c *Cache) path(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(c.dir(), hex.EncodeToString(sum[:]))
}

// Get returns the record of key and notes that it was used. One that isn't
// there, or that can't be read any more, is an [errdefs.ErrNotFound].
func (c *Cache) Get(key string) (Record, error) {
	r, err := c.open(key, math.MaxInt64)
	if err != nil {
		return Record{}, fmt.Errorf("get %s record %.100q: %w", c.kind, key, err)
	}
	return r.record(), nil // all of it is in memory; nothing is open
}

// Open is [Cache.Get] of a record of any size: it is verified, and its data
// stay on disk. The caller closes it.
func (c *Cache) Open(key string) (*RecordFile, error) {
	r, err := c.open(key, recordWindow)
	if err != nil {
		return nil, fmt.Errorf("open %s record %.100q: %w", c.kind, key, err)
	}
	return r, nil
}

func (c *Cache) open(key string, window int64) (*RecordFile, error) {
	path := c.path(key)
	r, err := openRecord(path, window)
	if err == nil && r.key != key {
		r.Close()
		err = fmt.Errorf("belongs to another key: %w", errdefs.ErrDataLoss)
	}
	if errdefs.IsDataLoss(err) {
		os.Remove(path) // a miss from now on, for fsck too
		err = fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	r.Used = time.Now()
	if err := sys.Touch(path, r.Used, time.Time{}); err != nil && !errdefs.IsNotFound(err) {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Put keeps a record, in place of one that has the same key. What it holds has
// to be in the store, or the error is an [errdefs.ErrNotFound]; a disk that is
// full is an [errdefs.ErrResourceExhausted]. A power cut may lose the record; it
// doesn't spoil it.
func (c *Cache) Put(key string, r Record) error {
	return c.PutFrom(key, r.Holds, r.write)
}

// PutFrom is [Cache.Put] of a record of any size: its data are what write
// gives to its writer, which is buffered. An error of write ends it, and leaves
// nothing.
func (c *Cache) PutFrom(key string, holds []digest.Digest, write func(io.Writer) error) error {
	if err := c.put(recordHead{key, holds}, write, ""); err != nil {
		return fmt.Errorf("put %s record %.100q: %w", c.kind, key, err)
	}
	return nil
}

func (r Record) write(w io.Writer) error {
	_, err := w.Write(r.Data)
	return err
}

// put keeps a record, and the tree at dir beside it unless dir is empty.
func (c *Cache) put(head recordHead, write func(io.Writer) error, dir string) error {
	own, err := c.store.ownLease()
	if err != nil {
		return diskFull(err)
	}
	aside, err := own.tempName()
	if err != nil {
		return err
	}
	err = fillSynced(aside, func(f *os.File) error { return writeRecord(f, head, write) })
	if err != nil {
		return diskFull(err)
	}
	err = c.store.shared(func() error {
		for _, d := range head.Holds {
			if err := c.store.present(d, -1); err != nil {
				return err
			}
		}
		path := c.path(head.Key)
		if dir != "" {
			if err := mkdirs(c.store.path(cacheDir), c.dir()); err != nil {
				return err
			}
			if err := sys.RenameNoReplace(dir, path+recordDirSuffix); err != nil {
				return err
			}
		}
		return place(aside, path, c.store.path(cacheDir))
	})
	if err != nil {
		os.Remove(aside)
	}
	return diskFull(err)
}

// Delete removes a record, and its directory. One that isn't there is deleted;
// one whose directory is in use is an [errdefs.ErrUnavailable].
func (c *Cache) Delete(key string) error {
	err := c.store.removeDir(c.path(key))
	if err == nil {
		err = os.Remove(c.path(key))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s record %.100q: %w", c.kind, key, err)
	}
	return nil
}

// All returns every record by its key, with its data in memory. That is not a
// use.
func (c *Cache) All(ctx context.Context) (map[string]Record, error) {
	all := map[string]Record{}
	err := c.walk(ctx, math.MaxInt64, func(_ string, r *RecordFile, err error) error {
		if err == nil {
			all[r.key] = r.record()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s records: %w", c.kind, err)
	}
	return all, nil
}

// Walk is [Cache.All] of records of any size: it calls f for each, one at a
// time, and closes the record afterwards. An error of f ends it.
func (c *Cache) Walk(ctx context.Context, f func(key string, r *RecordFile) error) error {
	err := c.walk(ctx, recordWindow, func(_ string, r *RecordFile, err error) error {
		if err != nil {
			return nil
		}
		return f(r.key, r)
	})
	if err != nil {
		return fmt.Errorf("list %s records: %w", c.kind, err)
	}
	return nil
}

// walk calls f for every record, which it has opened with a buffer of that
// size, and with an error for each that can't be read.
func (c *Cache) walk(ctx context.Context, window int64, f func(path string, r *RecordFile, err error) error) error {
	entries, err := os.ReadDir(c.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if isAside(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(c.dir(), e.Name())
		r, err := openRecord(path, window)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err == nil && c.path(r.key) != path {
			r.Close()
			err = fmt.Errorf("read %s: record is of another key: %w", path, errdefs.ErrDataLoss)
		}
		ferr := f(path, r, err)
		if err == nil {
			r.Close()
		}
		if ferr != nil {
			return ferr
		}
	}
	return nil
}

// recordsDir holds the records. What else is below cache/, such as the cache
// mounts of builds, belongs to its owners.
const recordsDir = cacheDir + "/records"

// caches returns every kind of cache that has records.
func (s *Store) caches() ([]*Cache, error) {
	entries, err := os.ReadDir(s.path(recordsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var caches []*Cache
	for _, e := range entries {
		if e.IsDir() && validComponent(e.Name()) {
			caches = append(caches, s.Cache(e.Name()))
		}
	}
	return caches, nil
}
