package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shaleproject/shale/internal/sys"
)

// uploadPrefix begins the name of an upload in tmp/: upload-<id>-<repository>,
// the latter as the beginning of its hash. So an id is of use in its own
// repository only, and the server need not remember any.
const uploadPrefix = "upload-"

// maxHashStates bounds what a server remembers of uploads that wait. One whose
// state is forgotten is hashed again when it is committed.
const maxHashStates = 1024

// hashState is the hash of the first size bytes of an upload.
type hashState struct {
	hash hash.Hash
	size int64
}

// upload is a blob that is pushed in chunks: one request's hold on it.
type upload struct {
	registry *registry
	ctx      context.Context // BlobWriter has none in its methods
	dir, id  string
	file     *os.File
	size     int64
	start    int64 // where the first write must begin; -1 is anywhere
	chunk    int
	hash     hash.Hash // of size bytes; nil if it isn't known
	writing  bool      // the upload is ours alone
}

func (r *registry) uploadPath(dir, id string) string {
	sum := sha256.Sum256([]byte(dir))
	return r.store.path(tmpDir, uploadPrefix+id+"-"+hex.EncodeToString(sum[:8]))
}

// PushBlobChunked begins an upload.
func (r *registry) PushBlobChunked(ctx context.Context, repo string, chunkSize int) (ociregistry.BlobWriter, error) {
	dir, err := r.dir(repo)
	if err != nil {
		return nil, err
	}
	id := randomName()
	f, err := createFile(r.uploadPath(dir, id), 0o600)
	if err != nil {
		return nil, fmt.Errorf("begin upload: %w", err)
	}
	return &upload{registry: r, ctx: ctx, dir: dir, id: id, file: f, chunk: chunkSize, hash: sha256.New()}, nil
}

// PushBlobChunkedResume goes on with an upload.
func (r *registry) PushBlobChunkedResume(ctx context.Context, repo, id string, offset int64, chunkSize int) (ociregistry.BlobWriter, error) {
	dir, err := r.dir(repo)
	if err != nil {
		return nil, err
	}
	if strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") != "" || id == "" {
		return nil, fmt.Errorf("%w: %.100q", ociregistry.ErrBlobUploadUnknown, id)
	}
	f, err := os.OpenFile(r.uploadPath(dir, id), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ociregistry.ErrBlobUploadUnknown, id)
	}
	if err != nil {
		return nil, fmt.Errorf("resume upload: %w", err)
	}
	u := &upload{registry: r, ctx: ctx, dir: dir, id: id, file: f, start: offset, chunk: chunkSize}
	if err := u.measure(); err != nil {
		f.Close()
		return nil, err
	}
	return u, nil
}

func (u *upload) measure() error {
	info, err := u.file.Stat()
	if err != nil {
		return fmt.Errorf("resume upload: %w", err)
	}
	u.size = info.Size()
	return nil
}

// claim makes the upload ours alone and fetches what is known of its hash.
func (u *upload) claim() error {
	if u.file == nil {
		return fmt.Errorf("%w: upload is over", ociregistry.ErrBlobUploadUnknown)
	}
	if err := context.Cause(u.ctx); err != nil || u.writing {
		return err
	}
	r := u.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[u.id] {
		return fmt.Errorf("%w: another request writes to upload %s", ociregistry.ErrBlobUploadInvalid, u.id)
	}
	if err := u.measure(); err != nil {
		return err
	}
	r.busy[u.id], u.writing = true, true
	state, known := r.hashes[u.id]
	delete(r.hashes, u.id)
	switch {
	case u.size == 0:
		u.hash = sha256.New()
	case known && state.size == u.size:
		u.hash = state.hash
	default:
		u.hash = nil
	}
	return nil
}

// Write takes the next bytes. Those of a request that breaks off stay: the
// client may ask how many there are and go on behind them.
func (u *upload) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := u.claim(); err != nil {
		return 0, err
	}
	if u.start >= 0 && u.start != u.size {
		return 0, fmt.Errorf("%w: chunk begins at %d, upload has %d bytes", ociregistry.ErrRangeInvalid, u.start, u.size)
	}
	u.start = -1
	n, err := u.file.WriteAt(p, u.size)
	u.size += int64(n)
	if u.hash != nil {
		u.hash.Write(p[:n])
	}
	if err != nil {
		return n, fmt.Errorf("write upload after %d bytes: %w", u.size, err)
	}
	return n, nil
}

func (u *upload) Size() int64 { return u.size }

// ChunkSize is also the least that a server asks of its clients.
func (u *upload) ChunkSize() int { return max(u.chunk, 1) }

func (u *upload) ID() string { return u.id }

// Close ends the request and leaves the upload.
func (u *upload) Close() error {
	if u.file == nil {
		return nil
	}
	err := u.file.Close()
	u.over(true)
	return err
}

// over gives up the hold. What is known of the hash waits for the next one.
func (u *upload) over(resumable bool) {
	u.file = nil
	if !u.writing {
		return
	}
	u.writing = false
	r := u.registry
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, u.id)
	if !resumable || u.hash == nil {
		return
	}
	for id := range r.hashes {
		if len(r.hashes) < maxHashStates {
			break
		}
		delete(r.hashes, id)
	}
	r.hashes[u.id] = hashState{u.hash, u.size}
}

// Commit makes the blob part of the repository. An upload that is not what its
// digest says is dropped.
func (u *upload) Commit(want digest.Digest) (ocispec.Descriptor, error) {
	if err := u.claim(); err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, _, err := splitDigest(want); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %w", ociregistry.ErrDigestInvalid, err)
	}
	r := u.registry
	err := r.withLease(u.ctx, func(l *Lease) error {
		in := &Ingest{store: r.store, lease: l, file: u.file, size: u.size}
		if err := u.commit(in, want); err != nil {
			return err
		}
		return r.link(u.dir, want)
	})
	if err != nil {
		if errdefs.IsFailedPrecondition(err) {
			return ocispec.Descriptor{}, errors.Join(mismatch(err), u.Cancel())
		}
		return ocispec.Descriptor{}, err
	}
	u.over(false)
	return ocispec.Descriptor{MediaType: mediaTypeBlob, Digest: want, Size: u.size}, nil
}

// commit verifies the file and gives it its name.
func (u *upload) commit(in *Ingest, want digest.Digest) error {
	var got digest.Digest
	if u.hash != nil {
		got = digest.NewDigestFromBytes(digest.SHA256, u.hash.Sum(nil))
	} else {
		var err error
		if got, err = hashFile(u.file, algorithms[0]); err != nil {
			return fmt.Errorf("commit upload: %w", err)
		}
	}
	d, err := in.verify(got, want)
	if err != nil {
		return err
	}
	if err := u.file.Chmod(0o400); err != nil {
		return fmt.Errorf("commit upload: %w", err)
	}
	if err := sys.Datasync(u.file); err != nil {
		return fmt.Errorf("commit upload: %w", err)
	}
	if err := in.publish(d); err != nil {
		return fmt.Errorf("commit upload: %w", err)
	}
	return nil
}

// Cancel drops the upload, if it isn't over yet.
func (u *upload) Cancel() error {
	if u.file == nil {
		return nil
	}
	err := errors.Join(os.Remove(u.file.Name()), u.file.Close())
	u.over(false)
	return err
}
