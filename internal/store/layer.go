package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/sys"
)

// LayerIngest is an uncompressed layer tar on its way in: it is written,
// hashed and indexed in one pass, each on a core of its own. It is an
// [io.Writer] for one goroutine.
type LayerIngest struct {
	blob    *Ingest
	hash    hash.Hash
	indexer *layer.Indexer
	pipe    *pipeline
}

// IngestLayer starts to take in a layer. The caller closes it.
func (s *Store) IngestLayer(l *Lease) (*LayerIngest, error) {
	blob, err := s.Ingest(l)
	if err != nil {
		return nil, err
	}
	in := &LayerIngest{blob: blob, hash: sha256.New(), indexer: layer.NewIndexer(s.path(tmpDir))}
	in.pipe = newPipeline(
		func(p []byte) error { _, err := in.blob.write(p); return err },
		func(p []byte) error { _, err := in.hash.Write(p); return err },
		func(p []byte) error { _, err := in.indexer.Write(p); return err },
	)
	return in, nil
}

// Write takes the next bytes of the tar.
func (in *LayerIngest) Write(p []byte) (int, error) { return in.pipe.Write(p) }

// ReadFrom takes all that r gives.
func (in *LayerIngest) ReadFrom(r io.Reader) (int64, error) { return in.pipe.ReadFrom(r) }

// Commit makes the layer and its index visible, durably, and has the lease
// keep them. An empty want takes whatever came. Content with another digest is
// an [errdefs.ErrFailedPrecondition], a tar that can't be a layer an
// [errdefs.ErrInvalidArgument]; neither leaves anything behind.
func (in *LayerIngest) Commit(ctx context.Context, want digest.Digest) (diffID digest.Digest, size int64, err error) {
	if err := in.pipe.stop(); err != nil {
		return "", 0, fmt.Errorf("commit layer: %w", err)
	}
	if in.blob.err != nil {
		return "", 0, in.blob.err
	}
	if err := context.Cause(ctx); err != nil {
		return "", 0, fmt.Errorf("commit layer: %w", err)
	}
	d, err := in.blob.verify(digest.NewDigestFromBytes(digest.SHA256, in.hash.Sum(nil)), want)
	if err != nil {
		return "", 0, err
	}
	// The tar goes to the disk while the index is made.
	synced := make(chan error, 1)
	go func() { synced <- sys.Datasync(in.blob.file) }()
	err = in.blob.store.writeIndex(in.blob.lease, d, in.indexer)
	if err = errors.Join(err, <-synced); err == nil {
		err = in.blob.publish(d)
	}
	if err != nil {
		return "", 0, fmt.Errorf("commit layer %s: %w", d, err)
	}
	return d, in.blob.size, nil
}

// Close drops what was not committed.
func (in *LayerIngest) Close() error {
	in.pipe.stop() // its error is Commit's, or nobody asked for it
	return errors.Join(in.indexer.Close(), in.blob.Close())
}

// writeIndex puts the finished index of d in its place. The index comes before
// the tar, so that a layer that is there has one.
func (s *Store) writeIndex(l *Lease, d digest.Digest, x *layer.Indexer) error {
	f, err := l.tempFile()
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	_, err = x.Finish(f)
	if err == nil {
		// The index could be made again, but the kernel mounts it: a half
		// one must not be mistaken for a whole one.
		err = sys.Datasync(f)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = l.Keep(d)
	}
	if err == nil {
		err = os.Rename(f.Name(), s.derived(indexDir, d))
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}

// Layer is a layer of the store as a file system, read without a mount.
type Layer struct {
	*layer.FS
	tar, index *os.File
}

// Layer opens the layer whose DiffID is d. A missing or unreadable index is
// made again first. The caller closes it.
func (s *Store) Layer(d digest.Digest) (*Layer, error) {
	ctx := context.Background()
	path, err := s.Index(ctx, d)
	if err != nil {
		return nil, err
	}
	l, err := s.openLayer(d, path)
	if err == nil || errdefs.IsNotFound(err) {
		return l, err
	}
	if err := s.rebuildIndex(ctx, d); err != nil {
		return nil, err
	}
	return s.openLayer(d, path)
}

func (s *Store) openLayer(d digest.Digest, path string) (*Layer, error) {
	blob, err := s.Blob(d)
	if err != nil {
		return nil, err
	}
	index, err := os.Open(path)
	if err != nil {
		blob.Close()
		return nil, fmt.Errorf("open layer %s: %w", d, err)
	}
	l := &Layer{tar: blob.file, index: index}
	info, err := index.Stat()
	if err == nil {
		l.FS, err = layer.Open(index, info.Size(), blob.file)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("open layer %s: %w", d, err)
	}
	return l, nil
}

// Close closes the files behind l.
func (l *Layer) Close() error { return errors.Join(l.tar.Close(), l.index.Close()) }

// Index returns the path of the index of layer d for mount(2), and makes it if
// it is missing.
func (s *Store) Index(ctx context.Context, d digest.Digest) (string, error) {
	if _, err := s.Stat(d); err != nil {
		return "", err
	}
	path := s.derived(indexDir, d)
	info, err := os.Stat(path)
	if err == nil && info.Size() > 0 {
		return path, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("index layer %s: %w", d, err)
	}
	return path, s.rebuildIndex(ctx, d)
}

// rebuildIndex makes the index of d from its content. The kernel trusts an
// index, so none is made from content that isn't what its name says: that is
// an [errdefs.ErrDataLoss].
func (s *Store) rebuildIndex(ctx context.Context, d digest.Digest) error {
	l, err := s.Lease(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Hold(d); err != nil {
		return err
	}
	x := layer.NewIndexer(s.path(tmpDir))
	defer x.Close()
	if err := s.feed(ctx, d, x); err != nil {
		return fmt.Errorf("index layer %s: %w", d, err)
	}
	if err := s.writeIndex(l, d, x); err != nil {
		return fmt.Errorf("index layer %s: %w", d, err)
	}
	return sys.SyncDir(filepath.Dir(s.derived(indexDir, d)))
}

// feed streams the content of d to w and verifies it on the way.
func (s *Store) feed(ctx context.Context, d digest.Digest, w io.Writer) error {
	blob, err := s.Blob(d)
	if err != nil {
		return err
	}
	defer blob.Close()
	a, _, err := splitDigest(d)
	if err != nil {
		return err
	}
	h := a.new()
	pipe := newPipeline(
		func(p []byte) error { _, err := h.Write(p); return err },
		func(p []byte) error { _, err := w.Write(p); return err },
	)
	_, err = pipe.ReadFrom(contextReader{ctx, blob})
	stopped := pipe.stop()
	if got := digest.NewDigestFromBytes(digest.Algorithm(a.name), h.Sum(nil)); err == nil && got != d {
		return fmt.Errorf("content has digest %s: %w", got, errdefs.ErrDataLoss)
	}
	return errors.Join(err, stopped)
}

// contextReader is r until ctx ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// TreeDir is where the overlay driver keeps layer d unpacked. The driver makes
// it by renaming a directory of [Lease.TempDir] while a lease keeps d; the
// collector removes it with the layer.
func (s *Store) TreeDir(d digest.Digest) string { return s.derived(treesDir, d) }
