package build

import (
	"path/filepath"
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
		in, out := j.sizeOf(t.In), int64(-1)
		if !t.Base() {
			out = j.added(t)
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

// sizeOf is how many bytes the layers of refs have, each counted once; -1 if
// there are none, or trees whose size nobody knows.
func (j *job) sizeOf(refs []*ref.Ref) int64 {
	seen := map[digest.Digest]bool{}
	total := int64(-1)
	for _, r := range refs {
		if r == nil || r.Direct() {
			continue
		}
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

// added is how many bytes the step t has added to its inputs; -1 if it made
// no layers.
func (j *job) added(t solver.Trace) int64 {
	had := map[digest.Digest]bool{}
	for _, r := range t.In {
		if r == nil || r.Direct() {
			continue
		}
		for _, l := range r.Known() {
			had[l.Digest] = true
		}
	}
	total := int64(-1)
	for _, r := range t.Out {
		if r == nil || r.Direct() {
			continue
		}
		total = max(total, 0)
		for _, l := range r.Known() {
			if !had[l.Digest] {
				had[l.Digest] = true
				n, _ := j.Store.Stat(l.Digest)
				total += n
			}
		}
	}
	return total
}
