package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/shaleproject/shale/internal/sys"
)

// maxHeld bounds the descriptors that wait for the end of the lock. Beyond it
// blocks are freed under the lock, which is slower for everybody else.
const maxHeld = 256

// trashPrefix begins the name of a directory tree in tmp/ that only waits to
// be removed.
const trashPrefix = "trash."

// sweep takes away the names of all that decide has not found live. It makes
// no file, so a full disk doesn't stop it; the blocks are freed by free, when
// the lock is gone.
//
// What refers goes before what is referred to: wherever the process dies, no
// record points at content that has gone.
func (c *collector) sweep() error {
	for _, id := range c.deadLeases {
		if err := c.unlink(c.store.path(leasesDir, id), &c.report.Stale); err != nil {
			return err
		}
	}
	dirs := map[string]bool{}
	for _, r := range c.deadRecords {
		if err := c.unlink(r.path, &c.report.Records); err != nil {
			return err
		}
		dirs[filepath.Dir(r.path)] = true
		if _, err := os.Lstat(r.path + recordDirSuffix); err == nil {
			c.deadDirs = append(c.deadDirs, r.path+recordDirSuffix)
		}
	}
	for _, dir := range c.deadDirs {
		c.discard(dir, &c.report.Stale)
	}
	for _, path := range c.deadLinks {
		if err := c.unlink(path, nil); err != nil {
			return err
		}
		dirs[filepath.Dir(path)] = true
	}
	if !c.options.DryRun {
		for dir := range dirs {
			if err := sys.SyncDir(dir); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
		for dir := range dirs {
			c.pruneLinks(dir)
		}
	}
	for _, f := range []func() error{c.sweepTemp, c.sweepContent, c.sweepContainers} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// pruneLinks removes a directory of links that has become empty.
func (c *collector) pruneLinks(dir string) {
	top := c.store.path(linksDir)
	for strings.HasPrefix(dir, top+"/") && os.Remove(dir) == nil {
		dir = filepath.Dir(dir)
	}
}

// sweepContent removes blobs, indexes and trees whose digest is not live.
// Names that are no digests are left to fsck.
func (c *collector) sweepContent() error {
	for _, dir := range []string{blobsDir, indexDir, treesDir} {
		count := &c.report.Derived
		if dir == blobsDir {
			count = &c.report.Blobs
		}
		for _, a := range algorithms {
			entries, err := readDir(c.store.path(dir, a.name))
			if err != nil {
				return err
			}
			for _, e := range entries {
				d := digest.Digest(a.name + ":" + e.Name())
				if _, _, err := splitDigest(d); err != nil || c.marker.live[d] {
					continue
				}
				path := c.store.path(dir, a.name, e.Name())
				if e.IsDir() {
					c.discard(path, count)
				} else if err := c.unlink(path, count); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// sweepTemp removes what no live lease owns from tmp/. Uploads to a registry
// and locks, which no lease owns, outlive their process for the time of the
// grace.
func (c *collector) sweepTemp() error {
	entries, err := readDir(c.store.path(tmpDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		owner, _, owned := strings.Cut(e.Name(), ".")
		owned = owned && len(owner) == leaseIDLength
		if owned && c.owners[owner] {
			continue
		}
		trash := strings.HasPrefix(e.Name(), trashPrefix)
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !owned && !trash && c.options.young(info.ModTime()) {
			continue
		}
		path := c.store.path(tmpDir, e.Name())
		switch {
		case !e.IsDir() && owned:
			err = c.unlink(path, &c.report.Stale)
		case !e.IsDir():
			err = c.unlinkUnlocked(path)
		case c.options.DryRun:
			c.report.Stale++
			c.report.Bytes += treeSize(path)
		default:
			// Nobody uses the name of a dead lease again.
			c.report.Stale++
			c.trash = append(c.trash, path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unlinkUnlocked is unlink of a file that may be a lock, which only its holder
// may remove.
func (c *collector) unlinkUnlocked(path string) error {
	lock, err := sys.TryLock(path, sys.Exclusive)
	if errdefs.IsUnavailable(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(c.unlink(path, &c.report.Stale), lock.Close())
}

// sweepContainers removes directories whose container is removed already.
func (c *collector) sweepContainers() error {
	entries, err := readDir(c.store.path(containersDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := c.store.path(containersDir, e.Name())
		_, err := os.Lstat(c.store.holdsPath(path))
		if !e.IsDir() || err == nil {
			continue
		}
		c.discard(path, &c.report.Stale)
	}
	return nil
}

// unlink takes the name of a file away and holds on to its blocks.
func (c *collector) unlink(path string, count *int) error {
	f, err := sys.HoldFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	info, err := f.Stat()
	if err == nil && !c.options.DryRun {
		err = os.Remove(path)
	}
	if err != nil {
		f.Close()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if count != nil {
		*count++
	}
	c.report.Bytes += sys.Blocks(info)
	if c.held = append(c.held, f); len(c.held) >= maxHeld {
		return c.release()
	}
	return nil
}

// discard takes a tree away: into tmp/ first, which is quick. Where even that
// needs a block that the disk doesn't have, it is removed on the spot. A tree
// that resists, because something is mounted in it, say, is an error at the
// end and stops nothing.
func (c *collector) discard(path string, count *int) {
	if c.options.DryRun {
		*count++
		c.report.Bytes += treeSize(path)
		return
	}
	at, err := c.store.moveAway(path)
	switch at {
	case "":
		if err != nil {
			c.failed = append(c.failed, err)
		}
		return
	case path:
		size := treeSize(path)
		if err := removeTree(path); err != nil {
			c.failed = append(c.failed, err)
			return
		}
		c.report.Bytes += size
	default:
		c.trash = append(c.trash, at)
	}
	*count++
}

// moveAway renames a tree that is to be removed into tmp/ and returns where it
// is then: nowhere if it was gone, in its old place if the disk has no block
// for the new name.
func (s *Store) moveAway(path string) (at string, err error) {
	trash := s.path(tmpDir, trashPrefix+randomName())
	err = os.Rename(path, trash)
	switch {
	case err == nil:
		return trash, nil
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return path, nil
	}
	return "", err
}

func (c *collector) release() error {
	var errs []error
	for _, f := range c.held {
		errs = append(errs, f.Close())
	}
	c.held = nil
	return errors.Join(errs...)
}

// free gives the blocks of all that sweep has taken away back to the disk.
func (c *collector) free() error {
	err := errors.Join(append(c.failed, c.release())...)
	for _, path := range c.trash {
		c.report.Bytes += treeSize(path)
		err = errors.Join(err, removeTree(path))
	}
	return err
}

// readDir is os.ReadDir of a directory that may be missing.
func readDir(path string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return entries, err
}

// treeSize returns the bytes that a tree takes on disk, as far as it can be
// read. A file with several names counts once for each.
func treeSize(path string) int64 {
	var n int64
	filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil {
			n += sys.Blocks(info)
		}
		return nil
	})
	return n
}
