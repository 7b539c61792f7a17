package cache

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/build/ref"
)

// Bundle is what one machine tells another about steps: which layers come of
// which keys. docs/format/build.md has its form.
//
// Nothing in a bundle can be checked but its form: that the layers are what
// the step would have made is the word of whoever wrote it. So it counts only
// in builds that name it, and no record of the store is ever made of it.
type Bundle struct {
	Layers []ref.Layer  `json:"layers"`
	Steps  []BundleStep `json:"steps"`
}

// BundleStep is a step: its keys, and for each output its layers, lowest
// first, by their numbers in the bundle.
type BundleStep struct {
	Keys    []string `json:"keys"`
	Outputs [][]int  `json:"outputs"`
}

// BundleField is the name under which a bundle lies in a JSON document.
const BundleField = "shale.buildcache.v1"

// Bounds of a bundle that comes from somewhere else.
const (
	maxBundleLayers  = 10_000
	maxBundleSteps   = 10_000
	maxBundleOutputs = 16
	maxBundleStack   = 1_000
	maxBundleText    = 64 << 10 // bytes of a history entry
)

// Extract reads the bundle in a document; nil if there is none.
func Extract(document []byte) (*Bundle, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(document, &fields); err != nil {
		return nil, fmt.Errorf("read cache: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	data, ok := fields[BundleField]
	if !ok {
		return nil, nil
	}
	b := new(Bundle)
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("read cache: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("read cache: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return b, nil
}

func (b *Bundle) check() error {
	if len(b.Layers) > maxBundleLayers || len(b.Steps) > maxBundleSteps {
		return fmt.Errorf("%d layers and %d steps are too many", len(b.Layers), len(b.Steps))
	}
	for _, l := range b.Layers {
		if err := l.Digest.Validate(); err != nil || l.Digest.Algorithm() != digest.SHA256 {
			return fmt.Errorf("%.80q is no digest", string(l.Digest))
		}
		if len(l.By) > maxBundleText {
			return fmt.Errorf("history of %s has %d bytes", l.Digest, len(l.By))
		}
	}
	for _, s := range b.Steps {
		for _, k := range s.Keys {
			if digest.NewDigestFromEncoded(digest.SHA256, k).Validate() != nil {
				return fmt.Errorf("%.80q is no key", k)
			}
		}
		if len(s.Outputs) == 0 || len(s.Outputs) > maxBundleOutputs {
			return fmt.Errorf("a step has %d outputs", len(s.Outputs))
		}
		for _, out := range s.Outputs {
			if len(out) > maxBundleStack {
				return fmt.Errorf("an output has %d layers", len(out))
			}
			for _, n := range out {
				if n < 0 || n >= len(b.Layers) {
					return fmt.Errorf("an output has layer %d of %d", n, len(b.Layers))
				}
			}
		}
	}
	return nil
}

// Embed adds b to a document, which must be a JSON object, as its last field.
func (b *Bundle) Embed(document []byte) ([]byte, error) {
	data, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	end := len(document) - 1
	for end >= 0 && document[end] != '}' {
		end--
	}
	if end < 1 {
		return nil, fmt.Errorf("add cache: no JSON object: %w", errdefs.ErrInternal)
	}
	out := append([]byte(nil), document[:end]...)
	out = fmt.Appendf(out, ",%q:%s}", BundleField, data)
	if !json.Valid(out) {
		return nil, fmt.Errorf("add cache: no JSON object: %w", errdefs.ErrInternal)
	}
	return out, nil
}

// Source is a bundle with a way to get its layers.
type Source struct {
	Name   string
	Bundle *Bundle

	// Fetch makes the store have a layer, verified against its digest.
	Fetch func(ctx context.Context, layer digest.Digest) error

	// Broken hears why the source can't be used any more. The build goes on
	// without it.
	Broken func(error)

	once  sync.Once
	index map[string]*BundleStep

	mu     sync.Mutex
	broken bool
}

// Import makes c look into s, too, where it knows nothing itself.
func (c *Cache) Import(s *Source) { c.sources = append(c.sources, s) }

// imported looks for e in the sources, in their order.
func (c *Cache) imported(ctx context.Context, e *Entry) ([]*ref.Ref, error) {
	for _, s := range c.sources {
		step := s.find(e.quick, e.content, e.Recipe)
		if step == nil {
			continue
		}
		refs, err := c.fetch(ctx, s, step)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if errdefs.IsNotFound(err) {
			continue // of this step it has no layers, as mode=min may
		}
		if err != nil {
			s.fail(err)
			continue
		}
		e.from = s.Name
		return refs, nil
	}
	return nil, nil
}

func (s *Source) find(keys ...string) *BundleStep {
	s.mu.Lock()
	broken := s.broken
	s.mu.Unlock()
	if broken {
		return nil
	}
	s.once.Do(func() {
		s.index = map[string]*BundleStep{}
		for i := range s.Bundle.Steps {
			for _, k := range s.Bundle.Steps[i].Keys {
				if s.index[k] == nil {
					s.index[k] = &s.Bundle.Steps[i]
				}
			}
		}
	})
	for _, k := range keys {
		if step := s.index[k]; step != nil {
			return step
		}
	}
	return nil
}

func (s *Source) fail(err error) {
	s.mu.Lock()
	was := s.broken
	s.broken = true
	s.mu.Unlock()
	if !was && s.Broken != nil {
		s.Broken(err)
	}
}

// fetch makes the store have the layers of step.
func (c *Cache) fetch(ctx context.Context, s *Source, step *BundleStep) ([]*ref.Ref, error) {
	var refs []*ref.Ref
	for _, out := range step.Outputs {
		layers := make([]ref.Layer, 0, len(out))
		for _, n := range out {
			l := s.Bundle.Layers[n]
			err := c.pool.Keep([]ref.Layer{l})
			if errdefs.IsNotFound(err) {
				if err = s.Fetch(ctx, l.Digest); err == nil {
					err = c.pool.Keep([]ref.Layer{l})
				}
			}
			if err != nil {
				return nil, err
			}
			layers = append(layers, l)
		}
		refs = append(refs, c.pool.Stack(layers))
	}
	return refs, nil
}

// done is a step of this build whose outputs are known.
type done struct {
	entry *Entry
	refs  []*ref.Ref
}

func (c *Cache) note(e *Entry, refs []*ref.Ref) {
	if !c.Collect {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps = append(c.steps, done{e, refs})
}

// Bundle returns the steps of this build whose layers are all among those
// that take says. It must have been collecting them.
func (c *Cache) Bundle(ctx context.Context, take func(digest.Digest) bool) (*Bundle, error) {
	c.mu.Lock()
	steps := slices.Clone(c.steps)
	c.mu.Unlock()
	type keyed struct {
		keys []string
		refs []*ref.Ref
	}
	var all []keyed
	for _, d := range steps {
		if !taken(d.refs, take) {
			continue
		}
		keys, err := d.entry.keys(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, keyed{keys, d.refs})
	}
	slices.SortFunc(all, func(a, b keyed) int { return cmp.Compare(a.keys[0], b.keys[0]) }) // not by who was first
	b := &Bundle{Layers: []ref.Layer{}, Steps: []BundleStep{}}
	numbers := map[ref.Layer]int{}
	for _, k := range all {
		s := BundleStep{Keys: k.keys, Outputs: [][]int{}}
		for _, r := range k.refs {
			out := []int{}
			for _, l := range r.Known() {
				id := l
				id.Created = time.Unix(0, l.Created.UnixNano()).UTC()
				if l.Created.IsZero() {
					id.Created = time.Time{}
				}
				n, ok := numbers[id]
				if !ok {
					n = len(b.Layers)
					numbers[id], b.Layers = n, append(b.Layers, l)
				}
				out = append(out, n)
			}
			s.Outputs = append(s.Outputs, out)
		}
		b.Steps = append(b.Steps, s)
	}
	return b, b.check()
}

// taken says whether take wants all layers of refs, some of which there are.
func taken(refs []*ref.Ref, take func(digest.Digest) bool) bool {
	for _, r := range refs {
		if r == nil || r.Direct() {
			return false
		}
		for _, l := range r.Known() {
			if !take(l.Digest) {
				return false
			}
		}
	}
	return len(refs) > 0
}
