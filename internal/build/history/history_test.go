package history

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	bkclient "github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/store"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func open(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// begin begins the n-th build, in which a step with the digest "run" runs.
func begin(s *store.Store, n int) *Log {
	at := start.Add(time.Duration(n) * time.Second)
	l := New(s, Record{ID: fmt.Sprintf("build%02d", n), Context: "/src", Started: at}, func(text string) string {
		return strings.ReplaceAll(text, "password", "xxxxx")
	})
	l.Observe(&bkclient.SolveStatus{Vertexes: []*bkclient.Vertex{{Digest: "run", Name: "RUN make https://user:password@host", Started: &at}}})
	return l
}

func print(l *Log, after time.Duration, text string) {
	l.Observe(&bkclient.SolveStatus{Logs: []*bkclient.VertexLog{{Vertex: "run", Data: []byte(text), Timestamp: l.record.Started.Add(after)}}})
}

func complete(l *Log, d digest.Digest, cached bool, err string) {
	at := l.record.Started.Add(2 * time.Second)
	l.Observe(&bkclient.SolveStatus{Vertexes: []*bkclient.Vertex{{Digest: d, Name: string(d), Started: &l.record.Started, Completed: &at, Cached: cached, Error: err}}})
}

func logOf(t *testing.T, s *store.Store, id string) (Record, string) {
	t.Helper()
	r, err := Latest(s)
	if id != "" {
		r, err = Find(s, id)
	}
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := r.WriteLog(&b); err != nil {
		t.Fatal(err)
	}
	return r, b.String()
}

func TestALogHasAllThatWasPrinted(t *testing.T) {
	s := open(t)
	l := begin(s, 1)
	print(l, 1500*time.Millisecond, "one\ntw")
	print(l, 1600*time.Millisecond, "o\nthe password that the step prints\nno end")
	complete(l, "copy", true, "")
	complete(l, "run", false, "exit code: 1")
	failed := errors.New("fetch https://user:password@host: gone")
	if err := l.End(start.Add(5*time.Second), Failed, failed, true); err != nil {
		t.Fatal(err)
	}
	r, text := logOf(t, s, "")
	want := `#1 RUN make https://user:xxxxx@host
#1 1.500 one
#1 1.500 two
#1 1.600 the password that the step prints
#2 copy
#2 CACHED
#1 1.600 no end
#1 ERROR: exit code: 1
ERROR: fetch https://user:xxxxx@host: gone
`
	if text != want {
		t.Errorf("log is\n%s\nwant\n%s", text, want)
	}
	if r.Status != Failed || r.Steps != 2 || r.Cached != 1 || !r.Kept || r.Duration() != 4*time.Second || r.Log != int64(len(want)) || r.Error != "fetch https://user:xxxxx@host: gone" {
		t.Errorf("record is %+v", r)
	}
}

func TestALogThatIsTooLongSaysSo(t *testing.T) {
	s := open(t)
	l := begin(s, 1)
	l.limit = 3000
	for range 100 {
		print(l, 0, strings.Repeat("x", 99)+"\n")
	}
	if err := l.End(start, Completed, nil, false); err != nil {
		t.Fatal(err)
	}
	r, text := logOf(t, s, "build01")
	if !r.Cut || len(text) > 3100 || !strings.HasSuffix(text, "\n[the log is cut here: it had more than 3000 bytes]\n") {
		t.Errorf("cut is %v, log is %d bytes and ends with %q", r.Cut, len(text), text[max(0, len(text)-60):])
	}
}

// What a build has printed is there while it runs, and when it was killed.
func TestABuildIsSeenWhileItRuns(t *testing.T) {
	s := open(t)
	l := begin(s, 1)
	print(l, 0, "going on\n")
	r, text := logOf(t, s, "")
	if r.Status != Running || !strings.Contains(text, "going on") {
		t.Errorf("status is %s, log is %q", r.Status, text)
	}
	if err := r.Remove(); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("remove what runs: %v", err)
	}
	if err := errors.Join(l.lock.Close(), l.file.Close()); err != nil { // as the kernel does
		t.Fatal(err)
	}
	if r, _ := logOf(t, s, ""); r.Status != Interrupted {
		t.Errorf("status is %s", r.Status)
	}
}

func TestOldBuildsGo(t *testing.T) {
	s := open(t)
	running := begin(s, 0)
	print(running, 0, "line\n")
	for n := 1; n <= maxBuilds+5; n++ {
		if err := begin(s, n).End(start.Add(time.Hour), Completed, nil, false); err != nil {
			t.Fatal(err)
		}
	}
	all, err := List(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != maxBuilds+1 || all[0].ID != "build55" || all[maxBuilds].ID != "build00" {
		t.Errorf("%d builds are left, from %s to %s", len(all), all[0].ID, all[len(all)-1].ID)
	}
	if err := running.End(start, Canceled, nil, false); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(s, "build5"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("find one of several: %v", err)
	}
	for _, id := range []string{"other", ""} {
		if r, err := Find(s, id); !errdefs.IsNotFound(err) {
			t.Errorf("find %q: %+v, %v", id, r, err)
		}
	}
	if _, err := Latest(open(t)); !errdefs.IsNotFound(err) {
		t.Errorf("the latest of none: %v", err)
	}
}

// Whatever a user calls things, a record fits its place; and a file that is
// none is none.
func TestARecordFitsItsHead(t *testing.T) {
	s := open(t)
	l := begin(s, 1)
	for _, field := range []*string{&l.record.Context, &l.record.Dockerfile, &l.record.Target} {
		*field = strings.Repeat("\x01\"\\", 3000)
	}
	l.record.Names = []string{strings.Repeat("n", 5000), "app"}
	if err := l.End(start, Failed, errors.New(strings.Repeat("\x02", 9000)), false); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"short": "{", "text": strings.Repeat("x", headSize)} {
		if err := os.WriteFile(filepath.Join(dirOf(s), name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all, err := List(s)
	if err != nil || len(all) != 1 || all[0].Status != Failed {
		t.Errorf("builds are %+v, error %v", all, err)
	}
}
