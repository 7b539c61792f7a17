package history

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	bkclient "github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
)

// Log takes down one build while it goes on. It is not safe for concurrent
// use.
type Log struct {
	record Record
	scrub  func(string) string
	path   string
	limit  int64 // bytes of log

	text     bytes.Buffer // not written yet
	written  int64        // bytes behind the head
	file     *os.File     // nil before the first flush
	lock     *sys.FileLock
	err      error // the first; then nothing more is written
	vertices map[digest.Digest]*vertex
}

// vertex is a step that the log has numbered.
type vertex struct {
	number  int
	started time.Time
	ended   bool
	cached  bool
	line    []byte // begun and not ended
}

// New returns the log of the build that r begins to describe. scrub takes out
// of names and errors what must not stay; what steps print stays as it is.
func New(s *store.Store, r Record, scrub func(string) string) *Log {
	r.Status = Running
	return &Log{
		record: r, scrub: scrub, limit: maxLog, vertices: map[digest.Digest]*vertex{},
		path: filepath.Join(dirOf(s), fmt.Sprintf("%016x-%s", r.Started.UnixMicro(), r.ID)),
	}
}

// atOnce is how many bytes are written at a time.
const atOnce = 64 << 10

// Observe takes down what has happened.
func (l *Log) Observe(st *bkclient.SolveStatus) {
	for _, v := range st.Vertexes {
		l.vertex(v)
	}
	for _, s := range st.Statuses {
		if v := l.vertices[s.Vertex]; v != nil && s.Completed != nil {
			fmt.Fprintf(&l.text, "#%d %s done\n", v.number, l.name(s.ID))
		}
	}
	for _, w := range st.Warnings {
		fmt.Fprintf(&l.text, "WARNING: %s\n", w.Short)
	}
	for _, out := range st.Logs {
		if v := l.vertices[out.Vertex]; v != nil {
			l.output(v, out)
		}
	}
	if l.text.Len() >= atOnce || len(st.Logs) > 0 && l.file == nil {
		l.flush()
	}
}

func (l *Log) vertex(bv *bkclient.Vertex) {
	v := l.vertices[bv.Digest]
	if v == nil {
		v = &vertex{number: len(l.vertices) + 1}
		l.vertices[bv.Digest] = v
		fmt.Fprintf(&l.text, "#%d %s\n", v.number, l.name(bv.Name))
	}
	if bv.Started != nil && v.started.IsZero() {
		v.started = *bv.Started
	}
	if bv.Completed == nil || v.ended {
		return
	}
	v.ended, v.cached = true, bv.Cached
	if len(v.line) > 0 {
		l.text.Write(append(v.line, '\n'))
		v.line = nil
	}
	switch {
	case bv.Error != "" && strings.HasSuffix(bv.Error, "context canceled"):
		fmt.Fprintf(&l.text, "#%d CANCELED\n", v.number)
	case bv.Error != "":
		fmt.Fprintf(&l.text, "#%d ERROR: %s\n", v.number, l.name(bv.Error))
	case bv.Cached:
		fmt.Fprintf(&l.text, "#%d CACHED\n", v.number)
	default:
		fmt.Fprintf(&l.text, "#%d DONE %.1fs\n", v.number, bv.Completed.Sub(v.started).Seconds())
	}
}

// name is a text of ours, in which only an address can hold a password.
func (l *Log) name(text string) string {
	if strings.Contains(text, "://") || strings.Contains(text, "_proxy") || strings.Contains(text, "_PROXY") {
		return l.scrub(text)
	}
	return text
}

// output takes down what a step has printed, each line with its time since
// the step began, in seconds.
func (l *Log) output(v *vertex, out *bkclient.VertexLog) {
	for line := range bytes.Lines(out.Data) {
		if len(v.line) == 0 {
			v.line = fmt.Appendf(v.line, "#%d %.3f ", v.number, out.Timestamp.Sub(v.started).Seconds())
		}
		v.line = append(v.line, line...)
		if line[len(line)-1] == '\n' || len(v.line) > atOnce {
			l.text.Write(v.line)
			v.line = v.line[:0]
		}
	}
}

// flush writes what there is, for those who look while the build goes on.
func (l *Log) flush() {
	if l.err != nil {
		l.text.Reset()
		return
	}
	if l.file == nil {
		l.err = l.create(true)
	}
	if l.err == nil {
		l.err = l.write()
	}
}

// create makes the file, with the head of a build that runs if it does.
func (l *Log) create(running bool) (err error) {
	open := func() (*os.File, error) { return os.OpenFile(l.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) }
	if l.file, err = open(); os.IsNotExist(err) {
		if err = os.MkdirAll(filepath.Dir(l.path), 0o700); err == nil {
			l.file, err = open()
		}
	}
	if err != nil || !running {
		return err
	}
	if l.lock, err = sys.TryLock(l.path, sys.Exclusive); err != nil {
		return err
	}
	head, err := l.record.head()
	if err == nil {
		_, err = l.file.WriteAt(head, 0)
	}
	return err
}

// write appends what there is, up to the bound of a log.
func (l *Log) write() error {
	text := l.text.Bytes()
	if left := l.limit - l.written; int64(len(text)) > left {
		text = text[:left]
		l.record.Cut = true
	}
	n, err := l.file.WriteAt(text, headSize+l.written)
	l.written += int64(n)
	l.text.Reset()
	return err
}

// End completes the log and the record of a build that ended at a time, with
// failed if it failed, and drops builds that are too old. Nobody waits for the
// disk.
func (l *Log) End(at time.Time, status Status, failed error, kept bool) error {
	l.record.Ended, l.record.Status, l.record.Kept = at, status, kept
	if failed != nil {
		l.record.Error = l.scrub(failed.Error())
	}
	for _, v := range l.vertices {
		l.record.Steps++
		if v.cached {
			l.record.Cached++
		}
	}
	if failed != nil {
		fmt.Fprintf(&l.text, "ERROR: %s\n", l.record.Error)
	}
	err := l.err
	if err == nil && l.file == nil {
		err = l.create(false)
	}
	if err == nil {
		err = l.finish()
	}
	if l.file != nil {
		if cerr := l.file.Close(); err == nil {
			err = cerr
		}
	}
	if l.lock != nil {
		if cerr := l.lock.Close(); err == nil {
			err = cerr
		}
	}
	if err == nil {
		err = trim(filepath.Dir(l.path), l.written > 1<<20)
	}
	if err != nil {
		return fmt.Errorf("write history of builds: %w", err)
	}
	return nil
}

// finish writes the rest and the final head.
func (l *Log) finish() error {
	if err := l.write(); err != nil {
		return err
	}
	if l.record.Cut {
		note := fmt.Appendf(nil, "\n[the log is cut here: it had more than %d bytes]\n", l.limit)
		if _, err := l.file.WriteAt(note, headSize+l.written); err != nil {
			return err
		}
		l.written += int64(len(note))
	}
	l.record.Log = l.written
	head, err := l.record.head()
	if err == nil {
		_, err = l.file.WriteAt(head, 0)
	}
	return err
}
