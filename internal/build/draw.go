package build

import (
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/build/timeline"
)

// drawing is what a build takes down for its timeline.
type drawing struct {
	recorder *timeline.Recorder
	parallel int

	mu     sync.Mutex
	traces []solver.Trace
}

// beginDrawing begins the timeline if the request wants one.
func (j *job) beginDrawing() {
	if !j.req.Timeline {
		return
	}
	j.drawing = &drawing{recorder: timeline.NewRecorder(j.known.started)}
	j.status.Watch(j.drawing.recorder.Observe)
}

// tracer is what the solver tells of its vertices; nil if nobody wants to know.
func (j *job) tracer(parallel int) func(solver.Trace) {
	d := j.drawing
	if d == nil {
		return nil
	}
	d.parallel = parallel
	return func(t solver.Trace) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.traces = append(d.traces, t)
	}
}

// drawn is the timeline of the build, which has ended with err; nil if nobody
// wants it.
func (j *job) drawn(err error) *timeline.Timeline {
	d := j.drawing
	if d == nil {
		return nil
	}
	for _, t := range d.traces {
		d.recorder.Began(t.Vertex.Digest, t.Began)
		in, out := j.sizeOf(t.In, nil), int64(-1)
		if !t.Base() {
			out = j.sizeOf(t.Out, t.In)
		}
		d.recorder.Sizes(t.Vertex.Digest, in, out)
	}
	line := d.recorder.Timeline(j.Now(), j.journal.Verdicts())
	line.Parallel = d.parallel
	line.Scrub = j.scrub
	line.Title = j.req.Files.Context
	if j.contexts.place != "" {
		line.Title = filepath.Base(j.contexts.place)
	}
	if j.req.Language.Target != "" {
		line.Title += " (" + j.req.Language.Target + ")"
	}
	if err != nil {
		line.Failed = err.Error()
	}
	return line
}

// sizeOf is how many bytes those layers of refs have that refs of without have
// not, each counted once; -1 if there are no refs, or trees whose size nobody
// knows.
func (j *job) sizeOf(refs, without []*ref.Ref) int64 {
	seen := map[digest.Digest]bool{}
	for _, r := range layered(without) {
		for _, l := range r.Known() {
			seen[l.Digest] = true
		}
	}
	total := int64(-1)
	for _, r := range layered(refs) {
		total = max(total, 0)
		for _, l := range r.Known() {
			if !seen[l.Digest] {
				seen[l.Digest] = true
				n, _ := j.Store.Stat(l.Digest) // one that is gone has no size
				total += n
			}
		}
	}
	return total
}

// layered are those of refs that are made of layers.
func layered(refs []*ref.Ref) []*ref.Ref {
	return slices.DeleteFunc(slices.Clone(refs), func(r *ref.Ref) bool { return r == nil || r.Direct() })
}
