package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/shaleproject/shale/internal/sys"
)

// writebackStep is how many bytes of a file gather before the kernel is
// asked to write them out. Without that a commit waits for the whole blob.
const writebackStep = 8 << 20

// Ingest is content on its way in: a file in tmp/ that is hashed while it
// grows and gets its name in blobs/ by Commit. It is an [io.Writer] for one
// goroutine.
type Ingest struct {
	store *Store
	lease *Lease
	file  *os.File
	hash  hash.Hash
	size  int64
	err   error // the first write that failed
}

// Ingest starts to take in content. The caller closes it.
func (s *Store) Ingest(l *Lease) (*Ingest, error) {
	if l == nil {
		return nil, fmt.Errorf("ingest blob: no lease: %w", errdefs.ErrInvalidArgument)
	}
	f, err := l.tempFile()
	if err != nil {
		return nil, fmt.Errorf("ingest blob: %w", err)
	}
	return &Ingest{store: s, lease: l, file: f, hash: sha256.New()}, nil
}

// Write takes the next bytes. An error, such as a full disk, is what Commit
// returns, too.
func (in *Ingest) Write(p []byte) (int, error) {
	if in.err != nil {
		return 0, in.err
	}
	n, err := in.write(p)
	in.hash.Write(p[:n])
	return n, err
}

// write is Write without the hash.
func (in *Ingest) write(p []byte) (int, error) {
	n, err := in.file.Write(p)
	writeback(in.file, in.size, n)
	in.size += int64(n)
	if err != nil {
		in.err = fmt.Errorf("ingest blob after %d bytes: %w", in.size, err)
	}
	return n, in.err
}

// writeback is to be told of n bytes that were written to f behind the first
// size ones.
func writeback(f *os.File, size int64, n int) {
	if (size+int64(n))/writebackStep > size/writebackStep {
		sys.Writeback(f, size-size%writebackStep, writebackStep)
	}
}

// Commit makes the content visible, durably, and has the lease keep it. An
// empty want and a negative size take whatever came; content that is something
// else is an [errdefs.ErrFailedPrecondition] and leaves nothing behind.
func (in *Ingest) Commit(ctx context.Context, want digest.Digest, size int64) (digest.Digest, int64, error) {
	if in.err != nil {
		return "", 0, in.err
	}
	if err := context.Cause(ctx); err != nil {
		return "", 0, fmt.Errorf("commit blob: %w", err)
	}
	d, err := in.verify(digest.NewDigestFromBytes(digest.SHA256, in.hash.Sum(nil)), want)
	if err != nil {
		return "", 0, err
	}
	if size >= 0 && size != in.size {
		return "", 0, fmt.Errorf("commit blob %s: content has %d bytes, not %d: %w", d, in.size, size, errdefs.ErrFailedPrecondition)
	}
	if err := sys.Datasync(in.file); err != nil {
		return "", 0, fmt.Errorf("commit blob %s: %w", d, err)
	}
	if err := in.publish(d); err != nil {
		return "", 0, fmt.Errorf("commit blob %s: %w", d, err)
	}
	return d, in.size, nil
}

// verify compares got, the sha256 of the content, with want, and returns the
// digest that the content is to be known by.
func (in *Ingest) verify(got, want digest.Digest) (digest.Digest, error) {
	if want == "" {
		return got, nil
	}
	a, _, err := splitDigest(want)
	if err != nil {
		return "", fmt.Errorf("commit blob: %w", err)
	}
	if a.name != got.Algorithm().String() {
		if got, err = hashFile(in.file, a); err != nil {
			return "", fmt.Errorf("commit blob %s: %w", want, err)
		}
	}
	if got != want {
		return "", fmt.Errorf("commit blob %s: content has digest %s: %w", want, got, errdefs.ErrFailedPrecondition)
	}
	return want, nil
}

// hashFile reads all of f.
func hashFile(f *os.File, a algorithm) (digest.Digest, error) {
	h := a.new()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return "", err
	}
	return digest.NewDigestFromBytes(digest.Algorithm(a.name), h.Sum(nil)), nil
}

// publish gives the synced file its name. Content that is there already is
// replaced by the same content: that costs nothing, and mends a copy that the
// disk has spoiled.
func (in *Ingest) publish(d digest.Digest) error {
	if err := in.lease.Keep(d); err != nil {
		return err
	}
	target := in.store.Path(d)
	if err := os.Rename(in.file.Name(), target); err != nil {
		return err
	}
	err := errors.Join(sys.SyncDir(filepath.Dir(target)), in.file.Close())
	in.over()
	return err
}

// over makes every later call fail.
func (in *Ingest) over() {
	in.file = nil
	if in.err == nil {
		in.err = fmt.Errorf("ingest blob: committed or closed already: %w", errdefs.ErrFailedPrecondition)
	}
}

// Close drops what was not committed.
func (in *Ingest) Close() error {
	if in.file == nil {
		return nil
	}
	err := errors.Join(in.file.Close(), os.Remove(in.file.Name()))
	in.over()
	if err != nil {
		return fmt.Errorf("drop blob: %w", err)
	}
	return nil
}
