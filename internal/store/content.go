package store

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// algorithm is a digest algorithm that content may be named by.
type algorithm struct {
	name string
	hex  int // length of the encoded digest
	new  func() hash.Hash
}

// algorithms are those of image-spec descriptor.md, "Registered Algorithms".
// Content goes by the name that its referrer gave it; what shale makes is
// named by the first.
var algorithms = []algorithm{
	{"sha256", 2 * sha256.Size, sha256.New},
	{"sha512", 2 * sha512.Size, sha512.New},
}

// splitDigest takes d apart. A digest that the store does not keep content by,
// or that could be another path than blobs/<algorithm>/<hex>, is an
// [errdefs.ErrInvalidArgument].
func splitDigest(d digest.Digest) (algorithm, string, error) {
	name, hex, _ := strings.Cut(string(d), ":")
	for _, a := range algorithms {
		if a.name != name {
			continue
		}
		if len(hex) != a.hex || strings.Trim(hex, "0123456789abcdef") != "" {
			break
		}
		return a, hex, nil
	}
	return algorithm{}, "", fmt.Errorf("digest %.140q is not sha256:<64 hex> or sha512:<128 hex>: %w", string(d), errdefs.ErrInvalidArgument)
}

// derived returns the path of something of d below dir. It is empty, which no
// file can be at, if d is no digest of ours.
func (s *Store) derived(dir string, d digest.Digest) string {
	a, hex, err := splitDigest(d)
	if err != nil {
		return ""
	}
	return s.path(dir, a.name, hex)
}

// Path is where the content of d lies if it is there. It is for mount(2) and
// the like; readers use [Store.Blob].
func (s *Store) Path(d digest.Digest) string { return s.derived(blobsDir, d) }

// Stat returns the size of the content of d in bytes. It reads no content, so
// it can't tell whether a disk has lost some.
func (s *Store) Stat(d digest.Digest) (int64, error) {
	if _, _, err := splitDigest(d); err != nil {
		return 0, fmt.Errorf("stat blob: %w", err)
	}
	info, err := os.Lstat(s.Path(d))
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return 0, blobError("stat", d, err)
	}
	return info.Size(), nil
}

func blobError(verb string, d digest.Digest, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		err = errdefs.ErrNotFound
	}
	return fmt.Errorf("%s blob %s: %w", verb, d, err)
}

// Blob is content that is open for reading. It stays readable when the
// collector takes its name away.
type Blob struct {
	file *os.File
	size int64
}

var (
	_ io.ReadSeekCloser = (*Blob)(nil)
	_ io.ReaderAt       = (*Blob)(nil)
	_ io.WriterTo       = (*Blob)(nil)
)

// Blob opens the content of d. Absent content is an [errdefs.ErrNotFound].
// What is read is not verified: whoever can't trust the disk hashes it.
func (s *Store) Blob(d digest.Digest) (*Blob, error) {
	if _, _, err := splitDigest(d); err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	f, err := os.Open(s.Path(d))
	if err != nil {
		return nil, blobError("open", d, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, blobError("open", d, err)
	}
	return &Blob{file: f, size: info.Size()}, nil
}

// Size is the length of the content in bytes.
func (b *Blob) Size() int64 { return b.size }

// File returns the open file. It belongs to b.
func (b *Blob) File() *os.File { return b.file }

// Read, ReadAt, Seek and Close are those of the file.
func (b *Blob) Read(p []byte) (int, error) { return b.file.Read(p) }

func (b *Blob) ReadAt(p []byte, off int64) (int, error) { return b.file.ReadAt(p, off) }

func (b *Blob) Seek(offset int64, whence int) (int64, error) { return b.file.Seek(offset, whence) }

func (b *Blob) Close() error { return b.file.Close() }

// WriteTo copies what is left to w, by sendfile(2) where w is a socket.
func (b *Blob) WriteTo(w io.Writer) (int64, error) { return b.file.WriteTo(w) }

// DocumentLimit is the size in bytes of the largest manifest, index or config
// that shale takes. It is what registries accept, distribution-spec "Pushing
// Manifests".
const DocumentLimit = 4 << 20

// Read returns the content of d, which must be a document of at most
// [DocumentLimit] bytes, and verifies it: content that a disk has changed is
// an [errdefs.ErrDataLoss].
func (s *Store) Read(d digest.Digest) ([]byte, error) {
	b, err := s.Blob(d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.Size() > DocumentLimit {
		return nil, fmt.Errorf("read blob %s: %d bytes are more than a document has (%d): %w", d, b.Size(), DocumentLimit, errdefs.ErrOutOfRange)
	}
	data := make([]byte, b.Size())
	if _, err := io.ReadFull(b, data); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d, err)
	}
	if got := digestAs(d, data); got != d {
		return nil, fmt.Errorf("read blob %s: content has digest %s: %w", d, got, errdefs.ErrDataLoss)
	}
	return data, nil
}

// digestAs returns the digest of data by the algorithm of d, which is valid.
func digestAs(d digest.Digest, data []byte) digest.Digest {
	a, _, _ := splitDigest(d)
	h := a.new()
	h.Write(data)
	return digest.NewDigestFromBytes(digest.Algorithm(a.name), h.Sum(nil))
}

// Put takes in a document. l keeps it.
func (s *Store) Put(ctx context.Context, l *Lease, data []byte) (digest.Digest, error) {
	return s.put(ctx, l, digest.FromBytes(data), data)
}

// put is Put under a digest of any algorithm.
func (s *Store) put(ctx context.Context, l *Lease, d digest.Digest, data []byte) (digest.Digest, error) {
	if len(data) > DocumentLimit {
		return "", fmt.Errorf("put blob %s: %d bytes are more than a document has (%d): %w", d, len(data), DocumentLimit, errdefs.ErrOutOfRange)
	}
	in, err := s.Ingest(l)
	if err != nil {
		return "", err
	}
	defer in.Close()
	if err := l.Keep(d); err != nil {
		return "", err
	}
	if _, err := s.Read(d); err == nil {
		return d, nil
	}
	if _, err := in.Write(data); err != nil {
		return "", err
	}
	_, _, err = in.Commit(ctx, d, int64(len(data)))
	return d, err
}
