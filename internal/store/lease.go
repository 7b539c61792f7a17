package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/shaleproject/shale/internal/sys"
)

// Lease keeps content, and temporary files, from collection for as long as
// its process lives.
//
// It is a file in leases/ that holds one digest a line and is locked by its
// owner. The kernel drops the lock when the owner dies, however it dies; the
// collector takes a lease that it can lock for dead.
type Lease struct {
	store *Store
	id    string

	mu    sync.Mutex
	lock  *sys.FileLock
	list  *os.File
	kept  map[digest.Digest]bool
	temps int             // how many temporary names were given out
	dirs  map[string]bool // temporary directories, removed by Close
}

// Lease takes a lease that keeps nothing yet. The caller closes it.
func (s *Store) Lease(ctx context.Context) (*Lease, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("take lease: %w", err)
	}
	l := &Lease{store: s, id: randomName(), kept: map[digest.Digest]bool{}, dirs: map[string]bool{}}
	// Under the lock, because a lease that is made and not yet locked looks
	// like a dead one.
	err := s.shared(func() (err error) {
		path := s.path(leasesDir, l.id)
		if l.list, err = createFile(path, 0o600); err != nil {
			return err
		}
		if l.lock, err = sys.Lock(path, sys.Exclusive); err != nil {
			l.list.Close()
			os.Remove(path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("take lease: %w", err)
	}
	return l, nil
}

// ownLease returns the lease that owns the store's own temporary files. It
// never keeps content.
func (s *Store) ownLease() (*Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own == nil {
		own, err := s.Lease(context.Background())
		if err != nil {
			return nil, err
		}
		s.own = own
	}
	return s.own, nil
}

// Keep protects ds, and all that their documents refer to, whether it is there
// or yet to come. It doesn't look; whoever wants to know looks after Keep.
func (l *Lease) Keep(ds ...digest.Digest) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list == nil {
		return fmt.Errorf("keep content: lease is closed: %w", errdefs.ErrFailedPrecondition)
	}
	var lines strings.Builder
	var fresh []digest.Digest
	for _, d := range ds {
		if _, _, err := splitDigest(d); err != nil {
			return fmt.Errorf("keep content: %w", err)
		}
		if !l.kept[d] {
			fresh = append(fresh, d)
			lines.WriteString(string(d) + "\n")
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := l.store.shared(func() error { return appendWhole(l.list, lines.String()) }); err != nil {
		return fmt.Errorf("keep content: %w", err)
	}
	for _, d := range fresh {
		l.kept[d] = true
	}
	return nil
}

// appendWhole writes text at the end of f, all of it or nothing.
func appendWhole(f *os.File, text string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte(text), info.Size()); err != nil {
		return errors.Join(err, f.Truncate(info.Size()))
	}
	return nil
}

// Hold is [Lease.Keep] of content that has to be there already: if some is
// missing, the error is an [errdefs.ErrNotFound] that names it.
func (l *Lease) Hold(ds ...digest.Digest) error {
	if err := l.Keep(ds...); err != nil {
		return err
	}
	for _, d := range ds {
		if _, err := l.store.Stat(d); err != nil {
			return err
		}
	}
	return nil
}

// TempDir makes a directory on the file system of the store. It goes away
// with the lease at the latest, also when the process is killed; the caller
// may move it away or remove it before.
func (l *Lease) TempDir() (string, error) {
	path, err := l.tempName()
	if err == nil {
		err = mkdir(path)
	}
	if err != nil {
		return "", fmt.Errorf("make temporary directory: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirs[path] = true
	return path, nil
}

// tempName returns a new name in tmp/ that the collector leaves alone while l
// lives.
func (l *Lease) tempName() (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list == nil {
		return "", fmt.Errorf("lease is closed: %w", errdefs.ErrFailedPrecondition)
	}
	l.temps++
	return l.store.path(tmpDir, l.id+"."+strconv.Itoa(l.temps)), nil
}

// tempFile makes a file of mode 0400 that its caller can write.
func (l *Lease) tempFile() (*os.File, error) {
	path, err := l.tempName()
	if err != nil {
		return nil, err
	}
	return createFile(path, 0o400)
}

// Close ends the lease. What it kept is as safe as its refs make it.
func (l *Lease) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.list == nil {
		return nil
	}
	var errs []error
	for dir := range l.dirs {
		errs = append(errs, removeTree(dir))
	}
	errs = append(errs, l.list.Close())
	l.list = nil
	if err := l.lock.Remove(); !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end lease: %w", err)
	}
	return nil
}
