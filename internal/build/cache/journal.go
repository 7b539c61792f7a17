package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/store"
)

// Journal remembers what the keys of steps were made of, so that a later
// build can say why a step had to run again.
//
// One record of the store holds the steps of one Dockerfile. It is read and
// written only by builds in which a step had to run, once; if it is lost,
// reasons are lost and nothing else. Of the values of arguments it has no
// more than the names of steps show.
type Journal struct {
	records *store.Cache
	key     string
	o       JournalOptions

	mu       sync.Mutex
	loaded   bool
	known    []*trace // as the record has it, latest first
	fresh    []*trace
	verdicts []Verdict
}

// JournalOptions say what a journal is about.
type JournalOptions struct {
	Scope   string   // names the Dockerfile
	Args    []string // names of build arguments
	Ignored string   // the flag by which steps ignore the cache
	Explain bool     // collect verdicts
}

// NewJournal returns the journal of one build.
func NewJournal(s *store.Store, o JournalOptions) *Journal {
	return &Journal{records: s.Cache(journalKind), key: digest.FromString(o.Scope).Encoded(), o: o}
}

const (
	journalKind = "journal"
	prunedKey   = "pruned" // holds the time of the latest prune

	maxTraces = 1000 // of a journal
	maxBefore = 3    // of one place
)

// Verdict says of one step whether it was a hit, and if not, why.
type Verdict struct {
	Digest  digest.Digest `json:"-"` // of the vertex
	Step    string        `json:"step"`
	Hit     bool          `json:"hit"`
	From    string        `json:"from,omitempty"` // the imported cache that had it
	Reasons []Reason      `json:"reasons,omitempty"`
	More    int           `json:"more,omitempty"` // reasons that are left out
}

// maxReasons bounds the reasons of a verdict: a changed tree is one.
const maxReasons = 100

// Hit takes down that s was found.
func (j *Journal) Hit(s Step, e *Entry) {
	if j == nil || !j.o.Explain {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.verdicts = append(j.verdicts, Verdict{Digest: s.Digest, Step: s.Name, Hit: true, From: e.from})
}

// Miss takes down that s was not found, or not looked for. If it is done now,
// it is what a later build compares with. What can't be told, because a file
// of the context has changed meanwhile, is left out: the step is done.
func (j *Journal) Miss(ctx context.Context, s Step, e *Entry, looked, done bool) {
	if j == nil || !done && !j.o.Explain {
		return
	}
	for i, c := range s.Parts {
		if c.Kind == KindEnv && slices.Contains(j.o.Args, c.Name) {
			s.Parts[i].Kind = KindArg
		}
	}
	t, err := e.trace(ctx, s)
	if err != nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.o.Explain {
		v := Verdict{Digest: s.Digest, Step: s.Name, Reasons: []Reason{{Kind: KindIgnored, Name: j.o.Ignored}}}
		if looked {
			v.Reasons = j.why(t)
		}
		if n := len(v.Reasons); n > maxReasons {
			v.Reasons, v.More = v.Reasons[:maxReasons], n-maxReasons
		}
		j.verdicts = append(j.verdicts, v)
	}
	if done {
		j.fresh = append([]*trace{t}, j.fresh...)
	}
}

// Verdicts returns what was taken down, in the order of the build.
func (j *Journal) Verdicts() []Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.verdicts
}

// why compares t with the nearest of what was there before: at the same
// place, or else the same instruction at another one.
func (j *Journal) why(t *trace) []Reason {
	j.load()
	var best []Reason
	found := false
	look := func(fits func(*trace) bool) {
		for _, old := range j.known {
			if !fits(old) {
				continue
			}
			if reasons := t.compare(old); !found || len(reasons) < len(best) {
				best, found = reasons, true
			}
		}
	}
	look(func(old *trace) bool { return old.Place == t.Place })
	if !found || slices.ContainsFunc(best, func(r Reason) bool { return r.Kind == KindInstruction }) {
		at, had := best, found
		best, found = nil, false
		look(func(old *trace) bool { return old.Place != t.Place && instruction(old.Name) == instruction(t.Name) })
		if !found {
			best, found = at, had
		}
	}
	switch {
	case !found:
		return []Reason{{Kind: KindUnknown, Was: j.pruned()}}
	case len(best) == 0:
		return []Reason{{Kind: KindDropped}}
	}
	return best
}

// instruction is the name of a step without its place.
func instruction(name string) string {
	if strings.HasPrefix(name, "[") {
		if _, rest, ok := strings.Cut(name, "] "); ok {
			return rest
		}
	}
	return name
}

func (j *Journal) pruned() string {
	r, err := j.records.Get(prunedKey)
	if err != nil {
		return ""
	}
	return string(r.Data)
}

// Pruned notes that somebody has dropped records, so that a build that finds
// none can say so.
func Pruned(s *store.Store, at time.Time) error {
	return s.Cache(journalKind).Put(prunedKey, store.Record{Data: []byte(at.UTC().Format(time.RFC3339))})
}

// load reads the record. One that is missing or damaged knows nothing.
func (j *Journal) load() {
	if j.loaded {
		return
	}
	j.loaded = true
	r, err := j.records.Get(j.key)
	if err != nil {
		return
	}
	var known []*trace
	if json.Unmarshal(r.Data, &known) == nil {
		j.known = slices.DeleteFunc(known, func(t *trace) bool { return t == nil })
	}
}

// Worked tells whether a step had to run and was done since the last Save.
func (j *Journal) Worked() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.fresh) > 0
}

// Save keeps what this build has learned.
func (j *Journal) Save() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.fresh) == 0 {
		return nil
	}
	j.load()
	data, err := json.Marshal(latest(append(j.fresh, j.known...)))
	if err != nil {
		return err
	}
	j.fresh = nil
	err = j.records.Put(j.key, store.Record{Data: data})
	if err != nil && !errors.Is(err, errdefs.ErrResourceExhausted) {
		return fmt.Errorf("remember keys: %w", err)
	}
	return nil
}

// latest drops what is too old, or too much, of traces, which come latest
// first.
func latest(all []*trace) []*trace {
	var out []*trace
	seen, keys, room := map[string]int{}, map[string]bool{}, 2*maxFiles
	for _, t := range all {
		if len(out) == maxTraces {
			break
		}
		if id := t.Place + "\x00" + t.Key; keys[id] || seen[t.Place] == maxBefore {
			continue
		} else {
			keys[id] = true
		}
		seen[t.Place]++
		for i := range t.Inputs {
			if room -= len(t.Inputs[i].Files); room < 0 {
				t.Inputs[i].Files = nil
			}
		}
		out = append(out, t)
	}
	return out
}
