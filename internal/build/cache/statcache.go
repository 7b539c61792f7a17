package cache

import (
	"errors"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/tree"
)

// Stats remembers the digests of the files of context directories, so that
// an unchanged file costs one lstat. It is a [tree.StatCache].
//
// One record of the store holds everything about one directory: a file that
// is read once and, if something changed, written once. Two builds of one
// directory at the same time may lose each other's entries, which costs
// reading those files again.
type Stats struct {
	records *store.Cache
	name    string

	mu      sync.Mutex
	loaded  bool
	at      map[tree.StatKey]int32 // where entries has the sum of a key
	entries []statEntry
	used    int // how many entries this build has asked for or added
	changed bool
}

type statEntry struct {
	sum  tree.Sum
	used bool
}

// NewStats returns the memory of the directory called name.
func NewStats(s *store.Store, name string) *Stats {
	return &Stats{records: s.Cache("stat"), name: digest.FromString(name).Encoded(), at: map[tree.StatKey]int32{}}
}

// Get returns the sum that was put under key.
func (s *Stats) Get(key tree.StatKey) (tree.Sum, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.load()
	i, ok := s.at[key]
	if !ok {
		return tree.Sum{}, false
	}
	s.use(i)
	return s.entries[i].sum, true
}

// Put remembers sum under key.
func (s *Stats) Put(key tree.StatKey, sum tree.Sum) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.load()
	s.use(s.set(key, sum))
	s.changed = true
}

func (s *Stats) set(key tree.StatKey, sum tree.Sum) int32 {
	i, ok := s.at[key]
	if !ok {
		i = int32(len(s.entries))
		s.at[key] = i
		s.entries = append(s.entries, statEntry{})
	}
	s.entries[i].sum = sum
	return i
}

func (s *Stats) use(i int32) {
	if e := &s.entries[i]; !e.used {
		e.used = true
		s.used++
	}
}

// load reads the record. One that is missing or damaged knows nothing.
func (s *Stats) load() {
	if s.loaded {
		return
	}
	s.loaded = true
	if r, err := s.records.Get(s.name); err == nil {
		s.decode(r.Data)
	}
}

// Save keeps what this build has asked for and learned, and drops the rest
// once that is the greater part: files that are no more.
func (s *Stats) Save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.changed {
		return nil
	}
	s.changed = false
	err := s.records.Put(s.name, store.Record{Data: s.encode(len(s.entries) >= 2*s.used)})
	if errors.Is(err, errdefs.ErrResourceExhausted) {
		return nil // a memory that doesn't fit costs time, not the build
	}
	return err
}

// The format: for each file a uvarint length, the key, and the 32 bytes of
// the SHA-256. docs/format/build.md. A length other than that of a key is none
// of ours.

const statEntrySize = 1 + len(tree.StatKey{}) + len(tree.Sum{})

// encode returns the entries: all, or those that were used.
func (s *Stats) encode(usedOnly bool) []byte {
	out := make([]byte, 0, len(s.entries)*statEntrySize)
	for key, i := range s.at {
		if e := &s.entries[i]; e.used || !usedOnly {
			out = append(out, byte(len(key)))
			out = append(out, key[:]...)
			out = append(out, e.sum[:]...)
		}
	}
	return out
}

// decode adds the entries of data, as far as it is whole.
func (s *Stats) decode(data []byte) {
	s.at = make(map[tree.StatKey]int32, len(data)/statEntrySize)
	s.entries = make([]statEntry, 0, len(data)/statEntrySize)
	for len(data) >= statEntrySize && int(data[0]) == len(tree.StatKey{}) {
		var key tree.StatKey
		n := 1 + copy(key[:], data[1:])
		s.set(key, tree.Sum(data[n:statEntrySize]))
		data = data[statEntrySize:]
	}
}
