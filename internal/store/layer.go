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
	return s.placeIndex(l, d, func(w io.WriterAt) error {
		_, err := x.Finish(w)
		return err
	})
}

// placeIndex writes an index aside and puts it in its place. It could be made
// again, but the kernel mounts it, and a half one must not pass for a whole
// one: it is synced like content.
func (s *Store) placeIndex(l *Lease, d digest.Digest, write func(io.WriterAt) error) error {
	f, err := l.tempFile()
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	if err = write(f); err == nil {
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

// Layer opens the layer whose DiffID is d. An index that is missing, damaged
// or made by another version is made again first. The caller closes it.
func (s *Store) Layer(d digest.Digest) (*Layer, error) {
	l, err := s.openLayer(d)
	if err == nil {
		return l, nil
	}
	if _, err := s.Index(context.Background(), d); err != nil {
		return nil, err
	}
	return s.openLayer(d)
}

func (s *Store) openLayer(d digest.Digest) (*Layer, error) {
	blob, err := s.Blob(d)
	if err != nil {
		return nil, err
	}
	fsys, index, err := s.openIndex(d, blob, blob.size)
	if err != nil {
		blob.Close()
		return nil, fmt.Errorf("open layer %s: %w", d, err)
	}
	return &Layer{FS: fsys, tar: blob.file, index: index}, nil
}

// openIndex opens the index of d, if it is one that this shale can read and
// that fits the tar, which may be nil, in size.
func (s *Store) openIndex(d digest.Digest, tar io.ReaderAt, tarSize int64) (*layer.FS, *os.File, error) {
	f, err := os.Open(s.derived(indexDir, d))
	if err != nil {
		return nil, nil, err
	}
	var fsys *layer.FS
	info, err := f.Stat()
	if err == nil {
		fsys, err = layer.Open(f, info.Size(), tar)
	}
	if err == nil && !fsys.Shows(tarSize) {
		err = fmt.Errorf("tar of %d bytes is not that of the index: %w", tarSize, errdefs.ErrDataLoss)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return fsys, f, nil
}

// Close closes the files behind l.
func (l *Layer) Close() error { return errors.Join(l.tar.Close(), l.index.Close()) }

// Index returns the path of the index of layer d for mount(2). One that is
// missing, damaged or made by another version is made again.
func (s *Store) Index(ctx context.Context, d digest.Digest) (string, error) {
	size, err := s.Stat(d)
	if err != nil {
		return "", err
	}
	path := s.derived(indexDir, d)
	_, f, err := s.openIndex(d, nil, size)
	switch {
	case err == nil:
		return path, f.Close()
	case errors.Is(err, fs.ErrNotExist), errdefs.IsFailedPrecondition(err), errdefs.IsDataLoss(err):
		return path, s.rebuildIndex(ctx, d)
	}
	return "", fmt.Errorf("index layer %s: %w", d, err)
}

// rebuildIndex makes the index of d from its content.
func (s *Store) rebuildIndex(ctx context.Context, d digest.Digest) error {
	l, err := s.Lease(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Hold(d); err != nil {
		return err
	}
	err = s.placeIndex(l, d, func(w io.WriterAt) error { return s.freshIndex(ctx, d, w) })
	if err != nil {
		return fmt.Errorf("index layer %s: %w", d, err)
	}
	return sys.SyncDir(filepath.Dir(s.derived(indexDir, d)))
}

// freshIndex makes an index of d. The kernel trusts an index, so none is made
// from content that isn't what its name says: that is an [errdefs.ErrDataLoss].
func (s *Store) freshIndex(ctx context.Context, d digest.Digest, w io.WriterAt) error {
	x := layer.NewIndexer(s.path(tmpDir))
	defer x.Close()
	if err := s.feed(ctx, d, x); err != nil {
		return err
	}
	_, err := x.Finish(w)
	return err
}

// feed verifies the content of d, and streams it to w on the way; w may be
// nil. Content with another digest is an [errdefs.ErrDataLoss].
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
	var rejected error
	consumers := []func([]byte) error{func(p []byte) error { _, err := h.Write(p); return err }}
	if w != nil {
		// Whether the content is right comes before what w thinks of it.
		consumers = append(consumers, func(p []byte) error {
			if rejected == nil {
				_, rejected = w.Write(p)
			}
			return nil
		})
	}
	pipe := newPipeline(consumers...)
	_, err = pipe.ReadFrom(contextReader{ctx, blob})
	if err = errors.Join(err, pipe.stop()); err != nil {
		return err
	}
	if got := digest.NewDigestFromBytes(digest.Algorithm(a.name), h.Sum(nil)); got != d {
		return fmt.Errorf("content has digest %s: %w", got, errdefs.ErrDataLoss)
	}
	return rejected
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
