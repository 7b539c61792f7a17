package solver

import (
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/build/ref"
)

// Made returns the outputs of the vertex with digest d, nil if it has not run
// or not to its end.
func (s *Solver) Made(d digest.Digest) []*ref.Ref {
	s.mu.Lock()
	c := s.calls[d]
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	select {
	case <-c.done:
		return c.refs
	default:
		return nil
	}
}

// Order returns the vertices that target needs and its own, each after its
// inputs.
func Order(target Edge) []*Vertex {
	var order []*Vertex
	seen := map[*Vertex]bool{}
	var visit func(v *Vertex)
	visit = func(v *Vertex) {
		if v == nil || seen[v] {
			return
		}
		seen[v] = true
		for _, in := range v.Inputs {
			visit(in.Vertex)
		}
		order = append(order, v)
	}
	visit(target.Vertex)
	return order
}

// Again tells s of the same steps as others: their names begin with prefix.
func (s *Status) Again(prefix string) *Status {
	if s == nil {
		return nil
	}
	return &Status{first: s, prefix: prefix, now: s.now}
}
