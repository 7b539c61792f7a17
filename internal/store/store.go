// Package store owns everything that shale keeps between two commands:
// content, the names that point at it, and the records of builds and
// containers.
//
// No daemon guards the directory; any number of processes may hold it open.
// Three rules keep it whole:
//
//   - what is visible is complete: files are written aside, synced and renamed;
//   - what is named is kept: the collector removes only what nothing refers to;
//   - what is in flight is leased: a lease lives exactly as long as its process.
//
// Whoever wants to use content that nothing of his own refers to yet takes a
// [Lease] on its digest first and looks second; the other order races the
// collector. The layout on disk is in docs/format/store.md.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/sys"
)

// Format is the version of the layout that this package reads and writes.
const Format = 1

const versionLine = "shale store "

// The directories of a store. tmp is made last: where it is, the others are.
const (
	blobsDir      = "blobs"
	indexDir      = "index"
	treesDir      = "trees"
	refsDir       = "refs"
	linksDir      = "links"
	cacheDir      = "cache"
	containersDir = "containers"
	volumesDir    = "volumes"
	networksDir   = "networks"
	leasesDir     = "leases"
	tmpDir        = "tmp"
)

// Store is one directory. It is safe for concurrent use, by goroutines and by
// processes.
type Store struct {
	root string

	mu     sync.Mutex
	own    *Lease // owner of the temporary files that no caller's lease owns
	bootID string // of this boot of the machine, once it was asked for
}

// Open opens the store at root, and makes it if root is missing or empty.
//
// A directory that holds something else, and a store of a newer format, are
// an [errdefs.ErrFailedPrecondition].
func Open(root string) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{root: root}
	version, err := os.ReadFile(s.path("version"))
	if errors.Is(err, fs.ErrNotExist) {
		err = s.create()
	} else if err == nil {
		err = checkVersion(version)
	}
	if err == nil {
		err = s.layOut()
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", root, err)
	}
	return s, nil
}

// checkVersion refuses what a later shale has written: it may keep content by
// rules that this one does not know.
func checkVersion(file []byte) error {
	rest, ok := strings.CutPrefix(string(file), versionLine)
	n, err := strconv.Atoi(strings.TrimSuffix(rest, "\n"))
	if !ok || err != nil || n < 1 {
		return fmt.Errorf("read version: %q is not a version of a store: %w", file, errdefs.ErrDataLoss)
	}
	if n > Format {
		return fmt.Errorf("format %d is newer than %d, which this shale reads: %w", n, Format, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// create makes root a store. The version file comes first: a directory with
// nothing but that in it is a store that was interrupted while it was made.
func (s *Store) create() error {
	if err := os.MkdirAll(filepath.Dir(s.root), 0o755); err != nil {
		return err
	}
	if err := mkdir(s.root); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		// lost+found: the root of a file system of its own; userns: an ordinary
		// user enters a namespace before anything else. Another process may be
		// making the same store right now.
		if name := e.Name(); name != "lost+found" && name != "userns" && name != "version" && !isAside(name) {
			if _, err := os.Stat(s.path("version")); err == nil {
				return nil
			}
			return fmt.Errorf("directory holds %s and is not a store: %w", name, errdefs.ErrFailedPrecondition)
		}
	}
	if err := os.Chmod(s.root, 0o700); err != nil {
		return err
	}
	return WriteFile(s.path("version"), fmt.Appendf(nil, "%s%d\n", versionLine, Format))
}

// layOut makes the directories that are not there yet.
func (s *Store) layOut() error {
	if _, err := os.Lstat(s.path(tmpDir)); err == nil {
		return nil
	}
	lock, err := createFile(s.path(lockFile), 0o600)
	if err == nil {
		err = lock.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, dir := range []string{blobsDir, indexDir, treesDir, refsDir, linksDir, cacheDir,
		containersDir, volumesDir, networksDir, leasesDir} {
		if err := mkdir(s.path(dir)); err != nil {
			return err
		}
	}
	for _, dir := range []string{blobsDir, indexDir, treesDir} {
		for _, a := range algorithms {
			if err := mkdir(s.path(dir, a.name)); err != nil {
				return err
			}
		}
		if err := sys.SyncDir(s.path(dir)); err != nil {
			return err
		}
	}
	if err := mkdir(s.path(tmpDir)); err != nil {
		return err
	}
	return sys.SyncDir(s.root)
}

// Root returns the directory of s.
func (s *Store) Root() string { return s.root }

// Close gives up what s holds. Leases that callers took stay with them.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own == nil {
		return nil
	}
	own := s.own
	s.own = nil
	return own.Close()
}

// Scratch is the directory for files without a name (see [sys.UnnamedFile]): on
// the file system of the store, which is large where /tmp may be memory.
func (s *Store) Scratch() string { return s.path(tmpDir) }

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}
