package cache

import (
	"bytes"
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

func TestDigestsAreRememberedByDirectory(t *testing.T) {
	s := openStore(t)
	a, b := tree.Sum{'a'}, tree.Sum{'b'}
	first := NewStats(s, "/one")
	if _, ok := first.Get(tree.StatKey{1}); ok {
		t.Error("a new memory knows something")
	}
	first.Put(tree.StatKey{1}, a)
	first.Put(tree.StatKey{2}, b)
	if err := first.Save(); err != nil {
		t.Fatal(err)
	}
	second := NewStats(s, "/one")
	if sum, ok := second.Get(tree.StatKey{1}); !ok || sum != a {
		t.Errorf("1 is %x, %v", sum, ok)
	}
	if sum, ok := second.Get(tree.StatKey{2}); !ok || sum != b {
		t.Errorf("2 is %x, %v", sum, ok)
	}
	if _, ok := NewStats(s, "/two").Get(tree.StatKey{1}); ok {
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
	first := NewStats(s, "/one")
	for i := range 10 {
		first.Put(key(i), sum)
	}
	if err := first.Save(); err != nil {
		t.Fatal(err)
	}
	second := NewStats(s, "/one")
	for i := range 6 {
		second.Get(key(i))
	}
	second.Put(fresh, sum)
	if err := second.Save(); err != nil {
		t.Fatal(err)
	}
	if _, ok := NewStats(s, "/one").Get(key(9)); !ok {
		t.Error("a file that was not looked at is forgotten")
	}
	third := NewStats(s, "/one")
	third.Get(key(0))
	third.Put(fresh, sum)
	if err := third.Save(); err != nil {
		t.Fatal(err)
	}
	if _, ok := NewStats(s, "/one").Get(key(9)); ok {
		t.Error("a file that is no more is remembered")
	}
}

func FuzzDecodeStats(f *testing.F) {
	whole := bytes.Repeat([]byte{byte(len(tree.StatKey{}))}, statEntrySize)
	f.Add(whole)
	f.Add(whole[1:])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var one, two Stats
		one.decode(data)
		two.decode(one.encode(false))
		if len(one.at) != len(two.at) {
			t.Errorf("%d entries become %d", len(one.at), len(two.at))
		}
		for key, i := range one.at {
			if j, ok := two.at[key]; !ok || one.entries[i].sum != two.entries[j].sum {
				t.Errorf("entry %x is lost or another", key)
			}
		}
	})
}
