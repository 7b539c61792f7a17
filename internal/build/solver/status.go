package solver

import (
	"strings"
	"sync"
	"time"

	bkclient "github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

// Status tells whoever waits for a build what goes on, in BuildKit's words,
// so that its displays can show it. A nil Status drops what it is told.
type Status struct {
	mu  sync.Mutex
	out chan<- *bkclient.SolveStatus
	now func() time.Time

	// Scrub, if not nil, takes out of names and errors of steps what must
	// not be shown, such as the password of a context's address.
	Scrub func(string) string

	watchers []func(*bkclient.SolveStatus)

	first  *Status // that hears of everything, with prefix; see Again
	prefix string
}

// NewStatus sends to out, which must be drained until [Status.Close] closes
// it. A nil out drops everything.
func NewStatus(out chan<- *bkclient.SolveStatus, now func() time.Time) *Status {
	return &Status{out: out, now: now}
}

// Watch makes f see, one by one, what is told from now on.
func (s *Status) Watch(f func(*bkclient.SolveStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = append(s.watchers, f)
}

// Unwatch ends every [Status.Watch].
func (s *Status) Unwatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = nil
}

// Close closes the channel; what comes later is dropped.
func (s *Status) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out != nil {
		close(s.out)
		s.out = nil
	}
}

func (s *Status) send(st *bkclient.SolveStatus) {
	if s == nil {
		return
	}
	if s.first != nil {
		s.first.send(st)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, watch := range s.watchers {
		watch(st)
	}
	if s.out != nil {
		s.out <- st
	}
}

// Step begins a step that is no vertex of a graph, such as the export.
func (s *Status) Step(name string) *Step {
	return s.begin(&bkclient.Vertex{Digest: digest.FromString("step " + name), Name: name})
}

// Vertex begins v.
func (s *Status) Vertex(v *Vertex) *Step {
	bv := &bkclient.Vertex{Digest: v.Digest, Name: v.Name, ProgressGroup: v.Group}
	for _, in := range v.Inputs {
		bv.Inputs = append(bv.Inputs, in.Vertex.Digest)
	}
	return s.begin(bv)
}

func (s *Status) begin(v *bkclient.Vertex) *Step {
	step := &Step{status: s, vertex: *v}
	if s == nil {
		return step
	}
	if s.prefix != "" {
		step.vertex.Name = s.prefix + v.Name
		step.vertex.Digest = s.again(v.Digest)
		step.vertex.Inputs = nil
		for _, in := range v.Inputs {
			step.vertex.Inputs = append(step.vertex.Inputs, s.again(in))
		}
	}
	step.vertex.Name = s.scrubbed(step.vertex.Name)
	start := s.now()
	step.vertex.Started = &start
	step.sendVertex()
	return step
}

func (s *Status) scrubbed(text string) string {
	if s.first != nil {
		return s.first.scrubbed(text)
	}
	if s.Scrub == nil || !strings.Contains(text, "://") { // most have no address
		return text
	}
	return s.Scrub(text)
}

// again is what the step with digest d is known by, if it is told of again.
func (s *Status) again(d digest.Digest) digest.Digest {
	return digest.FromString(s.prefix + d.String())
}

// Warn shows a warning of the front end beside the step with digest d.
func (s *Status) Warn(w bkclient.VertexWarning) {
	s.send(&bkclient.SolveStatus{Warnings: []*bkclient.VertexWarning{&w}})
}

// Step is one line of the display, from its begin to [Step.Done].
type Step struct {
	status *Status
	vertex bkclient.Vertex
	began  time.Time // when it got a slot to run in
}

func (s *Step) sendVertex() {
	v := s.vertex
	s.status.send(&bkclient.SolveStatus{Vertexes: []*bkclient.Vertex{&v}})
}

// Digest names the step in the display.
func (s *Step) Digest() digest.Digest { return s.vertex.Digest }

// Cached marks the step as one whose result was known.
func (s *Step) Cached() { s.vertex.Cached = true }

// Done ends the step, with err if it failed.
func (s *Step) Done(err error) {
	if s.status == nil {
		return
	}
	now := s.status.now()
	s.vertex.Completed = &now
	if err != nil {
		s.vertex.Error = s.status.scrubbed(err.Error())
	}
	s.sendVertex()
}

// Progress is how far a part of the step has come, which what names as the
// display shows it. Current and total are bytes; a total of 0 is unknown.
func (s *Step) Progress(what string, current, total int64, done bool) {
	if s.status == nil {
		return
	}
	now := s.status.now()
	st := &bkclient.VertexStatus{
		ID: what, Vertex: s.vertex.Digest, Name: what, Current: current, Total: total,
		Timestamp: now, Started: s.vertex.Started,
	}
	if done {
		st.Completed = &now
	}
	s.status.send(&bkclient.SolveStatus{Statuses: []*bkclient.VertexStatus{st}})
}

// The streams of a process.
const (
	Stdout = 1
	Stderr = 2
)

// Log is a writer whose bytes are shown as the step's output.
func (s *Step) Log(stream int) *LogWriter { return &LogWriter{s, stream} }

// LogWriter shows what a process writes.
type LogWriter struct {
	step   *Step
	stream int
}

func (w *LogWriter) Write(p []byte) (int, error) {
	if w.step.status != nil {
		w.step.status.send(&bkclient.SolveStatus{Logs: []*bkclient.VertexLog{{
			Vertex: w.step.vertex.Digest, Stream: w.stream,
			Data: append([]byte(nil), p...), Timestamp: w.step.status.now(),
		}}})
	}
	return len(p), nil
}
