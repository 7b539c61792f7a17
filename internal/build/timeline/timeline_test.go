package timeline

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	bkclient "github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/build/cache"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// vertex tells r of a step that began and ended after so many seconds.
func vertex(r *Recorder, name string, began, ended int, inputs ...digest.Digest) *bkclient.Vertex {
	from, to := start.Add(time.Duration(began)*time.Second), start.Add(time.Duration(ended)*time.Second)
	v := &bkclient.Vertex{Digest: digest.Digest(name), Name: name, Started: &from, Inputs: inputs}
	r.Observe(&bkclient.SolveStatus{Vertexes: []*bkclient.Vertex{v}})
	done := *v
	done.Completed = &to
	r.Observe(&bkclient.SolveStatus{Vertexes: []*bkclient.Vertex{&done}})
	return &done
}

func html(t *testing.T, line *Timeline) string {
	t.Helper()
	var b bytes.Buffer
	if err := line.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestATimelineSaysWhatWaitedForWhat(t *testing.T) {
	r := NewRecorder(start)
	vertex(r, "base", 0, 1)
	vertex(r, "quick", 1, 2, "base")
	vertex(r, "slow", 1, 5, "base")
	r.Began("slow", start.Add(3*time.Second))
	r.Sizes("slow", 2_000_000, 3_000)
	last := vertex(r, "last", 5, 6, "quick", "slow")
	last.Error = "exit code: 1"
	r.Observe(&bkclient.SolveStatus{
		Vertexes: []*bkclient.Vertex{last},
		Logs:     []*bkclient.VertexLog{{Vertex: "last", Data: []byte(strings.Repeat("early\n", 5000) + "the end\n")}},
		Statuses: []*bkclient.VertexStatus{{ID: "layer", Vertex: "base", Current: 7_000_000}},
	})
	stopped := vertex(r, "stopped", 2, 6, "base")
	stopped.Error = "context canceled"
	r.Observe(&bkclient.SolveStatus{Vertexes: []*bkclient.Vertex{stopped}})
	line := r.Timeline(start.Add(6*time.Second), []cache.Verdict{
		{Digest: "quick", Hit: true},
		{Digest: "slow", Reasons: []cache.Reason{{Kind: cache.KindFile, Name: "main.go", Change: "changed"}}},
	})
	var got []string
	for _, s := range line.Steps {
		got = append(got, fmt.Sprintf("%s %s waits for %d critical %v", s.Name, s.class(), s.WaitsFor, s.Critical))
	}
	want := []string{
		"base none waits for -1 critical true", "quick hit waits for 0 critical false", "slow run waits for 0 critical true",
		"stopped off waits for 0 critical false", "last bad waits for 2 critical true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("steps are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	page := html(t, line)
	for _, text := range []string{"file main.go changed", "waited for 2.0 s", "2MB", "3kB", "7MB", "the end", "done after 5.0 s", "exit code: 1"} {
		if !strings.Contains(page, text) {
			t.Errorf("the page has no %q", text)
		}
	}
	if n := strings.Count(page, "early"); n > maxTail/6 || n < 100 {
		t.Errorf("%d lines of the log are shown", n)
	}
}

// A part of a line could be a part of a secret, which Scrub does not know.
func TestWhatAStepPrintedLastBeginsWithALine(t *testing.T) {
	const line = "the secret is hunter2secret"
	for _, end := range []string{"\n", "\r", "\r\n"} {
		for n := 1; n < 1000; n++ {
			r := NewRecorder(start)
			vertex(r, "step", 0, 1)
			text := strings.Repeat(line+end, n)
			if n%2 == 0 {
				text += strings.Repeat("x", n)
			}
			r.Observe(&bkclient.SolveStatus{Logs: []*bkclient.VertexLog{{Vertex: "step", Data: []byte(text)}}})
			tail := r.Timeline(start.Add(time.Second), nil).Steps[0].Tail
			if rest := strings.TrimLeft(tail, "\n"); !strings.HasPrefix(rest, line) || len(tail) > maxTail || len(tail) < min(len(text), maxTail-len(line)-2) {
				t.Fatalf("of %d lines it is %d bytes: %.60q", n, len(tail), tail)
			}
		}
	}
}

// A line goes straight down from a step to the last that needs it; no other
// step is in its way.
func TestLinesOfTheGraphMeetNobody(t *testing.T) {
	line := &Timeline{}
	for i := range 200 {
		s := Step{Name: fmt.Sprint("step ", i)}
		for _, back := range []int{1, 7, 31} {
			if i%back == 0 && i >= back {
				s.Inputs = append(s.Inputs, i-back)
			}
		}
		line.Steps = append(line.Steps, s)
	}
	lanes, n := line.lanes()
	for i, s := range line.Steps {
		for _, in := range s.Inputs {
			for between := in + 1; between < i; between++ {
				if lanes[between] == lanes[in] {
					t.Errorf("step %d is in the way from %d to %d", between, in, i)
				}
			}
		}
	}
	if n > 40 {
		t.Errorf("%d lanes", n)
	}
}

func TestAnEmptyTimelineIsAPage(t *testing.T) {
	page := html(t, NewRecorder(start).Timeline(start, nil))
	if !strings.HasSuffix(page, "</html>\n") {
		t.Errorf("page ends with %q", page[max(0, len(page)-20):])
	}
}
