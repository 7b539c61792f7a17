package cache

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/tree"
)

func statKey(i int) (key tree.StatKey) {
	binary.LittleEndian.PutUint64(key[8:], uint64(i))
	return key
}

func statSum(i int) (sum tree.Sum) {
	binary.LittleEndian.PutUint64(sum[:], ^uint64(i))
	return sum
}

// saved has a memory of n files saved, and closed.
func saved(t testing.TB, s *store.Store, name string, n int) {
	t.Helper()
	stats := newStats(t, s, name)
	for i := range n {
		stats.Put(statKey(i), statSum(i))
	}
	if err := stats.Save(); err != nil {
		t.Fatal(err)
	}
	if err := stats.Close(); err != nil {
		t.Fatal(err)
	}
}

// knows returns how many of the files it knows.
func knows(t testing.TB, s *Stats, files []int) (n int) {
	t.Helper()
	for _, i := range files {
		sum, ok := s.Get(statKey(i))
		if ok && sum != statSum(i) {
			t.Fatalf("file %d has the sum %x", i, sum)
		}
		if ok {
			n++
		}
	}
	return n
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// Sizes at which a page ends, entries go to a file, or the table grows.
func TestAMemoryOfAnySizeIsTheSameAgain(t *testing.T) {
	s := openStore(t)
	const inMemory = (1 << 20) / statEntrySize // what a Spill has in memory, more or less
	for _, n := range []int{0, 1, 42, 43, pageEntries - 1, pageEntries, pageEntries + 1, 897, 898, inMemory, inMemory + 1, 3*inMemory + pageEntries} {
		name := fmt.Sprint(n)
		first := newStats(t, s, name)
		all := upTo(n)
		for _, i := range all {
			first.Put(statKey(i), statSum(i))
		}
		if got := knows(t, first, all); got != n {
			t.Errorf("of %d files just added %d are known", n, got)
		}
		if err := first.Save(); err != nil {
			t.Fatal(err)
		}
		if left, err := os.ReadDir(filepath.Join(s.Root(), "tmp")); err != nil || len(left) != 0 {
			t.Errorf("%d files: in tmp/: %v, %v", n, left, err)
		}
		backward := slices.Clone(all)
		slices.Reverse(backward)
		mixed := slices.Clone(all)
		rand.New(rand.NewPCG(1, 2)).Shuffle(n, func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		for order, files := range map[string][]int{"same": all, "backward": backward, "mixed": mixed} {
			second := newStats(t, s, name)
			if got := knows(t, second, files); got != n {
				t.Errorf("of %d files in %s order %d are known", n, order, got)
			}
			if sum, ok := second.Get(statKey(n)); ok {
				t.Errorf("a file that was never there has the sum %x", sum)
			}
		}
	}
}

// Added entries, those of the record, and those that came in place of either,
// through several builds.
func TestTheLastSumOfAKeyCounts(t *testing.T) {
	s := openStore(t)
	const n = 2 * pageEntries
	saved(t, s, "one", n)
	for build := range 4 {
		stats := newStats(t, s, "one")
		for i := range n {
			if i%3 == 0 {
				stats.Put(statKey(i), tree.Sum{byte(build), 1}) // at once replaced
				stats.Put(statKey(i), tree.Sum{byte(build), 2})
			}
		}
		for _, again := range []*Stats{stats, newStats(t, s, "one")} {
			for i := range n {
				want := statSum(i)
				if i%3 == 0 {
					want = tree.Sum{byte(build), 2}
				}
				if sum, ok := again.Get(statKey(i)); !ok || sum != want {
					t.Fatalf("build %d, file %d: %x, %v", build, i, sum, ok)
				}
			}
			if got := again.entries() - len(again.replaced); got != n {
				t.Errorf("build %d: %d entries for %d files", build, got, n)
			}
			if err := again.Save(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestKeysOfOneHashAreNotConfused(t *testing.T) {
	s := openStore(t)
	const n = 3 * pageEntries
	for _, hash := range []uint64{0, 1 << 63, ^uint64(0)} { // also at the end of the table
		name := fmt.Sprint(hash)
		for range 2 {
			stats := newStats(t, s, name)
			stats.hash = func(tree.StatKey) uint64 { return hash }
			for i := 0; i < n; i += 2 {
				stats.Put(statKey(i), statSum(i))
			}
			for i := n - 1; i >= 0; i-- {
				if sum, ok := stats.Get(statKey(i)); ok != (i%2 == 0) || ok && sum != statSum(i) {
					t.Fatalf("file %d: %x, %v", i, sum, ok)
				}
			}
			if err := stats.Save(); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := newPlaces(0)
	for _, place := range []int{0, 1, maxPlaces - 1} {
		slot, _ := p.find(^uint64(0), func(int) bool { return false })
		p.put(slot, ^uint64(0), place)
		if got := p.place(slot); got != place {
			t.Errorf("place %d is %d", place, got)
		}
	}
}

func TestWhatTheDiskDoesNotGiveIsForgotten(t *testing.T) {
	s := openStore(t)
	stats := newStats(t, s, "one")
	stats.fresh.Dir = filepath.Join(s.Root(), "none") // what it doesn't take is not
	all := upTo(30_000)
	for _, i := range all {
		stats.Put(statKey(i), statSum(i))
	}
	if err := stats.Save(); err != nil {
		t.Fatal(err)
	}
	for what, stats := range map[string]*Stats{"at once": stats, "later": newStats(t, s, "one")} {
		if got := knows(t, stats, all); got != len(all) {
			t.Errorf("%s %d files are known", what, got)
		}
	}

	second := newStats(t, s, "one")
	knows(t, second, upTo(10))
	if err := second.record.Close(); err != nil { // it gives nothing from now on
		t.Fatal(err)
	}
	if got := knows(t, second, all); got < 10 || got > len(second.known.pages)*pageEntries {
		t.Errorf("%d files of an unreadable record are known", got)
	}
	second.Put(statKey(-1), statSum(-1))
	if err := second.Save(); err != nil {
		t.Fatal(err)
	}
	if got := knows(t, newStats(t, s, "one"), []int{-1}); got != 1 {
		t.Error("what was added to an unreadable record is not known")
	}
	second.record = nil // it is closed
}

func TestWhatIsBeyondTheLastPlaceIsForgotten(t *testing.T) {
	stats := newStats(t, openStore(t), "one")
	stats.Get(statKey(0)) // loaded
	stats.known.from, stats.known.n = strings.NewReader(""), maxPlaces-1
	for i := range 3 {
		stats.Put(statKey(i), statSum(i))
	}
	if got := knows(t, stats, upTo(3)); got != 1 {
		t.Errorf("%d files are known where there was room for one", got)
	}
}

func TestAClosedMemoryKnowsNothing(t *testing.T) {
	s := openStore(t)
	saved(t, s, "one", 10)
	stats := newStats(t, s, "one")
	if got := knows(t, stats, upTo(10)); got != 10 {
		t.Errorf("%d files are known", got)
	}
	for range 2 {
		if err := stats.Close(); err != nil {
			t.Error(err)
		}
	}
	stats.Put(statKey(11), statSum(11))
	if got := knows(t, stats, upTo(12)); got != 0 {
		t.Errorf("%d files are known", got)
	}
	if err := stats.Save(); err != nil {
		t.Error(err)
	}
	if got := knows(t, newStats(t, s, "one"), upTo(12)); got != 10 {
		t.Errorf("%d files are known later", got)
	}
}

func TestManyMayAskAndTellAtOnce(t *testing.T) {
	s := openStore(t)
	const n = 30_000
	saved(t, s, "one", n/2)
	stats := newStats(t, s, "one")
	var group sync.WaitGroup
	for g := range 4 {
		group.Go(func() {
			for i := range n {
				i = (i + g*n/4) % n
				sum, ok := stats.Get(statKey(i))
				if ok && sum != statSum(i) || !ok && i < n/2 {
					t.Errorf("file %d: %x, %v", i, sum, ok)
				}
				if !ok {
					stats.Put(statKey(i), statSum(i))
				}
			}
		})
	}
	group.Wait()
	if err := stats.Save(); err != nil {
		t.Fatal(err)
	}
	again := newStats(t, s, "one")
	if got := knows(t, again, upTo(n)); got != n || again.entries() != n {
		t.Errorf("%d of %d files are known, %d entries", got, n, again.entries())
	}
}

func TestAMemoryOfManyFilesTakesLittle(t *testing.T) {
	s := openStore(t)
	const n = 200_000
	all := upTo(n)
	var before, between, after runtime.MemStats
	runtime.ReadMemStats(&before)
	saved(t, s, "one", n)
	runtime.ReadMemStats(&between)
	if got := knows(t, newStats(t, s, "one"), all); got != n {
		t.Errorf("%d files are known", got)
	}
	runtime.ReadMemStats(&after)
	if b := between.TotalAlloc - before.TotalAlloc; b > 90*n {
		t.Errorf("%d bytes a file to put and save", b/n)
	}
	if b := after.TotalAlloc - between.TotalAlloc; b > 20*n {
		t.Errorf("%d bytes a file to load and get", b/n)
	}
}
