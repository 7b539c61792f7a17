package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/shaleproject/shale/internal/sys"
)

// A link is an empty file that makes a blob part of a registry repository:
// links/<repository>/@<digest>, or, for a manifest that refers to another
// (its subject), links/<repository>/^<subject>/@<manifest>.
//
// A link keeps its blob while it is young, so that the blob of a push survives
// until the manifest comes. An old one stays for as long as a manifest of the
// repository refers to the blob.

func (s *Store) linkPath(repo string, d digest.Digest) string {
	return s.path(linksDir, repo, "@"+string(d))
}

func (s *Store) referrerPath(repo string, subject, manifest digest.Digest) string {
	return s.path(linksDir, repo, "^"+string(subject), "@"+string(manifest))
}

// link makes content, which must be there, part of a repository, or makes an
// old link young again. It calls for the shared lock.
func (s *Store) link(repo string, d digest.Digest) error {
	if err := s.present(d, -1); err != nil {
		return err
	}
	return s.makeLink(s.linkPath(repo, d))
}

func (s *Store) makeLink(path string) error {
	now := time.Now()
	err := sys.Touch(path, now, now)
	if !errdefs.IsNotFound(err) {
		return err
	}
	for range 100 {
		if err = mkdirs(s.path(linksDir), filepath.Dir(path)); err == nil {
			var f *os.File
			if f, err = createFile(path, 0o600); err == nil {
				err = f.Close()
			}
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// linked reports whether the repository has the blob.
func (s *Store) linked(repo string, d digest.Digest) error {
	if _, err := os.Lstat(s.linkPath(repo, d)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errdefs.ErrNotFound
		}
		return fmt.Errorf("blob %s in %s: %w", d, repo, err)
	}
	return s.present(d, -1)
}

// decideLinks marks blobs of young links, and finds links that are neither
// young nor of use.
func (c *collector) decideLinks(ctx context.Context) error {
	return c.decideLinksOf(ctx, "")
}

func (c *collector) decideLinksOf(ctx context.Context, repo string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	entries, err := readDir(c.store.path(linksDir, repo))
	if err != nil {
		return err
	}
	var used map[digest.Digest]bool
	for _, e := range entries {
		path := c.store.path(linksDir, repo, e.Name())
		switch e.Name()[0] {
		case '@':
			if used == nil {
				if used, err = c.usedBy(ctx, repo); err != nil {
					return err
				}
			}
			err = c.decideLink(path, e, used)
		case '^':
			err = c.decideReferrers(repo, path)
		default:
			if e.IsDir() {
				err = c.decideLinksOf(ctx, filepath.Join(repo, e.Name()))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) decideLink(path string, e fs.DirEntry, used map[digest.Digest]bool) error {
	d := digest.Digest(e.Name()[1:])
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case c.options.young(info.ModTime()):
		return c.marker.mark(d)
	case !used[d]:
		c.deadLinks = append(c.deadLinks, path)
	}
	return nil
}

// usedBy returns what the manifests of a repository refer to.
func (c *collector) usedBy(ctx context.Context, repo string) (map[digest.Digest]bool, error) {
	used := map[digest.Digest]bool{}
	refs, err := c.store.refsOf(ctx, repo)
	if err != nil {
		return nil, err
	}
	for _, ref := range refs {
		children, err := c.marker.children(ref.Descriptor.Digest)
		if err != nil {
			return nil, err
		}
		for _, d := range children {
			used[d] = true
		}
	}
	return used, nil
}

func (c *collector) decideReferrers(repo, path string) error {
	entries, err := readDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		_, err := os.Lstat(c.store.path(refsDir, repo, e.Name()))
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(e.Name(), "@") {
			c.deadLinks = append(c.deadLinks, filepath.Join(path, e.Name()))
		}
	}
	return nil
}

// refsOf returns the refs of one repository and of none below it, tags first.
func (s *Store) refsOf(ctx context.Context, repo string) ([]Ref, error) {
	entries, err := readDir(s.path(refsDir, repo))
	if err != nil {
		return nil, err
	}
	var refs []Ref
	for _, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if c := e.Name()[0]; c != ':' && c != '@' {
			continue
		}
		ref, err := s.readRef(refName{dir: repo, leaf: e.Name()})
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// walkLinks calls f for every blob that is linked in repo or below it.
func (s *Store) walkLinks(ctx context.Context, repo string, f func(path string, d digest.Digest) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	entries, err := readDir(s.path(linksDir, repo))
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch c := e.Name()[0]; {
		case c == '@':
			err = f(s.path(linksDir, repo, e.Name()), digest.Digest(e.Name()[1:]))
		case c != '^' && e.IsDir():
			err = s.walkLinks(ctx, filepath.Join(repo, e.Name()), f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
