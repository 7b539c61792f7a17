package store

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// later is a moment at which every directory has settled.
func later() time.Time { return time.Now().Add(time.Hour) }

func (s *Store) listed(t *testing.T, now time.Time) []string {
	t.Helper()
	refs, err := s.listRefs(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range refs {
		names = append(names, fmt.Sprint(r.Name, " ", r.Descriptor.Digest.Encoded()[:4], " ", r.Descriptor.Annotations, " ", r.Updated.IsZero()))
	}
	return names
}

func TestTheCopyOfRefsIsNeverOlderThanTheRefs(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := s.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	index := func(n int) ocispec.Descriptor {
		data := fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[],"annotations":{"n":"%d"}}`, n)
		d, err := s.Put(t.Context(), l, data)
		if err != nil {
			t.Fatal(err)
		}
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: d, Size: int64(len(data))}
	}
	set := func(name string, d ocispec.Descriptor) {
		t.Helper()
		if err := s.SetRef(name, d); err != nil {
			t.Fatal(err)
		}
	}
	one, two := index(1), index(2)
	for n := range 2 * refCacheSlack {
		set(fmt.Sprintf("reg.test/team/app%d:v1", n), one)
	}
	annotated := one
	annotated.Annotations = map[string]string{"k": "v"}
	set("reg.test/annotated:v1", annotated)
	set("_served/hidden:v1", one)
	set("@"+one.Digest.String(), one)

	first := s.listed(t, later())
	if _, err := os.Stat(s.path(refCacheFile)); err != nil {
		t.Fatal("no copy was written:", err)
	}
	if len(first) != 2*refCacheSlack+2 || !slices.IsSorted(first) {
		t.Errorf("list is %q", first)
	}
	same := func(what string) {
		t.Helper()
		through := s.listed(t, later())
		copied, err := os.ReadFile(s.path(refCacheFile))
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(s.path(refCacheFile))
		if plain := s.listed(t, time.Now()); !slices.Equal(through, plain) {
			t.Errorf("%s: the copy gives\n%q, the refs\n%q", what, through, plain)
		}
		if err := os.WriteFile(s.path(refCacheFile), copied, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	same("unchanged")
	set("reg.test/team/app3:v1", two)
	same("one moved")
	set("reg.test/team/app3:v2", two)
	same("one added")
	set("reg.test/other/deep/er:v2", two)
	same("a directory added")
	if err := s.DeleteRef("reg.test/team/app5:v1"); err != nil {
		t.Fatal(err)
	}
	same("one removed")

	data, err := os.ReadFile(s.path(refCacheFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, spoiled := range [][]byte{nil, data[:len(data)/2], data[:20], append(slices.Clone(data), 1)} {
		if err := os.WriteFile(s.path(refCacheFile), spoiled, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := s.listed(t, time.Now()); len(got) != 2*refCacheSlack+3 {
			t.Errorf("with a spoiled copy %d refs are listed", len(got))
		}
	}
}
