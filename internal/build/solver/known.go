package solver

import (
	"context"
	"fmt"
	"sync"

	"github.com/moby/buildkit/solver/pb"
	"google.golang.org/protobuf/proto"

	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/ref"
)

// fact is what is known of a vertex before anything but sources has run.
type fact struct {
	recipe func() (string, error)     // empty if it has none
	refs   func() ([]*ref.Ref, error) // nil if it has to run
	entry  *cache.Entry               // where refs come from, if not of its inputs' keys
}

func (s *Solver) fact(v *Vertex) *fact {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.facts[v.Digest]
	if !ok {
		f = new(fact)
		f.recipe = sync.OnceValues(func() (string, error) { return s.recipe(v) })
		f.refs = sync.OnceValues(func() (_ []*ref.Ref, err error) {
			var refs []*ref.Ref
			refs, f.entry, err = s.known(v)
			return refs, err
		})
		s.facts[v.Digest] = f
	}
	return f
}

// isSource tells whether v stands at the beginning of the graph.
func isSource(v *Vertex) bool { return len(v.Inputs) == 0 }

// source returns what a source yields.
func (s *Solver) source(v *Vertex) ([]*ref.Ref, error) {
	c := s.start(v)
	select {
	case <-c.done:
		return c.refs, c.err
	case <-s.ctx.Done():
		return nil, context.Cause(s.ctx)
	}
}

func (s *Solver) recipe(v *Vertex) (string, error) {
	if isSource(v) {
		return "", nil
	}
	op, err := s.opts.Operation(v)
	if err != nil {
		return "", err
	}
	step := op.Key()
	if len(step) == 0 {
		if step = cheapStep(v.Op); step == nil {
			return "", nil
		}
	}
	in := make([]cache.Ingredient, len(v.Inputs))
	for i, edge := range v.Inputs {
		if isSource(edge.Vertex) {
			refs, err := s.source(edge.Vertex)
			if err != nil {
				return "", err
			}
			if in[i].Source, err = output(edge, refs); err != nil {
				return "", err
			}
			continue
		}
		if in[i].Recipe, err = s.fact(edge.Vertex).recipe(); err != nil || in[i].Recipe == "" {
			return "", err
		}
		in[i].Output = edge.Index
	}
	return s.opts.Cache.Recipe(s.ctx, step, in, op.Sees)
}

// cheapStep describes the steps that are no matter for the cache.
func cheapStep(op *pb.Op) []byte {
	var m proto.Message
	switch o := op.Op.(type) {
	case *pb.Op_Merge:
		m = o.Merge
	case *pb.Op_Diff:
		m = o.Diff
	default:
		return nil
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil
	}
	return append(fmt.Appendf(nil, "%T\x00", op.Op), data...)
}

// known returns what v yields, if that can be told without running a step: of
// what this store knows, or else of the caches of others.
func (s *Solver) known(v *Vertex) ([]*ref.Ref, *cache.Entry, error) {
	if isSource(v) {
		refs, err := s.source(v)
		return refs, nil, err
	}
	if v.IgnoreCache {
		return nil, nil, nil
	}
	in, err := s.knownInputs(v)
	if err != nil {
		return nil, nil, err
	}
	if in != nil {
		op, err := s.opts.Operation(v)
		if err != nil {
			return nil, nil, err
		}
		if key := op.Key(); len(key) > 0 {
			refs, err := s.opts.Cache.Entry(key, in, op.Sees).Peek(s.ctx)
			if refs != nil || err != nil {
				return refs, nil, err
			}
		}
	}
	recipe, err := s.fact(v).recipe()
	if err != nil || recipe == "" {
		return nil, nil, err
	}
	return s.opts.Cache.ByRecipe(s.ctx, recipe)
}

// knownInputs returns the inputs of v, or nil if one of them has to run.
func (s *Solver) knownInputs(v *Vertex) ([]*ref.Ref, error) {
	in := make([]*ref.Ref, len(v.Inputs))
	for i, edge := range v.Inputs {
		refs, err := s.fact(edge.Vertex).refs()
		if err != nil || refs == nil {
			return nil, err
		}
		if in[i], err = output(edge, refs); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// skip returns what v yields if a cache of others has it and an input would
// have to run: that need not run then. What of the inputs is known is shown.
func (s *Solver) skip(v *Vertex) ([]*ref.Ref, *cache.Entry, error) {
	if s.opts.Cache == nil || !s.opts.Cache.Imports() || isSource(v) || v.IgnoreCache {
		return nil, nil, nil
	}
	in, err := s.knownInputs(v)
	if err != nil || in != nil {
		return nil, nil, err
	}
	f := s.fact(v)
	refs, err := f.refs()
	if err != nil || refs == nil {
		return nil, nil, err
	}
	for _, edge := range v.Inputs {
		if refs, err := s.fact(edge.Vertex).refs(); err == nil && refs != nil {
			<-s.start(edge.Vertex).done
		}
	}
	return refs, f.entry, nil
}

// skipped shows that v was found in a cache of others.
func (s *Solver) skipped(v *Vertex, entry *cache.Entry, refs []*ref.Ref) {
	step := s.opts.Status.Vertex(v)
	step.Cached()
	step.Done(nil)
	if entry != nil {
		s.opts.Cache.Taken(entry, refs)
		s.opts.Journal.Hit(cache.Step{Digest: v.Digest, Name: v.Name}, entry)
	}
}
