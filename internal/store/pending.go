package store

import (
	"context"
	"fmt"
	"io"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Signatures whose bodies follow. Every one of them says so.

func pending(what string) error { return fmt.Errorf("%s: %w", what, errdefs.ErrNotImplemented) }

// Store is one directory. It is safe for concurrent use, by goroutines and by processes.
type Store struct{ root string }

// Open opens the store at root and makes it if root is missing or empty.
func Open(root string) (*Store, error) { return nil, pending("open store") }

// Root returns the directory of s.
func (s *Store) Root() string { return s.root }

// Close gives up what s holds. Leases and ingests that are still open are not closed.
func (s *Store) Close() error { return nil }

// Lease keeps content from collection for as long as its process lives.
type Lease struct{}

// Lease takes a lease that keeps nothing yet.
func (s *Store) Lease(ctx context.Context) (*Lease, error) { return nil, pending("lease") }

// Keep protects ds, and all that they refer to, present or yet to come. It does not look whether they are there: look after Keep.
func (l *Lease) Keep(ds ...digest.Digest) error { return pending("keep") }

// Hold is Keep for content that must be there already: what is missing is an [errdefs.ErrNotFound].
func (l *Lease) Hold(ds ...digest.Digest) error { return pending("hold") }

// TempDir makes a directory on the file system of the store that is removed with the lease.
func (l *Lease) TempDir() (string, error) { return "", pending("make directory") }

// Close ends the lease.
func (l *Lease) Close() error { return nil }

// Blob is content open for reading.
type Blob struct {
	io.ReadSeekCloser
	io.ReaderAt
}

// Size is the length in bytes.
func (b *Blob) Size() int64 { return 0 }

// Blob opens content. What is absent is an [errdefs.ErrNotFound].
func (s *Store) Blob(d digest.Digest) (*Blob, error) { return nil, pending("open blob") }

// Stat returns the size of content.
func (s *Store) Stat(d digest.Digest) (int64, error) { return 0, pending("stat blob") }

// Path is where the content of d lies, or would.
func (s *Store) Path(d digest.Digest) string { return "" }

// Ingest is content on its way in.
type Ingest struct{ io.Writer }

// Ingest starts to take in content. l keeps it once it is there.
func (s *Store) Ingest(l *Lease) (*Ingest, error) { return nil, pending("ingest") }

// Commit makes the content visible.
func (in *Ingest) Commit(ctx context.Context, want digest.Digest, size int64) (digest.Digest, int64, error) {
	return "", 0, pending("commit")
}

// Close drops what was not committed.
func (in *Ingest) Close() error { return nil }

// Put takes in a small document.
func (s *Store) Put(ctx context.Context, l *Lease, data []byte) (digest.Digest, error) {
	return "", pending("put")
}

// Read returns a small document (at most 4 MiB), verified.
func (s *Store) Read(d digest.Digest) ([]byte, error) { return nil, pending("read") }

// LayerIngest is an uncompressed layer tar on its way in.
type LayerIngest struct{ io.Writer }

// IngestLayer starts to take in a layer: one pass writes, hashes and indexes it.
func (s *Store) IngestLayer(l *Lease) (*LayerIngest, error) { return nil, pending("ingest layer") }

// Commit makes the layer visible. want may be empty.
func (in *LayerIngest) Commit(ctx context.Context, want digest.Digest) (diffID digest.Digest, size int64, err error) {
	return "", 0, pending("commit layer")
}

// Close drops what was not committed.
func (in *LayerIngest) Close() error { return nil }

// Index returns the path of the index of a layer, which is made if it is missing.
func (s *Store) Index(ctx context.Context, d digest.Digest) (string, error) {
	return "", pending("index layer")
}

// TreeDir is where the overlay driver keeps the unpacked layer d.
func (s *Store) TreeDir(d digest.Digest) string { return "" }

// Ref is a name and what it points at.
type Ref struct {
	Name       string
	Descriptor ocispec.Descriptor
	Updated    time.Time
}

// Resolve returns what name points at.
func (s *Store) Resolve(name string) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, pending("resolve")
}

// SetRef points name at desc, whose closure must be complete.
func (s *Store) SetRef(name string, desc ocispec.Descriptor) error { return pending("set ref") }

// DeleteRef removes a name.
func (s *Store) DeleteRef(name string) error { return pending("delete ref") }

// Refs returns every name but those of hidden namespaces ("_served/…"), sorted.
func (s *Store) Refs(ctx context.Context) ([]Ref, error) { return nil, pending("list refs") }

// Record is one entry of a [Cache].
type Record struct {
	Data    []byte
	Holds   []digest.Digest
	Updated time.Time
	Used    time.Time
}

// Cache is one kind of records, by key.
type Cache struct{}

// Cache returns the records of one kind.
func (s *Store) Cache(kind string) *Cache { return &Cache{} }

// Get returns a record and notes that it was used. An absent one is an [errdefs.ErrNotFound].
func (c *Cache) Get(key string) (Record, error) { return Record{}, pending("get record") }

// Put keeps a record. What it holds must be present.
func (c *Cache) Put(key string, r Record) error { return pending("put record") }

// Delete removes a record.
func (c *Cache) Delete(key string) error { return pending("delete record") }

// All returns every record by key.
func (c *Cache) All(ctx context.Context) (map[string]Record, error) {
	return nil, pending("list records")
}

// NewContainer makes the directory of a container that keeps holds from collection.
func (s *Store) NewContainer(id string, holds []digest.Digest) (dir string, err error) {
	return "", pending("new container")
}

// ContainerDir is the directory of a container.
func (s *Store) ContainerDir(id string) string { return "" }

// Containers returns the ids of all containers, sorted.
func (s *Store) Containers() ([]string, error) { return nil, pending("list containers") }

// ContainerHolds returns what a container keeps from collection.
func (s *Store) ContainerHolds(id string) ([]digest.Digest, error) {
	return nil, pending("container holds")
}

// RemoveContainer removes a container and its directory.
func (s *Store) RemoveContainer(id string) error { return pending("remove container") }

// WriteFile puts data at path: aside, fdatasync, rename, fsync of the directory.
func WriteFile(path string, data []byte) error { return pending("write file") }

// CollectOptions says what the collector may take. The zero value takes what nothing refers to, and cache beyond the default budget.
type CollectOptions struct {
	CacheBudget int64         // bytes that only cache records keep; 0: DefaultCacheBudget, negative: none
	CacheUnused time.Duration // drop records that were not used for so long; 0: no limit
	Grace       time.Duration // age until which blobs pushed to a registry wait for their manifest; 0: 24 h, negative: none
	Now         time.Time     // zero: the clock
	DryRun      bool
}

// Report is what Collect removed, or would.
type Report struct {
	Blobs, Indexes, Trees, Records, Leases, Temp int
	Bytes                                        int64
}

// Collect removes what nothing refers to.
func (s *Store) Collect(ctx context.Context, o CollectOptions) (Report, error) {
	return Report{}, pending("collect")
}

// Problem is something that Fsck found.
type Problem struct {
	What string
	Err  error
}

// Fsck looks for damage.
func (s *Store) Fsck(ctx context.Context, deep bool) ([]Problem, error) { return nil, pending("fsck") }

// Share is a part of the store.
type Share struct {
	Total, Active     int
	Size, Reclaimable int64 // bytes
}

// Usage is where the bytes are.
type Usage struct {
	Images, Containers, Volumes, Cache, Registry Share
	Derived, Garbage, Total                      int64
}

// Usage measures the store.
func (s *Store) Usage(ctx context.Context) (Usage, error) { return Usage{}, pending("usage") }

// Registry is the repositories "<prefix>/<repo>" of s as a registry.
func (s *Store) Registry(prefix string) ociregistry.Interface { return (*ociregistry.Funcs)(nil) }
