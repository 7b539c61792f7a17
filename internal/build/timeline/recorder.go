// Package timeline draws a build: which step waited for what, which were
// cached and why not, how long each ran, and how much it read and wrote.
//
// A [Recorder] watches the build; its [Timeline] becomes a page of HTML that
// needs nothing else and runs no program: names and commands in it come from
// strangers.
package timeline

import (
	"bytes"
	"slices"
	"sync"
	"time"

	bkclient "github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/build/cache"
)

// maxTail is how many bytes of what a step printed last are kept.
const maxTail = 4 << 10

// Step is one step of a build. Times are since the build began.
type Step struct {
	Name   string
	Inputs []int // indexes of the steps that it waits for

	Ready time.Duration // its inputs were there
	Began time.Duration // there was room for it; Ready if it needed none
	Ended time.Duration

	Cached  bool           // its result was known, or it had nothing to do
	Verdict *cache.Verdict // nil of what is no business of the cache

	In, Out, Moved int64 // bytes of its inputs, of its layer, and sent or received; -1 if not known

	Failed   string // why; empty if it did not
	Canceled bool   // because of another step
	Tail     string // what it printed last

	Critical bool // the build would have been shorter without it
	WaitsFor int  // the input that came last, -1 if there is none
}

// Timeline is a build that has ended. Steps are in the order of their begin.
type Timeline struct {
	Title    string
	Started  time.Time
	Took     time.Duration
	Failed   string
	Parallel int // how many steps could run at once

	// Scrub takes out of a text what must not be shown; it may be nil.
	Scrub func(string) string
	Steps []Step
}

// Recorder takes down a build. It is safe for concurrent use.
type Recorder struct {
	started time.Time

	mu    sync.Mutex
	steps map[digest.Digest]*recorded
	order []digest.Digest
}

type recorded struct {
	Step
	inputs []digest.Digest
	moved  map[string]int64
	tail   []byte
	cut    bool // there was more before tail
	ended  bool
}

// NewRecorder returns the recorder of a build that began at a time.
func NewRecorder(started time.Time) *Recorder {
	return &Recorder{started: started, steps: map[digest.Digest]*recorded{}}
}

// Observe takes down what the display is told.
func (r *Recorder) Observe(st *bkclient.SolveStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range st.Vertexes {
		r.vertex(v)
	}
	for _, s := range st.Statuses {
		if step := r.steps[s.Vertex]; step != nil {
			step.moved[s.ID] = max(step.moved[s.ID], s.Current)
		}
	}
	for _, l := range st.Logs {
		if step := r.steps[l.Vertex]; step != nil {
			step.tail = append(step.tail, l.Data...)
			if len(step.tail) > 4*maxTail {
				step.tail, step.cut = append(step.tail[:0], step.tail[len(step.tail)-maxTail:]...), true
			}
		}
	}
}

func (r *Recorder) vertex(v *bkclient.Vertex) {
	step := r.steps[v.Digest]
	if step == nil {
		step = &recorded{moved: map[string]int64{}, inputs: v.Inputs}
		step.Name, step.In, step.Out, step.WaitsFor = v.Name, -1, -1, -1
		r.steps[v.Digest] = step
		r.order = append(r.order, v.Digest)
		if v.Started != nil {
			step.Ready = v.Started.Sub(r.started)
			step.Began = step.Ready
		}
	}
	if v.Completed == nil {
		return
	}
	step.ended = true
	step.Ended, step.Cached = v.Completed.Sub(r.started), v.Cached
	switch v.Error {
	case "":
	case "context canceled":
		step.Canceled = true
	default:
		step.Failed = v.Error
	}
}

// Began notes when there was room for the step d.
func (r *Recorder) Began(d digest.Digest, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if step := r.steps[d]; step != nil && !at.IsZero() {
		step.Began = at.Sub(r.started)
	}
}

// Sizes notes how many bytes went into the step d and out of it; -1 is not
// known.
func (r *Recorder) Sizes(d digest.Digest, in, out int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if step := r.steps[d]; step != nil {
		step.In, step.Out = in, out
	}
}

// Timeline returns the build, which ended at a time.
func (r *Recorder) Timeline(ended time.Time, verdicts []cache.Verdict) *Timeline {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortStableFunc(r.order, func(a, b digest.Digest) int { return int(r.steps[a].Ready - r.steps[b].Ready) })
	t := &Timeline{Started: r.started, Took: ended.Sub(r.started), Parallel: 1}
	index := map[digest.Digest]int{}
	for i, d := range r.order {
		index[d] = i
	}
	for i := range verdicts {
		if step := r.steps[verdicts[i].Digest]; step != nil {
			step.Verdict = &verdicts[i]
		}
	}
	for _, d := range r.order {
		t.Steps = append(t.Steps, r.steps[d].finish(t.Took, index))
	}
	t.findCritical()
	return t
}

// finish is what is known of the step when the build has ended after took.
func (s *recorded) finish(took time.Duration, index map[digest.Digest]int) Step {
	step := s.Step
	if !s.ended {
		step.Ended, step.Canceled = took, true
	}
	step.Began = max(step.Began, step.Ready)
	step.Ended = max(step.Ended, step.Began)
	for _, n := range s.moved {
		step.Moved += n
	}
	for _, d := range s.inputs {
		if i, ok := index[d]; ok && !slices.Contains(step.Inputs, i) {
			step.Inputs = append(step.Inputs, i)
		}
	}
	tail := s.tail[max(0, len(s.tail)-maxTail):]
	if s.cut || len(tail) < len(s.tail) {
		// A part of a line may begin in the middle of a secret, which would
		// not be recognised.
		end := bytes.IndexAny(tail, "\r\n")
		if end < 0 {
			end = len(tail) - 1
		}
		tail = tail[end+1:]
	}
	step.Tail = string(bytes.ToValidUTF8(tail, []byte("\ufffd")))
	return step
}

// findCritical finds for each step the input that it waited for longest, and
// the chain of those that ends with the build: the step that failed, or the
// one that ended last.
func (t *Timeline) findCritical() {
	last := -1
	for i := range t.Steps {
		s := &t.Steps[i]
		for _, in := range s.Inputs {
			if s.WaitsFor < 0 || t.Steps[in].Ended > t.Steps[s.WaitsFor].Ended {
				s.WaitsFor = in
			}
		}
		switch {
		case s.Canceled, last >= 0 && t.Steps[last].Failed != "":
		case last < 0, s.Failed != "", s.Ended >= t.Steps[last].Ended:
			last = i
		}
	}
	for ; last >= 0 && !t.Steps[last].Critical; last = t.before(last) {
		t.Steps[last].Critical = true
	}
}

// before is the step that i had to wait for: an input or, of what has none in
// the graph (the export, say), the one that ended last before it.
func (t *Timeline) before(i int) int {
	if t.Steps[i].WaitsFor >= 0 {
		return t.Steps[i].WaitsFor
	}
	before := -1
	for j := range t.Steps {
		if t.Steps[j].Ended <= t.Steps[i].Ready && j != i && !t.Steps[j].Canceled && (before < 0 || t.Steps[j].Ended > t.Steps[before].Ended) {
			before = j
		}
	}
	return before
}
