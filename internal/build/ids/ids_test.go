package ids

import (
	"testing"

	"github.com/containerd/errdefs"
)

func TestFindTakesWholeIDsAndPrefixesOfOne(t *testing.T) {
	all := []string{"abc", "abcd", "xyz"}
	for id, want := range map[string]string{"abc": "abc", "abcd": "abcd", "x": "xyz"} {
		if got, err := Find(all, id, "thing", func(s string) string { return s }); got != want || err != nil {
			t.Errorf("%s: %q, %v", id, got, err)
		}
	}
	for id, is := range map[string]func(error) bool{
		"": errdefs.IsNotFound, "abcde": errdefs.IsNotFound, "z": errdefs.IsNotFound, "ab": errdefs.IsInvalidArgument,
	} {
		if got, err := Find(all, id, "thing", func(s string) string { return s }); got != "" || !is(err) {
			t.Errorf("%q: %q, %v", id, got, err)
		}
	}
}

func TestNewIDsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := New()
		if len(id) != 12 || seen[id] {
			t.Fatalf("%q, seen before: %v", id, seen[id])
		}
		seen[id] = true
	}
}
