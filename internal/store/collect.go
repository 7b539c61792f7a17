package store

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/shaleproject/shale/internal/sys"
)

// CollectOptions says what the collector may take. The zero value takes what
// nothing refers to, and the least recently used cache beyond a budget.
type CollectOptions struct {
	// CacheBudget is how many bytes may lie in the store only because cache
	// records hold them. Zero is a quarter of the file system or 20 GiB,
	// whichever is less; negative drops every record.
	CacheBudget int64

	// CacheUnused drops records that were not used for that long. Zero is no
	// limit.
	CacheUnused time.Duration

	// Grace is how long a blob that was pushed to a registry waits for its
	// manifest, and an interrupted upload for its resumption. Zero is 24
	// hours, negative no time at all: a push that is going on then fails.
	Grace time.Duration

	// Now is what ages are measured against. Zero is the clock.
	Now time.Time

	// DryRun removes nothing and reports what would have been removed.
	DryRun bool
}

// Defaults of [CollectOptions].
const (
	maxCacheBudget = 20 << 30
	defaultGrace   = 24 * time.Hour
)

// Report is what [Store.Collect] has removed, in numbers of files.
type Report struct {
	Blobs   int   // content that nothing referred to
	Records int   // cache records over the budget
	Derived int   // indexes and unpacked trees of content that is gone
	Stale   int   // what killed processes left: temporary files, leases, containers half removed
	Bytes   int64 // of all that
}

// Collect removes the content that no ref, container, cache record or live
// lease reaches, and what killed processes left behind. It needs no free space
// and may run at any time beside everything else: see lockFile for the
// protocol.
//
// A ref, container or manifest that can't be read is an error before anything
// is removed, for what it refers to can't be told from garbage. [Store.Fsck]
// lists them all.
func (s *Store) Collect(ctx context.Context, o CollectOptions) (Report, error) {
	if err := o.fill(s); err != nil {
		return Report{}, fmt.Errorf("collect: %w", err)
	}
	c := &collector{store: s, options: o, marker: newMarker(s), records: map[string]*seenRecord{}}
	// The first look, without the lock, reads all documents; the second one,
	// which counts, finds them read and is short.
	if err := c.decide(ctx); err != nil {
		return Report{}, fmt.Errorf("collect: %w", err)
	}
	err := s.exclusive(ctx, func() error {
		if err := c.decide(ctx); err != nil {
			return err
		}
		return c.sweep()
	})
	if ferr := c.free(); err == nil {
		err = ferr
	}
	if err == nil && !o.DryRun {
		err = s.collected(o.Now)
	}
	if err != nil {
		return c.report, fmt.Errorf("collect: %w", err)
	}
	return c.report, nil
}

func (o *CollectOptions) fill(s *Store) error {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	if o.CacheBudget == 0 {
		total, err := sys.SpaceTotal(s.root)
		if err != nil {
			return err
		}
		o.CacheBudget = min(total/4, maxCacheBudget)
	}
	if o.Grace == 0 {
		o.Grace = defaultGrace
	}
	return nil
}

// young reports whether something last changed at t is within the grace.
func (o *CollectOptions) young(t time.Time) bool {
	return o.Grace > 0 && o.Now.Sub(t) < o.Grace
}

// collector is one run of [Store.Collect].
type collector struct {
	store   *Store
	options CollectOptions
	marker  *marker
	records map[string]*seenRecord // by path

	// What decide found.
	owners      map[string]bool // ids of live leases
	deadLeases  []string        // ids
	deadLinks   []string        // paths
	deadRecords []*seenRecord
	deadDirs    []string // paths

	// What sweep has unlinked and free has yet to free.
	held   []*os.File // their blocks are still there
	trash  []string   // directories in tmp/
	failed []error    // trees that could not be taken away
	report Report
}

// decide looks at every root and settles what is live. Under the exclusive
// lock what it finds is the truth.
func (c *collector) decide(ctx context.Context) error {
	c.marker.again()
	c.owners, c.deadLeases, c.deadLinks, c.deadRecords, c.deadDirs = map[string]bool{}, nil, nil, nil, nil
	live, dead, err := c.store.leases()
	if err != nil {
		return err
	}
	c.deadLeases = dead
	for id, ds := range live {
		c.owners[id] = true
		if err := c.marker.mark(ds...); err != nil {
			return fmt.Errorf("lease %s: %w", id, err)
		}
	}
	if err := c.marker.markRefs(ctx, true); err != nil {
		return err
	}
	if err := c.marker.markContainers(); err != nil {
		return err
	}
	if err := c.decideLinks(ctx); err != nil {
		return err
	}
	return c.decideRecords(ctx)
}
