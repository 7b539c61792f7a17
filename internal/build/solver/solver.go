// Package solver runs the graph of a build.
//
// Every vertex runs at most once in a build, however many others need it;
// vertices that do not need each other run at the same time, on as many
// cores as there are. Before a vertex runs, its key is looked up in the
// cache; a hit yields the layers without looking at them. The first error
// ends the build.
package solver

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	bkerrdefs "github.com/moby/buildkit/solver/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"

	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/ref"
)

// Operation is one kind of step, ready to run.
type Operation interface {
	// Key describes what the step does, apart from its inputs. Two steps
	// with one key and the same inputs have the same result. An empty key
	// means that the step is cheaper than a look at the cache.
	Key() []byte

	// Sees returns the parts of input i that the step can see, or nil if
	// the whole of it goes into the result.
	Sees(i int) *cache.View

	// Run carries out the step. in has one ref an input, the result one an
	// output.
	Run(ctx context.Context, in []*ref.Ref, step *Step) ([]*ref.Ref, error)
}

// described is met by operations that can say what their key is made of.
type described interface {
	Parts() []cache.Component
}

// Options are what a solver works with.
type Options struct {
	// Operation makes the step that a vertex describes.
	Operation func(*Vertex) (Operation, error)

	// Given, if not nil, returns the outputs of a vertex that must not run,
	// and nil for others.
	Given func(*Vertex) []*ref.Ref

	Cache    *cache.Cache   // nil knows nothing and remembers nothing
	Journal  *cache.Journal // may be nil
	Pool     *ref.Pool
	Status   *Status
	Parallel int // how many steps may run at once

	// Trace, if not nil, is told how each vertex went.
	Trace func(Trace)
}

// Solver solves the graphs of one build.
type Solver struct {
	opts  Options
	ctx   context.Context //nolint:containedctx // the life of the build: steps outlive the call that first asked for them
	stop  context.CancelCauseFunc
	slots *semaphore.Weighted

	mu    sync.Mutex
	calls map[digest.Digest]*call
	facts map[digest.Digest]*fact
	steps map[string]*call // by what they do, see once
	wait  sync.WaitGroup
}

// call is the one run of a vertex.
type call struct {
	done   chan struct{}
	refs   []*ref.Ref
	cached bool // nothing was made anew for it
	err    error
}

// New returns a solver that works until ctx is done or [Solver.Close] is
// called.
func New(ctx context.Context, o Options) *Solver {
	ctx, stop := context.WithCancelCause(ctx)
	return &Solver{
		opts: o, ctx: ctx, stop: stop,
		slots: semaphore.NewWeighted(int64(max(o.Parallel, 1))),
		calls: map[digest.Digest]*call{}, facts: map[digest.Digest]*fact{}, steps: map[string]*call{},
	}
}

// Close stops what still runs and waits for it.
func (s *Solver) Close() {
	s.stop(context.Canceled)
	s.wait.Wait()
}

// Solve returns the ref of target. Its error carries the places in the
// Dockerfile that it is about ([bkerrdefs.Sources]).
func (s *Solver) Solve(ctx context.Context, target Edge) (*ref.Ref, error) {
	if target.Vertex == nil {
		return s.opts.Pool.Stack(nil), nil
	}
	c := s.start(target.Vertex)
	select {
	case <-c.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if c.err != nil {
		return nil, c.err
	}
	return output(target, c.refs)
}

func output(e Edge, refs []*ref.Ref) (*ref.Ref, error) {
	if e.Index >= len(refs) || refs[e.Index] == nil {
		return nil, fmt.Errorf("take output %d of %q: of %d: %w", e.Index, e.Vertex.Name, len(refs), errdefs.ErrInvalidArgument)
	}
	return refs[e.Index], nil
}

// start returns the one run of v, begun by whoever asks first.
func (s *Solver) start(v *Vertex) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.calls[v.Digest]; ok {
		return c
	}
	c := &call{done: make(chan struct{})}
	s.calls[v.Digest] = c
	s.wait.Go(func() {
		defer close(c.done)
		c.refs, c.cached, c.err = s.solve(v)
		if c.err != nil {
			s.stop(c.err)
		}
	})
	return c
}

// solve yields the outputs of v: from the cache, or by running it when its
// inputs are there.
func (s *Solver) solve(v *Vertex) (_ []*ref.Ref, cached bool, _ error) {
	if refs, entry, err := s.skip(v); err != nil {
		return nil, false, err
	} else if refs != nil {
		s.skipped(v, entry, refs)
		return refs, true, nil
	}
	in, known, err := s.inputs(v)
	if err != nil {
		return nil, false, err
	}
	if s.opts.Given != nil {
		if refs := s.opts.Given(v); refs != nil {
			return refs, true, nil
		}
	}
	step := s.opts.Status.Vertex(v)
	refs, err := s.outputs(v, in, known, step)
	s.trace(v, step, in, refs)
	if err != nil && s.ctx.Err() != nil { // stopped, for a reason that lies elsewhere
		step.Done(context.Canceled)
		return nil, false, context.Cause(s.ctx)
	}
	if err != nil {
		err = bkerrdefs.WrapVertex(err, v.Digest)
		for _, source := range v.Sources {
			err = bkerrdefs.WithSource(err, source)
		}
	}
	step.Done(err)
	return refs, step.vertex.Cached, err
}

// inputs waits for the inputs of v. known tells whether there are any and
// all of them were cached.
func (s *Solver) inputs(v *Vertex) (_ []*ref.Ref, known bool, _ error) {
	calls := make([]*call, len(v.Inputs))
	for i, in := range v.Inputs {
		calls[i] = s.start(in.Vertex)
	}
	in, known := make([]*ref.Ref, len(calls)), len(calls) > 0
	for i, c := range calls {
		select {
		case <-c.done:
		case <-s.ctx.Done():
			return nil, false, context.Cause(s.ctx)
		}
		if c.err != nil {
			return nil, false, c.err
		}
		r, err := output(v.Inputs[i], c.refs)
		if err != nil {
			return nil, false, err
		}
		in[i], known = r, known && c.cached
	}
	return in, known, nil
}

func (s *Solver) outputs(v *Vertex, in []*ref.Ref, known bool, step *Step) ([]*ref.Ref, error) {
	op, err := s.opts.Operation(v)
	if err != nil {
		return nil, err
	}
	key := op.Key()
	if len(key) == 0 {
		if known {
			step.Cached()
		}
		return op.Run(s.ctx, in, step) // cheap: it waits for nobody
	}
	if s.opts.Cache == nil {
		return s.run(op, in, step)
	}
	entry := s.opts.Cache.Entry(key, in, op.Sees)
	if s.opts.Cache.Recipes() {
		if entry.Recipe, err = s.fact(v).recipe(); err != nil {
			return nil, err
		}
	}
	if !v.IgnoreCache {
		refs, err := entry.Lookup(s.ctx)
		if err != nil {
			return nil, err
		}
		if refs != nil {
			step.Cached()
			s.opts.Journal.Hit(cache.Step{Digest: v.Digest, Name: v.Name}, entry)
			return refs, nil
		}
	}
	refs, first, err := s.once(entry, func() ([]*ref.Ref, error) { return s.run(op, in, step) })
	if err == nil {
		err = entry.Store(s.ctx, refs)
	}
	if !first && err == nil {
		step.Cached()
		s.opts.Journal.Hit(cache.Step{Digest: v.Digest, Name: v.Name}, entry)
		return refs, nil
	}
	s.opts.Journal.Miss(s.ctx, journalStep(v, op), entry, !v.IgnoreCache, err == nil)
	return refs, err
}

// once runs a step, or waits for the one that does the same to the same files.
// Such steps may be several vertices: where platforms take different files of
// the context, the front end has a context for each, and so all that follows.
func (s *Solver) once(e *cache.Entry, run func() ([]*ref.Ref, error)) (_ []*ref.Ref, first bool, _ error) {
	key, err := e.Key(s.ctx)
	if err != nil {
		return nil, true, err
	}
	s.mu.Lock()
	c, found := s.steps[key]
	if !found {
		c = &call{done: make(chan struct{})}
		s.steps[key] = c
	}
	s.mu.Unlock()
	if !found {
		defer close(c.done)
		c.refs, c.err = run()
		return c.refs, true, c.err
	}
	select {
	case <-c.done:
		return c.refs, false, c.err
	case <-s.ctx.Done():
		return nil, false, context.Cause(s.ctx)
	}
}

// run carries out a step when there is room for it.
func (s *Solver) run(op Operation, in []*ref.Ref, step *Step) ([]*ref.Ref, error) {
	if err := s.slots.Acquire(s.ctx, 1); err != nil {
		return nil, context.Cause(s.ctx)
	}
	defer s.slots.Release(1)
	step.runs()
	return op.Run(s.ctx, in, step)
}
