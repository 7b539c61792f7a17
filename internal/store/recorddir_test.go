package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// putDir puts a record whose directory has a file of that size.
func putDir(t *testing.T, s *Store, l *Lease, key string, size int, holds ...digest.Digest) {
	t.Helper()
	dir, err := l.TempDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Cache("failed").PutDir(key, Record{Data: []byte(key), Holds: holds}, dir); err != nil {
		t.Fatal(err)
	}
}

func wantDirs(t *testing.T, s *Store, want ...string) {
	t.Helper()
	found := map[string]bool{}
	for _, key := range want {
		found[s.Cache("failed").path(key)+recordDirSuffix] = true
	}
	dirs, err := filepath.Glob(filepath.Join(s.Cache("failed").dir(), "*"+recordDirSuffix))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if !found[dir] {
			t.Errorf("%s is left", dir)
		}
		delete(found, dir)
	}
	for dir := range found {
		t.Errorf("%s is gone", dir)
	}
}

func TestTheDirectoryOfARecordGoesWithIt(t *testing.T) {
	s := open(t)
	l := lease(t, s)
	c := s.Cache("failed")
	putDir(t, s, l, "one", 10)
	putDir(t, s, l, "two", 10)
	d, err := c.Dir("one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(d.Path, "file")); err != nil {
		t.Error(err)
	}
	if err := c.Delete("one"); !errdefs.IsUnavailable(err) {
		t.Errorf("delete what is in use: %v", err)
	}
	if err := errors.Join(d.Close(), c.Delete("one"), c.Delete("none")); err != nil {
		t.Error(err)
	}
	wantDirs(t, s, "two")
	if _, err := c.Dir("one"); !errdefs.IsNotFound(err) {
		t.Errorf("open what is gone: %v", err)
	}
	dir, err := l.TempDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.PutDir("two", Record{}, dir); !errdefs.IsAlreadyExists(err) {
		t.Errorf("put what is there: %v", err)
	}
}

func TestDirectoriesOfRecordsCountForTheBudget(t *testing.T) {
	s := open(t)
	l := lease(t, s)
	layer, err := ingest(s, l, []byte("layer of what is in use"))
	if err != nil {
		t.Fatal(err)
	}
	putDir(t, s, l, "used", 1<<20, layer)
	putDir(t, s, l, "large", 1<<20)
	putDir(t, s, l, "small", 10)
	d, err := s.Cache("failed").Dir("used")
	if err != nil {
		t.Fatal(err)
	}
	orphan := s.Cache("failed").path("orphan") + recordDirSuffix
	if err := os.Mkdir(orphan, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	collect(t, s, CollectOptions{CacheBudget: 1 << 19})
	wantDirs(t, s, "used", "small")
	if !has(s, layer) {
		t.Error("a record that is in use has lost what it holds")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	collect(t, s, CollectOptions{CacheBudget: -1})
	wantDirs(t, s)
	if _, err := os.Stat(orphan); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory without a record is left: %v", err)
	}
	wantWhole(t, s)
}
