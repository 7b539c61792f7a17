package cache

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/store"
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
	known   map[string]digest.Digest // as the record has it
	used    map[string]digest.Digest // asked for or added by this build
	changed bool
}

// NewStats returns the memory of the directory called name.
func NewStats(s *store.Store, name string) *Stats {
	return &Stats{records: s.Cache("stat"), name: digest.FromString(name).Encoded(), used: map[string]digest.Digest{}}
}

// Get returns the digest that was put under key.
func (s *Stats) Get(key []byte) (digest.Digest, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d, ok := s.used[string(key)]; ok {
		return d, true
	}
	s.load()
	d, ok := s.known[string(key)]
	if ok {
		s.used[string(key)] = d
	}
	return d, ok
}

// Put remembers d under key.
func (s *Stats) Put(key []byte, d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[string(key)] = d
	s.changed = true
}

// load reads the record. One that is missing or damaged knows nothing.
func (s *Stats) load() {
	if s.loaded {
		return
	}
	s.loaded = true
	r, err := s.records.Get(s.name)
	if err != nil {
		return
	}
	s.known = decodeStats(r.Data)
}

// Save keeps what this build has asked for and learned, and drops the rest
// once that is the greater part: files that are no more.
func (s *Stats) Save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.changed {
		return nil
	}
	s.load()
	all := s.used
	if len(s.known) < 2*len(s.used) {
		for k, d := range s.known {
			if _, ok := all[k]; !ok {
				all[k] = d
			}
		}
	}
	s.changed = false
	err := s.records.Put(s.name, store.Record{Data: encodeStats(all)})
	if errors.Is(err, errdefs.ErrResourceExhausted) {
		return nil // a memory that doesn't fit costs time, not the build
	}
	return err
}

// The format: for each file a uvarint length, the key, and the 32 bytes of
// the SHA-256. docs/format/build.md.

func encodeStats(m map[string]digest.Digest) []byte {
	var out []byte
	for k, d := range m {
		sum, err := hex.DecodeString(d.Encoded())
		if err != nil || len(sum) != 32 {
			continue
		}
		out = binary.AppendUvarint(out, uint64(len(k)))
		out = append(out, k...)
		out = append(out, sum...)
	}
	return out
}

func decodeStats(data []byte) map[string]digest.Digest {
	m := map[string]digest.Digest{}
	for len(data) > 0 {
		n, used := binary.Uvarint(data)
		if used <= 0 || n > uint64(len(data)) || uint64(used)+n+32 > uint64(len(data)) {
			return m
		}
		data = data[used:]
		m[string(data[:n])] = digest.NewDigestFromBytes(digest.SHA256, data[n:n+32])
		data = data[n+32:]
	}
	return m
}
