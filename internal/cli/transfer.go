package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/term"

	"github.com/shaleproject/shale/internal/progress"
)

// transfer shows what pull, push and load say: on a terminal a line for each
// layer that is rewritten in place, elsewhere a line for each change.
type transfer struct {
	out   *os.File
	width int // of the terminal; 0: not a terminal
	lines int // that fit on it

	mu    sync.Mutex
	ids   []string // of the lines on the screen, from the top
	state map[string]progress.Event
	drawn time.Time
	dirty bool
}

// newTransfer writes to out, which may be anything that a command prints to.
func newTransfer(out io.Writer) *transfer {
	t := &transfer{state: make(map[string]progress.Event)}
	file, ok := out.(*os.File)
	if !ok {
		file = os.Stdout
	}
	t.out = file
	if term.IsTerminal(int(file.Fd())) {
		if t.width, t.lines, _ = term.GetSize(int(file.Fd())); t.width <= 0 || t.lines <= 0 {
			t.width, t.lines = 80, 24
		}
	}
	return t
}

// repaint is how often byte counts are shown.
const repaint = 60 * time.Millisecond

// sink takes events for as long as the command runs.
func (t *transfer) sink() progress.Sink {
	return func(e progress.Event) {
		t.mu.Lock()
		defer t.mu.Unlock()
		switch {
		case t.width == 0:
			t.plain(e)
		case e.ID == "":
			t.draw(true)
			t.ids = nil // what comes after the message is drawn below it
			fmt.Fprintln(t.out, e.Message)
		default:
			t.change(e)
		}
	}
}

// close shows what has not been shown yet.
func (t *transfer) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.width > 0 && t.dirty {
		t.draw(true)
	}
}

// plain writes e if it says more than that bytes have moved.
func (t *transfer) plain(e progress.Event) {
	if e.ID == "" {
		fmt.Fprintln(t.out, e.Message)
		return
	}
	if e.Total > 0 || t.state[e.ID].Action == e.Action {
		return
	}
	t.state[e.ID] = e
	fmt.Fprintf(t.out, "%s: %s\n", e.ID, e.Action)
}

// change notes e and draws it, at once if the state changes.
func (t *transfer) change(e progress.Event) {
	old, known := t.state[e.ID]
	t.state[e.ID] = e
	if !known || !t.onScreen(e.ID) {
		t.draw(true)
		if len(t.ids) >= t.lines-1 { // what has scrolled away can't be rewritten
			t.width = 0
			t.plain(e)
			return
		}
		t.ids = append(t.ids, e.ID)
		fmt.Fprintln(t.out, t.line(e))
		return
	}
	t.dirty = true
	t.draw(old.Action != e.Action)
}

func (t *transfer) onScreen(id string) bool {
	for _, have := range t.ids {
		if have == id {
			return true
		}
	}
	return false
}

// draw rewrites the lines, but not more often than an eye can follow unless
// it is forced.
func (t *transfer) draw(force bool) {
	if !t.dirty || !force && time.Since(t.drawn) < repaint {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\x1b[%dA", len(t.ids))
	for _, id := range t.ids {
		b.WriteString("\r\x1b[2K" + t.line(t.state[id]) + "\n")
	}
	io.WriteString(t.out, b.String())
	t.drawn, t.dirty = time.Now(), false
}

// line renders one layer as Docker does:
// "6f245fbb6da7: Downloading [==>       ]  34.6MB/880.4MB".
func (t *transfer) line(e progress.Event) string {
	line := e.ID + ": " + e.Action
	if e.Total > 0 {
		numbers := fmt.Sprintf("%8s/%s", units.HumanSize(float64(e.Current)), units.HumanSize(float64(e.Total)))
		if room := min(50, t.width-len(line)-len(numbers)-6); room > 4 {
			done := int(int64(room) * min(e.Current, e.Total) / e.Total)
			bar := strings.Repeat("=", done)
			if done < room {
				bar += ">" + strings.Repeat(" ", room-done-1)
			}
			line += " [" + bar + "]"
		}
		line += " " + numbers
	}
	if runes := []rune(line); len(runes) >= t.width {
		line = string(runes[:t.width-1])
	}
	return line
}
