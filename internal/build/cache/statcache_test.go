package cache

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/store"
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
	a, b := digest.FromString("a"), digest.FromString("b")
	first := NewStats(s, "/one")
	if _, ok := first.Get([]byte("k")); ok {
		t.Error("a new memory knows something")
	}
	first.Put([]byte("k"), a)
	first.Put([]byte("with\x00zero"), b)
	if err := first.Save(); err != nil {
		t.Fatal(err)
	}
	second := NewStats(s, "/one")
	if d, ok := second.Get([]byte("k")); !ok || d != a {
		t.Errorf("k is %s, %v", d, ok)
	}
	if d, ok := second.Get([]byte("with\x00zero")); !ok || d != b {
		t.Errorf("with zero is %s, %v", d, ok)
	}
	if _, ok := NewStats(s, "/two").Get([]byte("k")); ok {
		t.Error("another directory knows it")
	}
}

// A build that looks at a part of the directory does not make the rest be
// forgotten, but files that are no more are, in the end.
func TestWhatIsNoMoreIsForgotten(t *testing.T) {
	s := openStore(t)
	d := digest.FromString("x")
	key := func(i int) []byte { return fmt.Append(nil, "key ", i) }
	first := NewStats(s, "/one")
	for i := range 10 {
		first.Put(key(i), d)
	}
	if err := first.Save(); err != nil {
		t.Fatal(err)
	}
	second := NewStats(s, "/one")
	for i := range 6 {
		second.Get(key(i))
	}
	second.Put([]byte("new"), d)
	if err := second.Save(); err != nil {
		t.Fatal(err)
	}
	if _, ok := NewStats(s, "/one").Get(key(9)); !ok {
		t.Error("a file that was not looked at is forgotten")
	}
	third := NewStats(s, "/one")
	third.Get(key(0))
	third.Put([]byte("new"), d)
	if err := third.Save(); err != nil {
		t.Fatal(err)
	}
	if _, ok := NewStats(s, "/one").Get(key(9)); ok {
		t.Error("a file that is no more is remembered")
	}
}

func FuzzDecodeStats(f *testing.F) {
	f.Add(encodeStats(map[string]digest.Digest{"k": digest.FromString("x")}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		m := decodeStats(data)
		again := decodeStats(encodeStats(m))
		if len(again) != len(m) {
			t.Errorf("%d entries become %d", len(m), len(again))
		}
	})
}
