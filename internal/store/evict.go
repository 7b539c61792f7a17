package store

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/shaleproject/shale/internal/sys"
)

// seenRecord is a cache record that the collector has read.
type seenRecord struct {
	path  string
	info  fs.FileInfo
	holds []digest.Digest
	bad   bool // the disk has spoiled it, or it is another's
}

// decideRecords goes through the cache records, most recently used first, and
// makes what they hold live for as long as the budget lasts. What others keep
// anyway costs a record nothing. A record that doesn't fit is dropped; an
// older and smaller one may still fit.
func (c *collector) decideRecords(ctx context.Context) error {
	records, err := c.readRecords(ctx)
	if err != nil {
		return err
	}
	left := c.options.CacheBudget
	for _, r := range records {
		busy, err := dirInUse(r.path + recordDirSuffix)
		if err != nil {
			return err
		}
		if busy {
			if err := c.marker.mark(r.holds...); err != nil {
				return err
			}
			continue
		}
		unused := c.options.Now.Sub(sys.AccessTime(r.info))
		if r.bad || left < 0 || c.options.CacheUnused > 0 && unused > c.options.CacheUnused {
			c.deadRecords = append(c.deadRecords, r)
			continue
		}
		reached, err := c.marker.reach(r.holds...)
		if err != nil {
			return err
		}
		cost := r.info.Size() + dirSize(r.path)
		for _, d := range reached {
			if size, err := c.store.Stat(d); err == nil {
				cost += size
			}
		}
		if cost > left {
			c.deadRecords = append(c.deadRecords, r)
			continue
		}
		left -= cost
		for _, d := range reached {
			c.marker.live[d] = true
		}
	}
	return nil
}

// readRecords returns all records, most recently used first. Those that an
// earlier look has read, and that are the same file still, are not read again.
func (c *collector) readRecords(ctx context.Context) ([]*seenRecord, error) {
	caches, err := c.store.caches()
	if err != nil {
		return nil, err
	}
	var records []*seenRecord
	for _, cache := range caches {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		entries, err := os.ReadDir(cache.dir())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		found := map[string]bool{}
		for _, e := range entries {
			r, err := c.readRecord(cache, e)
			if err != nil {
				return nil, err
			}
			if r != nil {
				records = append(records, r)
				found[r.path] = true
			}
		}
		c.deadDirs = append(c.deadDirs, deadDirs(cache.dir(), entries, found)...)
	}
	slices.SortFunc(records, func(a, b *seenRecord) int {
		return cmp.Or(sys.AccessTime(b.info).Compare(sys.AccessTime(a.info)), cmp.Compare(a.path, b.path))
	})
	return records, nil
}

func (c *collector) readRecord(cache *Cache, e fs.DirEntry) (*seenRecord, error) {
	path := filepath.Join(cache.dir(), e.Name())
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if r := c.records[path]; r != nil && os.SameFile(r.info, info) && r.info.ModTime().Equal(info.ModTime()) {
		r.info = info // the time of last use may have moved
		return r, nil
	}
	file, err := openRecord(path, recordWindow)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	r := &seenRecord{path: path, info: info}
	switch {
	case err == nil:
		r.holds, r.bad = file.Holds, cache.path(file.key) != path
		file.Close()
	case errdefs.IsDataLoss(err):
		r.bad = true
	default:
		return nil, err
	}
	c.records[path] = r
	return r, nil
}
