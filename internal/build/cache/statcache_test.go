package cache

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/tree"
)

func openStore(t testing.TB) *store.Store {
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
	stats := NewStats(s, name)
	t.Cleanup(func() {
		if err := stats.Close(); err != nil {
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

// A record that somebody else has made: what is whole at its beginning is
// known, the rest is not, and nothing of it becomes something else.
func FuzzStats(f *testing.F) {
	var whole []byte
	for i := range 3 {
		whole = appendEntry(whole, statKey(i), statSum(i))
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(whole[1:])
	f.Add(append(appendEntry(whole[:len(whole):len(whole)], statKey(1), statSum(9)), whole[statEntrySize:]...))
	f.Add(append(whole[:statEntrySize:statEntrySize], bytes.Repeat([]byte{0xff}, 2*statEntrySize)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := openStore(t)
		stats := newStats(t, s, "one")
		if err := stats.records.Put(stats.name, store.Record{Data: data}); err != nil {
			t.Fatal(err)
		}
		want := map[tree.StatKey]tree.Sum{}
		for ; len(data) >= statEntrySize && int(data[0]) == len(tree.StatKey{}); data = data[statEntrySize:] {
			want[keyOf(data)] = sumOf(data)
		}
		extra := tree.StatKey(bytes.Repeat([]byte{0xee}, len(tree.StatKey{})))
		stats.Put(extra, statSum(0))
		want[extra] = statSum(0)
		if err := stats.Save(); err != nil {
			t.Fatal(err)
		}
		again := newStats(t, s, "one")
		for key, sum := range want {
			if got, ok := stats.Get(key); !ok || got != sum {
				t.Errorf("entry %x is %x, %v", key, got, ok)
			}
			if got, ok := again.Get(key); ok && got != sum {
				t.Errorf("entry %x becomes %x", key, got)
			}
		}
	})
}

func BenchmarkStats(b *testing.B) {
	for _, n := range []int{20, 20_000, 1_000_000} {
		s := openStore(b)
		name := 0
		b.Run(fmt.Sprint("put and save ", n), func(b *testing.B) {
			for ; b.Loop(); name++ {
				saved(b, s, fmt.Sprint(name), n)
			}
		})
		b.Run(fmt.Sprint("load and get ", n), func(b *testing.B) {
			for b.Loop() {
				stats := NewStats(s, "0")
				for i := range n {
					if sum, ok := stats.Get(statKey(i)); !ok || sum != statSum(i) {
						b.Fatal(i, sum, ok)
					}
				}
				if err := stats.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
