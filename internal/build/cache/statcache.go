package cache

import (
	"errors"
	"hash/maphash"
	"io"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
	"github.com/shaleproject/shale/internal/tree"
)

// Stats remembers the digests of the files of context directories, so that
// an unchanged file costs one lstat. It is a [tree.StatCache].
//
// One record of the store holds everything about one directory. It is read
// where it lies, a page at a time, and written anew if something has changed;
// what is in memory is some 6 bytes a file. Two builds of one directory at the
// same time may lose each other's entries, which costs reading those files
// again; so does an entry that the disk doesn't give, and one beyond the first
// 8 million.
type Stats struct {
	records *store.Cache
	name    string
	hash    func(tree.StatKey) uint64

	mu           sync.Mutex
	loaded, over bool
	record       *store.RecordFile // nil if there was none
	known        statPages         // the entries of the record
	fresh        statTail          // those of this build, whose places are behind
	at           places            // where the entry of a key is
	next         int               // the place behind the last that was asked for
	used         []uint64          // a bit for each place: this build has asked for it, or added it
	uses         int               // how many of them are set
	replaced     map[int]bool      // places whose key has another place now
	changed      bool
}

// NewStats returns the memory of the directory called name. The caller closes
// it.
func NewStats(s *store.Store, name string) *Stats {
	seed := maphash.MakeSeed()
	return &Stats{
		records: s.Cache("stat"), name: digest.FromString(name).Encoded(),
		fresh: statTail{Spill: sys.Spill{Dir: s.Scratch()}},
		hash:  func(key tree.StatKey) uint64 { return maphash.Bytes(seed, key[:]) },
	}
}

// Get returns the sum that was put under key.
func (s *Stats) Get(key tree.StatKey) (tree.Sum, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready() {
		return tree.Sum{}, false
	}
	place := s.next // most often, since a build looks at files in one order
	sum, ok := s.has(place, key)
	if !ok {
		var slot int
		if slot, sum, ok = s.find(key, s.hash(key)); !ok {
			return tree.Sum{}, false
		}
		place = s.at.place(slot)
	}
	s.use(place)
	s.next = place + 1
	return sum, true
}

// Put remembers sum under key.
func (s *Stats) Put(key tree.StatKey, sum tree.Sum) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ready() {
		return
	}
	hash := s.hash(key)
	slot, old, ok := s.find(key, hash)
	if ok && old == sum {
		s.use(s.at.place(slot))
		return
	}
	place := s.entries()
	if place >= maxPlaces {
		return
	}
	s.fresh.add(key, sum)
	if ok {
		s.replace(s.at.place(slot))
	}
	s.changed = true
	s.use(place)
	if s.at.put(slot, hash, place); s.at.full() {
		s.index(min(2*place, maxPlaces))
	}
}

// find returns the sum of key and the slot that has its place, or the slot
// that is to have it.
func (s *Stats) find(key tree.StatKey, hash uint64) (slot int, sum tree.Sum, ok bool) {
	slot, ok = s.at.find(hash, func(place int) (ok bool) {
		sum, ok = s.has(place, key)
		return ok
	})
	return slot, sum, ok
}

// has returns the sum at place if it is that of key.
func (s *Stats) has(place int, key tree.StatKey) (tree.Sum, bool) {
	if place >= s.entries() || s.replaced[place] {
		return tree.Sum{}, false
	}
	e := s.entry(place)
	if e == nil || keyOf(e) != key {
		return tree.Sum{}, false
	}
	return sumOf(e), true
}

// entries returns how many places there are.
func (s *Stats) entries() int { return s.known.n + s.fresh.n }

// entry returns the bytes of an entry, which are good until the next call; nil
// if they can't be read.
func (s *Stats) entry(place int) []byte {
	if place < s.known.n {
		return s.known.entry(place)
	}
	return s.fresh.entry(place - s.known.n)
}

func (s *Stats) use(place int) {
	for place/64 >= len(s.used) {
		s.used = append(s.used, 0)
	}
	if !s.isUsed(place) {
		s.used[place/64] |= 1 << (place % 64)
		s.uses++
	}
}

func (s *Stats) isUsed(place int) bool {
	return place/64 < len(s.used) && s.used[place/64]&(1<<(place%64)) != 0
}

// replace notes that the key of a place has another one from now on.
func (s *Stats) replace(place int) {
	if s.replaced == nil {
		s.replaced = map[int]bool{}
	}
	s.replaced[place] = true
	if s.isUsed(place) {
		s.used[place/64] &^= 1 << (place % 64)
		s.uses--
	}
}

// ready opens the record, if that is yet to be done. One that is missing or
// damaged knows nothing. It is false after Close.
func (s *Stats) ready() bool {
	if s.loaded || s.over {
		return !s.over
	}
	s.loaded = true
	if r, err := s.records.Open(s.name); err == nil {
		s.record = r
		s.known = statPages{from: r, n: int(min(r.Size()/int64(statEntrySize), maxPlaces))}
	}
	for i := range s.known.n {
		if e := s.known.entry(i); e != nil && e[0] != byte(len(tree.StatKey{})) {
			s.known.n = i // of another form from here on
		}
	}
	s.index(s.known.n + s.known.n/4)
	return true
}

// index makes the table anew, with room for that many entries. Of entries that
// have one key the last one counts.
func (s *Stats) index(room int) {
	s.at = newPlaces(room)
	for place := range s.entries() {
		e := s.entry(place)
		if e == nil || s.replaced[place] {
			continue
		}
		key := keyOf(e)
		hash := s.hash(key)
		slot, _, ok := s.find(key, hash)
		if ok {
			s.replace(s.at.place(slot))
		}
		s.at.put(slot, hash, place)
	}
}

// Save keeps what this build has asked for and learned, and drops the rest
// once that is the greater part: files that are no more.
func (s *Stats) Save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.changed || s.over {
		return nil
	}
	s.changed = false
	err := s.records.PutFrom(s.name, nil, s.write)
	if errdefs.IsResourceExhausted(err) {
		return nil // a memory that doesn't fit costs time, not the build
	}
	return err
}

// write writes the entries: all, or those that were used.
func (s *Stats) write(w io.Writer) error {
	usedOnly := s.entries()-len(s.replaced) >= 2*s.uses
	for place := range s.entries() {
		if s.replaced[place] || usedOnly && !s.isUsed(place) {
			continue
		}
		if e := s.entry(place); e != nil {
			if _, err := w.Write(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close gives up the files. From now on s knows nothing and remembers nothing.
func (s *Stats) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	s.over = true
	s.at, s.used, s.replaced = places{}, nil, nil
	var err error
	if s.record != nil {
		err = s.record.Close()
	}
	return errors.Join(err, s.fresh.Close())
}
