package cache

import (
	"errors"
	"testing"

	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/tree"
)

func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// newStats is NewStats of a build that lasts as long as the test.
func newStats(t testing.TB, s *store.Store, name string) *Stats {
	t.Helper()
	l, err := s.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stats := NewStats(s, l, name)
	t.Cleanup(func() {
		if err := errors.Join(stats.Close(), stats.Close(), l.Close()); err != nil {
			t.Error(err)
		}
	})
	return stats
}

func TestDigestsAreRememberedByDirectory(t *testing.T) {
	s := openStore(t)
	a, b := tree.Sum{'a'}, tree.Sum{'b'}
	first := newStats(t, s, "/one")
	if _, ok := first.Get(tree.StatKey{1}); ok {
		t.Error("a new memory knows something")
	}
	first.Put(tree.StatKey{1}, a)
	first.Put(tree.StatKey{2}, b)
	if err := first.Save(); err != nil {
		t.Fatal(err)
	}
	second := newStats(t, s, "/one")
	if sum, ok := second.Get(tree.StatKey{1}); !ok || sum != a {
		t.Errorf("1 is %x, %v", sum, ok)
	}
	if sum, ok := second.Get(tree.StatKey{2}); !ok || sum != b {
		t.Errorf("2 is %x, %v", sum, ok)
	}
	if _, ok := newStats(t, s, "/two").Get(tree.StatKey{1}); ok {
		t.Error("another directory knows it")
	}
}

// A build that looks at a part of the directory does not make the rest be
// forgotten, but files that are no more are, in the end.
func TestWhatIsNoMoreIsForgotten(t *testing.T) {
	s := openStore(t)
	sum := tree.Sum{'x'}
	key := func(i int) tree.StatKey { return tree.StatKey{'k', byte(i)} }
	fresh := tree.StatKey{'n'}
	first := newStats(t, s, "/one")
	for i := range 10 {
		first.Put(key(i), sum)
	}
	if err := first.Save(); err != nil {
		t.Fatal(err)
	}
	second := newStats(t, s, "/one")
	for i := range 6 {
		second.Get(key(i))
	}
	second.Put(fresh, sum)
	if err := second.Save(); err != nil {
		t.Fatal(err)
	}
	if _, ok := newStats(t, s, "/one").Get(key(9)); !ok {
		t.Error("a file that was not looked at is forgotten")
	}
	third := newStats(t, s, "/one")
	third.Get(key(0))
	third.Put(tree.StatKey{'m'}, sum)
	if err := third.Save(); err != nil {
		t.Fatal(err)
	}
	if _, ok := newStats(t, s, "/one").Get(key(9)); ok {
		t.Error("a file that is no more is remembered")
	}
}
