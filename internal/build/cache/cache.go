// Package cache knows which steps of a build need not run again.
//
// A record says which layers a step made. Its key is a digest over the step
// and over everything that the step sees: the digests of the layers below
// it, and the content of the files that it takes from elsewhere. Since an
// input counts by what it is and not by how it came to be, a step hits even
// if one before it had to run again and made the same layers.
//
// Records live in the store and are shared by all processes; a record whose
// layers are gone is none. docs/format/build.md has the format.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/tree"
)

// version is part of every key. It changes when a step of the same
// description comes to mean something else.
const version = "shale.build.v1"

// Cache finds and keeps the results of the steps of one build.
type Cache struct {
	records *store.Cache
	pool    *ref.Pool

	// stats saves reading files of context directories that did not change.
	stats tree.StatCache
	temp  string

	// Collect makes the cache remember the steps of this build, for Bundle.
	Collect bool

	sources []*Source

	mu    sync.Mutex
	steps []done
}

// New returns the cache of s. Refs that it finds come from pool. stats may
// be nil.
func New(s *store.Store, pool *ref.Pool, stats tree.StatCache) *Cache {
	return &Cache{records: s.Cache("build"), pool: pool, stats: stats, temp: s.Scratch()}
}

// Entry is the place in the cache for one step with its inputs.
type Entry struct {
	cache *Cache
	step  []byte
	in    []*ref.Ref
	sees  func(int) *View

	// Recipe is one more key for others; see [Cache.Recipe].
	Recipe string
	bare   bool // it is the only one: the inputs are not known

	quick, content string // keys; empty until they are needed

	contents map[int]digest.Digest // of inputs that count by content
	seen     map[int]*files        // what they cover, of inputs that have layers
	from     string                // the imported cache that had the step
}

// Entry returns the place for the step that step describes. sees tells for
// each input what the step can see of it; nil means all.
func (c *Cache) Entry(step []byte, in []*ref.Ref, sees func(int) *View) *Entry {
	return &Entry{cache: c, step: step, in: in, sees: sees, contents: map[int]digest.Digest{}, seen: map[int]*files{}}
}

// Lookup returns the refs that the step is known to yield, or nil. They are
// leased.
//
// The first look uses the layers of the inputs, which costs no read; only if
// that finds nothing is the content of what the step sees compared.
func (e *Entry) Lookup(ctx context.Context) ([]*ref.Ref, error) {
	refs, err := e.lookup(ctx)
	if refs == nil && err == nil && len(e.cache.sources) > 0 {
		refs, err = e.cache.imported(ctx, e)
	}
	if refs != nil {
		e.cache.note(e, refs)
	}
	return refs, err
}

// Peek is Lookup in this store alone, for the sake of another step.
func (e *Entry) Peek(ctx context.Context) ([]*ref.Ref, error) { return e.lookup(ctx) }

func (e *Entry) lookup(ctx context.Context) ([]*ref.Ref, error) {
	quick, err := e.quickKey(ctx)
	if err != nil {
		return nil, err
	}
	refs, err := e.cache.find(quick)
	if refs != nil || err != nil {
		return refs, err
	}
	content, err := e.contentKey(ctx)
	if err != nil || content == quick {
		return nil, err
	}
	refs, err = e.cache.find(content)
	if refs == nil || err != nil {
		return nil, err
	}
	return refs, e.cache.put(quick, refs)
}

// Key is what two steps have in common that do the same to the same files.
func (e *Entry) Key(ctx context.Context) (string, error) {
	if _, err := e.quickKey(ctx); err != nil {
		return "", err
	}
	return e.contentKey(ctx)
}

// Store remembers refs as what the step yields.
func (e *Entry) Store(ctx context.Context, refs []*ref.Ref) error {
	quick, err := e.quickKey(ctx)
	if err != nil {
		return err
	}
	content, err := e.contentKey(ctx)
	if err != nil {
		return err
	}
	e.cache.note(e, refs)
	if err := e.cache.put(quick, refs); err != nil || content == quick {
		return err
	}
	return e.cache.put(content, refs)
}

// quickKey takes inputs by their layers, contexts by their content.
func (e *Entry) quickKey(ctx context.Context) (string, error) {
	if e.quick != "" {
		return e.quick, nil
	}
	key, err := e.key(ctx, func(r *ref.Ref) bool { return r.Direct() })
	e.quick = key
	return key, err
}

// contentKey takes inputs by the content of what the step sees of them.
func (e *Entry) contentKey(ctx context.Context) (string, error) {
	if e.content != "" {
		return e.content, nil
	}
	partial := false
	for i, r := range e.in {
		partial = partial || !r.Direct() && e.sees(i) != nil
	}
	if !partial {
		e.content = e.quick
		return e.content, nil
	}
	key, err := e.key(ctx, func(*ref.Ref) bool { return true })
	e.content = key
	return key, err
}

// view is what the step sees of input i; nil means its layers.
func (e *Entry) view(i int) *View {
	view := e.sees(i)
	if view == nil && e.in[i].Direct() {
		view = &whole
	}
	return view
}

func (e *Entry) key(ctx context.Context, byContent func(*ref.Ref) bool) (string, error) {
	h := sha256.New()
	field(h, []byte(version))
	field(h, e.step)
	for i, r := range e.in {
		view := e.view(i)
		if view == nil || !byContent(r) {
			layers, err := r.Layers(ctx)
			if err != nil {
				return "", err
			}
			field(h, []byte("layers"))
			for _, l := range layers {
				field(h, []byte(l.Digest))
			}
			continue
		}
		var seen *files
		if !r.Direct() {
			seen = &files{} // beside reading them it costs nothing
		}
		d, err := e.cache.content(ctx, r, view, seen)
		if err != nil {
			return "", err
		}
		e.contents[i], e.seen[i] = d, seen
		field(h, []byte("content"))
		field(h, []byte(d))
	}
	return digest.NewDigest(digest.SHA256, h).Encoded(), nil
}

// record is what a step yields: for each output its layers, lowest first.
type record struct {
	Outputs [][]ref.Layer `json:"outputs"`
}

func (c *Cache) find(key string) ([]*ref.Ref, error) {
	r, err := c.records.Get(key)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up step: %w", err)
	}
	var rec record
	if err := json.Unmarshal(r.Data, &rec); err != nil {
		return nil, nil // a record that can't be read is none; the step writes it again
	}
	refs := make([]*ref.Ref, len(rec.Outputs))
	for i, layers := range rec.Outputs {
		err := c.pool.Keep(layers)
		if errdefs.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		refs[i] = c.pool.Stack(layers)
	}
	return refs, nil
}

func (c *Cache) put(key string, refs []*ref.Ref) error {
	var rec record
	var holds []digest.Digest
	for _, r := range refs {
		rec.Outputs = append(rec.Outputs, r.Known())
		for _, l := range r.Known() {
			if !slices.Contains(holds, l.Digest) {
				holds = append(holds, l.Digest)
			}
		}
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	err = c.records.Put(key, store.Record{Data: data, Holds: holds})
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return fmt.Errorf("remember step: %w", err)
	}
	return nil
}
