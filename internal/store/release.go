package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"

	"github.com/opencontainers/go-digest"
)

// Release removes ds and what they refer to, except what a ref, a container, a
// cache record or a live lease reaches. It is [Store.Collect] for those who
// know what they have let go of: garbage of others, the cache and what killed
// processes left stay as they are.
func (s *Store) Release(ctx context.Context, ds ...digest.Digest) (Report, error) {
	o := CollectOptions{CacheBudget: math.MaxInt64}
	if err := o.fill(s); err != nil {
		return Report{}, fmt.Errorf("release: %w", err)
	}
	c := &collector{store: s, options: o, marker: newMarker(s), records: map[string]*seenRecord{}}
	loose, err := c.marker.reach(ds...)
	if err == nil {
		err = c.decide(ctx) // without the lock: the next time all is read
	}
	if err != nil {
		return Report{}, fmt.Errorf("release: %w", err)
	}
	err = s.exclusive(ctx, func() error {
		if err := c.decide(ctx); err != nil {
			return err
		}
		return c.sweepThese(loose)
	})
	if err = errors.Join(err, c.free()); err != nil {
		return c.report, fmt.Errorf("release: %w", err)
	}
	return c.report, nil
}

// sweepThese is sweepContent for a few digests. What refers to others comes
// before them in ds and so goes first.
func (c *collector) sweepThese(ds []digest.Digest) error {
	for _, d := range ds {
		if c.marker.live[d] {
			continue
		}
		if err := c.unlink(c.store.Path(d), &c.report.Blobs); err != nil {
			return err
		}
		if err := c.unlink(c.store.derived(indexDir, d), &c.report.Derived); err != nil {
			return err
		}
		tree := c.store.derived(treesDir, d)
		if _, err := os.Lstat(tree); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		c.discard(tree, &c.report.Derived)
	}
	return nil
}
