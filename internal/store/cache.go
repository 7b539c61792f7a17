package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// recordFile is the JSON of a record. The file begins with a line that is the
// digest of the rest: a cache that is wrong is worse than none.
type recordFile struct {
	Key   string          `json:"key"`
	Data  []byte          `json:"data"`
	Holds []digest.Digest `json:"holds,omitempty"`
}

// Get returns the record of key and notes that it was used. One that isn't
// there, or that can't be read any more, is an [errdefs.ErrNotFound].
func (c *Cache) Get(key string) (Record, error) {
	path := c.path(key)
	file, r, err := readRecord(path)
	if err == nil && file.Key != key {
		err = fmt.Errorf("belongs to another key: %w", errdefs.ErrDataLoss)
	}
	if errdefs.IsDataLoss(err) {
		os.Remove(path) // a miss from now on, for fsck too
		err = fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	if err != nil {
		return Record{}, fmt.Errorf("get %s record %.100q: %w", c.kind, key, err)
	}
	r.Used = time.Now()
	if err := sys.Touch(path, r.Used, time.Time{}); err != nil && !errdefs.IsNotFound(err) {
		return Record{}, fmt.Errorf("get %s record %.100q: %w", c.kind, key, err)
	}
	return r, nil
}

// readRecord reads the file of a record and doesn't count as a use.
func readRecord(path string) (recordFile, Record, error) {
	var file recordFile
	f, err := sys.OpenQuiet(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errdefs.ErrNotFound
		}
		return file, Record{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return file, Record{}, err
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return file, Record{}, err
	}
	sum, body, _ := bytes.Cut(data, []byte("\n"))
	if string(sum) != string(digest.FromBytes(body)) {
		return file, Record{}, fmt.Errorf("read %s: first line is not the digest of the rest: %w", path, errdefs.ErrDataLoss)
	}
	if err := json.Unmarshal(body, &file); err != nil {
		return file, Record{}, fmt.Errorf("read %s: %w: %w", path, err, errdefs.ErrDataLoss)
	}
	r := Record{Data: file.Data, Holds: file.Holds, Updated: info.ModTime(), Used: sys.AccessTime(info)}
	return file, r, nil
}

// Put keeps a record, in place of one that has the same key. What it holds has
// to be in the store, or the error is an [errdefs.ErrNotFound]. A power cut may
// lose the record; it doesn't spoil it.
func (c *Cache) Put(key string, r Record) error {
	if err := c.put(key, r, ""); err != nil {
		return fmt.Errorf("put %s record %.100q: %w", c.kind, key, err)
	}
	return nil
}

// put keeps a record, and the tree at dir beside it unless dir is empty.
func (c *Cache) put(key string, r Record, dir string) error {
	body, err := json.Marshal(recordFile{Key: key, Data: r.Data, Holds: r.Holds})
	if err != nil {
		return err
	}
	own, err := c.store.ownLease()
	if err != nil {
		return err
	}
	aside, err := own.tempName()
	if err != nil {
		return err
	}
	if err := writeSynced(aside, fmt.Appendf(nil, "%s\n%s", digest.FromBytes(body), body)); err != nil {
		return err
	}
	err = c.store.shared(func() error {
		for _, d := range r.Holds {
			if err := c.store.present(d, -1); err != nil {
				return err
			}
		}
		if dir != "" {
			if err := mkdirs(c.store.path(cacheDir), c.dir()); err != nil {
				return err
			}
			if err := sys.RenameNoReplace(dir, c.path(key)+recordDirSuffix); err != nil {
				return err
			}
		}
		return place(aside, c.path(key), c.store.path(cacheDir))
	})
	if err != nil {
		os.Remove(aside)
	}
	return err
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

// All returns every record by its key. That is not a use.
func (c *Cache) All(ctx context.Context) (map[string]Record, error) {
	all := map[string]Record{}
	err := c.walk(ctx, func(path string, file recordFile, r Record, err error) error {
		if err == nil {
			all[file.Key] = r
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s records: %w", c.kind, err)
	}
	return all, nil
}

// walk calls f for every record, and with an error for each that can't be read.
func (c *Cache) walk(ctx context.Context, f func(path string, file recordFile, r Record, err error) error) error {
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
		file, r, err := readRecord(path)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err == nil && c.path(file.Key) != path {
			err = fmt.Errorf("read %s: record is of another key: %w", path, errdefs.ErrDataLoss)
		}
		if err := f(path, file, r, err); err != nil {
			return err
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
