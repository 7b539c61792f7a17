// Package ref has the values that the steps of a build hand to each other.
//
// A [Ref] is a file system that never changes: a stack of layers of the
// store, or a tree that is read where it lies, such as a context directory.
// Nothing is opened before somebody looks inside, and nothing is written
// before somebody needs layers. A [Pool] makes the refs of one build and
// closes what they opened.
package ref

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/tree"
)

// Layer is one layer of a ref, with what its history entry may need.
type Layer struct {
	Digest  digest.Digest `json:"digest"` // its DiffID
	Created time.Time     `json:"created,omitzero"`
	By      string        `json:"by,omitempty"`
}

// Ref is a file system. Its zero value is scratch: no layers.
type Ref struct {
	pool   *Pool
	layers []Layer
	direct tree.FS // a tree that has no layers (yet)

	mu   sync.Mutex
	view tree.FS
}

// Direct tells whether r is a tree that is read where it lies.
func (r *Ref) Direct() bool { return r.direct != nil }

// Known returns the layers of a ref that is not direct, lowest first.
func (r *Ref) Known() []Layer { return r.layers }

// FS is the tree of r. Layers are opened on the first call; the pool closes
// them.
func (r *Ref) FS() (tree.FS, error) {
	if r.direct != nil {
		return r.direct, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.view == nil {
		trees := make([]tree.FS, 0, len(r.layers))
		for _, l := range r.layers {
			opened, err := r.pool.open(l.Digest)
			if err != nil {
				return nil, err
			}
			trees = append(trees, opened)
		}
		r.view = tree.Stack(trees...)
	}
	return r.view, nil
}

// Layers returns the layers of r, lowest first. A direct tree is written to
// the store as one layer on the first call.
func (r *Ref) Layers(ctx context.Context) ([]Layer, error) {
	if r.direct == nil {
		return r.layers, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.layers == nil {
		l, err := r.pool.Write(ctx, Layer{}, func(w *layer.Writer) error {
			return tree.Archive(ctx, r.direct, w)
		})
		if err != nil {
			return nil, err
		}
		r.layers = []Layer{l}
	}
	return r.layers, nil
}

// Pool makes the refs of one build. Its lease keeps their layers until the
// build is over.
type Pool struct {
	store *store.Store
	lease *store.Lease

	mu     sync.Mutex
	opened map[digest.Digest]*store.Layer
	kept   map[digest.Digest]bool
}

// NewPool returns a pool over s whose new layers lease keeps. The caller
// closes the pool before the lease.
func NewPool(s *store.Store, lease *store.Lease) *Pool {
	return &Pool{store: s, lease: lease, opened: map[digest.Digest]*store.Layer{}, kept: map[digest.Digest]bool{}}
}

// Stack is the ref of layers, lowest first.
func (p *Pool) Stack(layers []Layer) *Ref { return &Ref{pool: p, layers: layers} }

// Tree is the ref of fsys, which stays the caller's to close.
func (p *Pool) Tree(fsys tree.FS) *Ref { return &Ref{pool: p, direct: fsys} }

// Write makes a layer of what write puts into it. l says what is known of
// it; its digest is filled in.
func (p *Pool) Write(ctx context.Context, l Layer, write func(*layer.Writer) error) (_ Layer, err error) {
	ingest, err := p.store.IngestLayer(p.lease)
	if err != nil {
		return Layer{}, err
	}
	defer ingest.Close()
	w := layer.NewWriter(ingest)
	if err := write(w); err != nil {
		return Layer{}, err
	}
	if err := w.Close(); err != nil {
		return Layer{}, err
	}
	l.Digest, _, err = ingest.Commit(ctx, "")
	return l, err
}

// Keep leases layers that the store already has.
//
// It returns an [errdefs.ErrNotFound] if one of them is gone.
func (p *Pool) Keep(layers []Layer) error {
	var digests []digest.Digest
	p.mu.Lock()
	for _, l := range layers {
		if !p.kept[l.Digest] {
			digests = append(digests, l.Digest)
		}
	}
	p.mu.Unlock()
	if len(digests) == 0 {
		return nil
	}
	if err := p.lease.Hold(digests...); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range digests {
		p.kept[d] = true
	}
	return nil
}

// Layer is the tree of one layer, with the whiteouts in it. The pool closes it.
func (p *Pool) Layer(d digest.Digest) (tree.FS, error) { return p.open(d) }

func (p *Pool) open(d digest.Digest) (*store.Layer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.opened[d]; l != nil {
		return l, nil
	}
	l, err := p.store.Layer(d)
	if err != nil {
		return nil, fmt.Errorf("open layer %s: %w", d, err)
	}
	p.opened[d] = l
	return l, nil
}

// Close closes every layer that a ref has opened.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var first error
	for d, l := range p.opened {
		if err := l.Close(); err != nil && first == nil {
			first = err
		}
		delete(p.opened, d)
	}
	return first
}
