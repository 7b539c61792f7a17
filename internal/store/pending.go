package store

import (
	"context"
	"fmt"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/containerd/errdefs"
)

// Signatures whose bodies follow. Every one of them says so.

func pending(what string) error { return fmt.Errorf("%s: %w", what, errdefs.ErrNotImplemented) }

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
