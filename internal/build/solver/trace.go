package solver

import (
	"time"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shaleproject/shale/internal/build/ref"
)

// Trace is how a vertex went, beside what the display is told.
type Trace struct {
	Vertex *Vertex
	Began  time.Time  // when there was room for it to run; zero if it did not
	In     []*ref.Ref // its inputs
	Out    []*ref.Ref // nil if it failed
}

// Base tells whether the vertex is a base image, whose layers it did not make.
func (t *Trace) Base() bool {
	_, source := t.Vertex.Op.Op.(*pb.Op_Source)
	return source
}

func (s *Solver) trace(v *Vertex, step *Step, in, out []*ref.Ref) {
	if s.opts.Trace != nil {
		s.opts.Trace(Trace{Vertex: v, Began: step.began, In: in, Out: out})
	}
}

// runs notes that the step has a slot from now on.
func (s *Step) runs() {
	if s.status != nil {
		s.began = s.status.now()
	}
}
