package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/shaleproject/shale/internal/sys"
)

// Ref is a name and what it points at.
//
// A name is "docker.io/library/busybox:latest", "host/repo@sha256:…", or
// "@sha256:…" for an image that has no name. Names whose host begins with "_"
// are hidden: [Store.Refs] leaves them out.
type Ref struct {
	Name       string
	Descriptor ocispec.Descriptor
	Updated    time.Time // when the name was last pointed at something
}

// Resolve returns what name points at. A name that isn't there is an
// [errdefs.ErrNotFound].
func (s *Store) Resolve(name string) (ocispec.Descriptor, error) {
	n, err := parseName(name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	ref, err := s.readRef(n)
	return ref.Descriptor, err
}

func (s *Store) refPath(n refName) string { return s.path(refsDir, n.dir, n.leaf) }

func (s *Store) readRef(n refName) (Ref, error) {
	f, err := os.Open(s.refPath(n))
	if err != nil {
		// A repository of that name, with something else in it: ENOTDIR.
		if errors.Is(err, fs.ErrNotExist) {
			err = errdefs.ErrNotFound
		}
		return Ref{}, fmt.Errorf("resolve %s: %w", n, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Ref{}, fmt.Errorf("resolve %s: %w", n, err)
	}
	data := make([]byte, min(info.Size(), DocumentLimit))
	if _, err := f.ReadAt(data, 0); err != nil {
		return Ref{}, fmt.Errorf("resolve %s: %w", n, err)
	}
	ref := Ref{Name: n.String(), Updated: info.ModTime()}
	if err := json.Unmarshal(data, &ref.Descriptor); err != nil {
		return Ref{}, fmt.Errorf("resolve %s: read %s: %w: %w", n, f.Name(), err, errdefs.ErrDataLoss)
	}
	if _, _, err := splitDigest(ref.Descriptor.Digest); err != nil {
		return Ref{}, fmt.Errorf("resolve %s: read %s: %w", n, f.Name(), errdefs.ErrDataLoss)
	}
	return ref, nil
}

// SetRef points name at desc, durably.
//
// What desc refers to must be in the store: the manifest, its config, and each
// layer as a tar or compressed; of an index, one manifest with all of that. If
// it isn't, the error is an [errdefs.ErrNotFound] and name stays what it was.
func (s *Store) SetRef(name string, desc ocispec.Descriptor) error {
	n, err := parseName(name)
	if err != nil {
		return err
	}
	own, err := s.ownLease()
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	data, err := json.Marshal(desc)
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	aside, err := own.tempName()
	if err == nil {
		err = writeSynced(aside, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	path := s.refPath(n)
	err = s.shared(func() error {
		if err := s.complete(desc); err != nil {
			return err
		}
		return place(aside, path, s.path(refsDir))
	})
	if err == nil {
		err = sys.SyncDir(filepath.Dir(path))
	} else {
		os.Remove(aside)
	}
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// place renames aside to path, below base, and makes the directories between.
// Others remove empty ones at the same time, so it may take several attempts.
func place(aside, path, base string) error {
	var err error
	for range 100 {
		if err = mkdirs(base, filepath.Dir(path)); err == nil {
			err = os.Rename(aside, path)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return err
}

// DeleteRef removes a name, durably. What it pointed at stays until
// [Store.Collect] finds that nothing else refers to it. A name that isn't
// there is an [errdefs.ErrNotFound].
func (s *Store) DeleteRef(name string) error {
	n, err := parseName(name)
	if err != nil {
		return err
	}
	return s.deleteRef(n)
}

func (s *Store) deleteRef(n refName) error {
	path := s.refPath(n)
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errdefs.ErrNotFound
		}
		return fmt.Errorf("delete %s: %w", n, err)
	}
	return removeUpwards(path, s.path(refsDir))
}

// removeUpwards makes the removal of path durable and removes the directories
// above it, below base, that are empty now.
func removeUpwards(path, base string) error {
	dir := filepath.Dir(path)
	if err := sys.SyncDir(dir); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	for dir != base && os.Remove(dir) == nil {
		dir = filepath.Dir(dir)
	}
	return nil
}

// names lists the refs whose repository is dir or below it, sorted by name.
func (s *Store) names(ctx context.Context, dir string, hidden bool) ([]refName, error) {
	var names []refName
	err := s.walkNames(ctx, refsDir, dir, func(n refName, err error) error {
		if err == nil && (hidden || !n.hidden()) {
			names = append(names, n)
		}
		return nil
	})
	slices.SortFunc(names, func(a, b refName) int {
		return cmp.Or(strings.Compare(a.dir, b.dir), strings.Compare(a.leaf, b.leaf))
	})
	return names, err
}

// walkNames calls f for every leaf below dir of top (refs or links), and with
// an error for whatever should not be there. Directories that vanish meanwhile
// are empty.
func (s *Store) walkNames(ctx context.Context, top, dir string, f func(refName, error) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	d, err := os.Open(s.path(top, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	d.Close()
	if errors.Is(err, fs.ErrNotExist) { // removed since it was opened
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		leaf := name[0] == ':' || name[0] == '@'
		switch {
		case isAside(name):
		case !leaf && e.IsDir():
			err = s.walkNames(ctx, top, filepath.Join(dir, name), f)
		case !leaf || !e.Type().IsRegular():
			err = f(refName{}, fmt.Errorf("%s does not belong here: %w", s.path(top, dir, name), errdefs.ErrDataLoss))
		default:
			n, nameErr := parseName(dir + name)
			if nameErr != nil {
				nameErr = fmt.Errorf("%s does not belong here: %w", s.path(top, dir, name), nameErr)
			}
			err = f(n, nameErr)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// present reports whether there is content of that digest and size. A negative
// size is any.
func (s *Store) present(d digest.Digest, size int64) error {
	got, err := s.Stat(d)
	if err != nil {
		return err
	}
	if size >= 0 && got != size {
		return fmt.Errorf("stat blob %s: %d bytes, not %d: %w", d, got, size, errdefs.ErrDataLoss)
	}
	return nil
}
