package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/shaleproject/shale/internal/sys"
)

// tidyEvery is how often a store that is worked on is collected by itself.
const tidyEvery = 24 * time.Hour

// Tidy runs [Store.Collect] if that has not been run on this store for a day.
// So the cache keeps to its budget, and what killed processes left goes,
// though nobody asks for it. Most calls cost one lstat.
func (s *Store) Tidy(ctx context.Context) (Report, error) {
	return s.tidy(ctx, time.Now())
}

func (s *Store) tidy(ctx context.Context, now time.Time) (Report, error) {
	info, err := os.Lstat(s.path(lockFile))
	if err != nil {
		return Report{}, err
	}
	if now.Sub(info.ModTime()) < tidyEvery {
		return Report{}, nil
	}
	// Another process that looks now finds that it is being done.
	if err := s.collected(now); err != nil {
		return Report{}, err
	}
	return s.Collect(ctx, CollectOptions{Now: now})
}

// collected notes when the store was collected, in the mtime of its lock.
func (s *Store) collected(now time.Time) error {
	err := sys.Touch(s.path(lockFile), time.Time{}, now)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Worked reports whether this process has written something for which no
// lease of a caller answers: a ref, a record, a container.
func (s *Store) Worked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own != nil
}
