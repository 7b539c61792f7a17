package store

import (
	"context"
	"fmt"

	"github.com/shaleproject/shale/internal/sys"
)

// lockFile orders the collector and everybody else.
//
// The collector decides what is garbage, and takes its names away, while it
// holds the lock exclusively. Everybody who adds a root (a digest to a lease,
// a ref, a record, a container, a link), or who judges that content is there
// in order to refer to it, does so within one shared hold. So a root is either
// seen by the collector, or it is added after the garbage has gone, when
// looking at the content tells the truth. Holds last for a few system calls;
// neither syncing nor hashing happens under the lock.
const lockFile = "lock"

// shared runs f while no collector decides anything.
func (s *Store) shared(f func() error) error {
	lock, err := sys.Lock(s.path(lockFile), sys.Shared)
	if err != nil {
		return fmt.Errorf("lock store: %w", err)
	}
	defer lock.Close()
	return f()
}

// exclusive runs f while nobody adds roots.
func (s *Store) exclusive(ctx context.Context, f func() error) error {
	lock, err := sys.LockContext(ctx, s.path(lockFile), sys.Exclusive)
	if err != nil {
		return fmt.Errorf("lock store: %w", err)
	}
	defer lock.Close()
	return f()
}
