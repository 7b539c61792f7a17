package store

import (
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestReleaseTakesOnlyWhatItIsGiven(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func(data string) digest.Digest {
		t.Helper()
		l, err := s.Lease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		d, err := s.Put(t.Context(), l, []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	loose, garbage, leased, cached := put("loose"), put("garbage of others"), put("leased"), put("cached")
	l, err := s.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Hold(leased); err != nil {
		t.Fatal(err)
	}
	if err := s.Cache("test").Put("k", Record{Holds: []digest.Digest{cached}}); err != nil {
		t.Fatal(err)
	}
	report, err := s.Release(t.Context(), loose, leased, cached)
	if err != nil {
		t.Fatal(err)
	}
	if report.Blobs != 1 {
		t.Errorf("%d blobs went", report.Blobs)
	}
	if _, err := s.Stat(loose); err == nil {
		t.Error("what was released is still there")
	}
	for _, d := range []digest.Digest{garbage, leased, cached} {
		if _, err := s.Stat(d); err != nil {
			t.Error(err)
		}
	}
}
