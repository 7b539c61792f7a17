package store

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

func TestATransientContainerEndsWithTheBoot(t *testing.T) {
	s := open(t)
	l, err := s.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Put(t.Context(), l, []byte("held"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	dir, err := s.NewTransientContainer("c1", []digest.Digest{d})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.NewTransientContainer("c1", nil); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second: %v", err)
	}
	collect(t, s, CollectOptions{})
	if _, err := s.Stat(d); err != nil {
		t.Errorf("held content: %v", err)
	}
	if ids, err := s.Containers(); err != nil || len(ids) != 1 {
		t.Errorf("%v, %v", ids, err)
	}
	// The next boot has another id.
	old := s.holdsPath(dir)
	if err := os.Rename(old, filepath.Join(dir, holdsFile+"-another-boot")); err != nil {
		t.Fatal(err)
	}
	if ids, err := s.Containers(); err != nil || len(ids) != 0 {
		t.Errorf("%v, %v", ids, err)
	}
	if r := collect(t, s, CollectOptions{}); r.Stale != 1 {
		t.Errorf("report: %+v", r)
	}
	if _, err := s.Stat(d); !errdefs.IsNotFound(err) {
		t.Errorf("content: %v", err)
	}
	if _, err := s.NewTransientContainer("c2", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveContainer("c2"); err != nil {
		t.Error(err)
	}
}
