package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// Problem is something in the store that should not be so.
type Problem struct {
	What string // what is wrong: "ref docker.io/library/busybox:latest", a path
	Err  error  // how
}

func (p Problem) String() string { return p.What + ": " + p.Err.Error() }

// Fsck looks for damage and changes nothing. What it returns is sorted; an
// error says that it could not look.
//
// The quick check reads every ref, record and container, and makes sure that
// what they need is there and has the right size. The deep one reads all
// content again: every digest is computed, every index compared with one made
// afresh. Both may run beside everything else.
func (s *Store) Fsck(ctx context.Context, deep bool) ([]Problem, error) {
	f := &fsck{store: s}
	// Under the lock nothing that a ref needs can vanish between the look at
	// the ref and the look at its content.
	err := s.shared(func() error { return f.quick(ctx) })
	if err == nil && deep {
		err = f.deep(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("check store: %w", err)
	}
	slices.SortFunc(f.problems, func(a, b Problem) int { return cmp.Compare(a.String(), b.String()) })
	return f.problems, nil
}

type fsck struct {
	store *Store

	mu       sync.Mutex
	problems []Problem
}

func (f *fsck) report(what string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problems = append(f.problems, Problem{what, err})
}

func (f *fsck) quick(ctx context.Context) error {
	for _, check := range []func(context.Context) error{f.refs, f.records, f.containers, f.names} {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f *fsck) refs(ctx context.Context) error {
	c := &closure{store: f.store, seen: map[digest.Digest]error{}}
	return f.store.walkNames(ctx, refsDir, "", func(n refName, err error) error {
		if err != nil {
			f.report("refs", err)
			return nil
		}
		ref, err := f.store.readRef(n)
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err == nil {
			err = c.manifest(ref.Descriptor, maxNesting)
		}
		if err != nil {
			f.report("ref "+n.String(), err)
		}
		return nil
	})
}

func (f *fsck) records(ctx context.Context) error {
	caches, err := f.store.caches()
	if err != nil {
		return err
	}
	for _, c := range caches {
		err := c.walk(ctx, recordWindow, func(_ string, r *RecordFile, err error) error {
			if err != nil {
				f.report("cache record", err)
				return nil
			}
			f.holds(fmt.Sprintf("%s record %.100q", c.kind, r.key), r.Holds)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *fsck) containers(context.Context) error {
	ids, err := f.store.Containers()
	if err != nil {
		return err
	}
	for _, id := range ids {
		holds, err := f.store.ContainerHolds(id)
		switch {
		case err == nil:
			f.holds("container "+id, holds)
		case !errdefs.IsNotFound(err):
			f.report("container "+id, err)
		}
	}
	return nil
}

func (f *fsck) holds(who string, ds []digest.Digest) {
	for _, d := range ds {
		if err := f.store.present(d, -1); err != nil {
			f.report(who, err)
		}
	}
}

// names looks for files in the content directories that no digest names, for
// names that can't be read as files, and for tars whose size is not that which
// their index says.
func (f *fsck) names(context.Context) error {
	for _, dir := range []string{blobsDir, indexDir} {
		for _, a := range algorithms {
			entries, err := readDir(f.store.path(dir, a.name))
			if err != nil {
				return err
			}
			for _, e := range entries {
				d := digest.Digest(a.name + ":" + e.Name())
				_, _, err := splitDigest(d)
				if err == nil && !e.Type().IsRegular() {
					err = fmt.Errorf("not a regular file: %w", errdefs.ErrDataLoss)
				}
				if err != nil {
					f.report(f.store.path(dir, a.name, e.Name()), err)
				} else if dir == indexDir {
					f.index(d)
				}
			}
		}
	}
	return nil
}

// index compares an index with its tar in size. An index of another version,
// or without its tar, is as good as none.
func (f *fsck) index(d digest.Digest) {
	size, err := f.store.Stat(d)
	if err != nil {
		return
	}
	_, file, err := f.store.openIndex(d, nil, size)
	if err == nil {
		file.Close()
	} else if !errdefs.IsFailedPrecondition(err) && !errors.Is(err, fs.ErrNotExist) {
		f.report("index "+string(d), err)
	}
}

// deep reads all content, as many blobs at a time as there are cores. A blob
// that is collected meanwhile is no problem.
func (f *fsck) deep(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, a := range algorithms {
		entries, err := readDir(f.store.path(blobsDir, a.name))
		if err != nil {
			return err
		}
		for _, e := range entries {
			d := digest.Digest(a.name + ":" + e.Name())
			if _, _, err := splitDigest(d); err != nil {
				continue
			}
			g.Go(func() error { return f.blob(ctx, d) })
		}
	}
	return g.Wait()
}

// blob verifies one blob, and its index if it has one. The error is that of
// the check, not of the blob.
func (f *fsck) blob(ctx context.Context, d digest.Digest) error {
	var err error
	if f.hasIndex(d) {
		err = f.layer(ctx, d)
	} else {
		err = f.store.feed(ctx, d, nil)
	}
	if cerr := context.Cause(ctx); cerr != nil {
		return cerr
	}
	if err != nil && !errdefs.IsNotFound(err) && !errors.Is(err, fs.ErrNotExist) {
		f.report("blob "+string(d), err)
	}
	return nil
}

// hasIndex reports whether there is an index that is worth a comparison. One
// that can't be opened the quick check has seen; one of another version is
// made again when it is needed.
func (f *fsck) hasIndex(d digest.Digest) bool {
	size, err := f.store.Stat(d)
	if err != nil {
		return false
	}
	_, index, err := f.store.openIndex(d, nil, size)
	if err != nil {
		return false
	}
	index.Close()
	return true
}

// layer verifies a tar and compares its index with one that is made from it.
func (f *fsck) layer(ctx context.Context, d digest.Digest) error {
	path := f.store.derived(indexDir, d)
	index, err := os.Open(path)
	if err != nil {
		return err
	}
	defer index.Close()
	info, err := index.Stat()
	if err != nil {
		return err
	}
	var same bool
	if info.Size() <= maxIndexInMemory {
		same, err = f.sameInMemory(ctx, d, index, info.Size())
	} else {
		same, err = f.sameOnDisk(ctx, d, path)
	}
	if err == nil && !same {
		err = fmt.Errorf("index %s is not that of the content; remove the file, and it is made again: %w", path, errdefs.ErrDataLoss)
	}
	return err
}

// maxIndexInMemory is the size in bytes up to which an index is made in
// memory, so that a full disk can be checked, too.
const maxIndexInMemory = 64 << 20

func (f *fsck) sameInMemory(ctx context.Context, d digest.Digest, index io.Reader, size int64) (bool, error) {
	fresh := make(window, size)
	err := f.store.freshIndex(ctx, d, fresh)
	if errors.Is(err, errOutside) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	old, err := io.ReadAll(index)
	return bytes.Equal(old, fresh), err
}

func (f *fsck) sameOnDisk(ctx context.Context, d digest.Digest, path string) (bool, error) {
	l, err := f.store.Lease(ctx)
	if err != nil {
		return false, err
	}
	defer l.Close()
	fresh, err := l.tempFile()
	if err != nil {
		return false, err
	}
	defer os.Remove(fresh.Name())
	defer fresh.Close()
	if err := f.store.freshIndex(ctx, d, fresh); err != nil {
		return false, err
	}
	return sameContent(fresh.Name(), path)
}

// window is a file in memory that can't grow.
type window []byte

var errOutside = errors.New("write outside of the window")

func (w window) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(w)) {
		return 0, errOutside
	}
	return copy(w[off:], p), nil
}
