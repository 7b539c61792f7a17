package timeline

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Sizes of the drawing, in CSS pixels.
const (
	rowHeight  = 22
	barHeight  = 12
	busyHeight = 30
	nameWidth  = 400
	barsWidth  = 640
	labelWidth = 90
	maxLanes   = 240 // width of the graph
)

// chart is where things are in the drawing.
type chart struct {
	Width, Height, AxisY, BusyY, RowHeight int
	NumX, NameX, NameEnd                   int
	Busy                                   string
	Ticks                                  []tick
	Edges                                  []edge
}

type tick struct {
	X    int
	Text string
}

// edge is a line of the graph.
type edge struct{ Class, D string }

// drawn is where a row is.
type drawn struct {
	Top, Middle, Base, NodeX, BarY, BarX, BarW, WaitX, WaitW, LabelX int
	Anchor                                                           string
}

// draw places the rows of p and what goes around them.
func (t *Timeline) draw(p *page) {
	lanes, n := t.lanes()
	pitch := 14
	if n*pitch > maxLanes {
		pitch = max(maxLanes/n, 3)
	}
	c := &p.chart
	c.RowHeight = rowHeight
	c.AxisY = busyHeight + 26
	c.BusyY = busyHeight
	c.NumX = n*pitch + 44
	c.NameX = c.NumX + 8
	c.NameEnd = c.NameX + nameWidth
	c.Width = c.NameEnd + barsWidth + labelWidth
	c.Height = c.AxisY + len(t.Steps)*rowHeight + 6
	x := func(d time.Duration) int {
		return c.NameEnd + int(float64(barsWidth)*float64(d)/float64(max(t.Took, time.Millisecond)))
	}
	for i := range p.Rows {
		s, r := &t.Steps[i], &p.Rows[i]
		r.Top = c.AxisY + i*rowHeight
		r.Middle, r.Base, r.BarY = r.Top+rowHeight/2, r.Top+rowHeight/2+4, r.Top+(rowHeight-barHeight)/2
		r.NodeX = 10 + lanes[i]*pitch
		r.BarX = x(s.Began)
		r.BarW = max(x(s.Ended)-r.BarX, 2)
		if r.WaitX = x(s.Ready); r.BarX-r.WaitX > 0 {
			r.WaitW = r.BarX - r.WaitX
		}
		r.LabelX, r.Anchor = r.BarX+r.BarW+5, "start"
	}
	for i, s := range t.Steps {
		for _, in := range s.Inputs {
			a, b := p.Rows[in].drawn, p.Rows[i].drawn
			class := "edge"
			if s.Critical && t.Steps[in].Critical && s.WaitsFor == in {
				class += " critical"
			}
			c.Edges = append(c.Edges, edge{class, fmt.Sprintf("M%d %dV%dQ%d %d %d %d", a.NodeX, a.Middle, b.Middle-rowHeight/2, a.NodeX, b.Middle, b.NodeX, b.Middle)})
		}
	}
	c.Ticks = ticks(t.Took, x)
	c.Busy = t.busy(x)
}

// lanes gives each step a column of the graph, so that a line straight down
// from it to the last step that needs it meets nobody; n is how many there are.
func (t *Timeline) lanes() (lanes []int, n int) {
	needed := make([]int, len(t.Steps))
	for i, s := range t.Steps {
		needed[i] = i
		for _, in := range s.Inputs {
			needed[in] = max(needed[in], i)
		}
	}
	lanes = make([]int, len(t.Steps))
	var holders []int // by lane
	for i, s := range t.Steps {
		free := func(lane int) bool { return needed[holders[lane]] <= i }
		lane := -1
		for _, in := range s.Inputs {
			if l := lanes[in]; holders[l] == in && free(l) && (lane < 0 || l < lane) {
				lane = l
			}
		}
		for l := 0; lane < 0 && l < len(holders); l++ {
			// Where a line that ends here comes from, nobody else begins.
			if free(l) && !slices.Contains(s.Inputs, holders[l]) && needed[holders[l]] < i {
				lane = l
			}
		}
		if lane < 0 {
			lane = len(holders)
			holders = append(holders, i)
		}
		holders[lane], lanes[i] = i, lane
	}
	return lanes, max(len(holders), 1)
}

// ticks are at round times, eight at most.
func ticks(took time.Duration, x func(time.Duration) int) []tick {
	step := time.Millisecond
	for factors := []time.Duration{2, 5, 10}; took/step > 8; {
		base := step
		for _, f := range factors {
			if step = base * f; took/step <= 8 {
				break
			}
		}
	}
	var out []tick
	for d := time.Duration(0); d <= took; d += step {
		text := fmt.Sprintf("%d ms", d.Milliseconds())
		if step >= 100*time.Millisecond {
			text = fmt.Sprintf("%g s", math.Round(d.Seconds()*10)/10)
		}
		out = append(out, tick{x(d), text})
	}
	return out
}

// busy is the outline of how many steps ran at each time.
func (t *Timeline) busy(x func(time.Duration) int) string {
	type change struct {
		at time.Duration
		by int
	}
	var changes []change
	for _, s := range t.Steps {
		if s.class() == "run" || s.class() == "bad" || s.class() == "off" && s.Verdict != nil {
			changes = append(changes, change{s.Began, 1}, change{s.Ended, -1})
		}
	}
	slices.SortFunc(changes, func(a, b change) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return a.by - b.by
	})
	const bottom = busyHeight + 4
	most, now := max(t.Parallel, 1), 0
	y := func() int { return bottom - busyHeight*min(now, most)/most }
	points := []string{fmt.Sprintf("%d,%d", x(0), bottom)}
	for _, c := range changes {
		points = append(points, fmt.Sprintf("%d,%d", x(c.at), y()))
		now += c.by
		points = append(points, fmt.Sprintf("%d,%d", x(c.at), y()))
	}
	return strings.Join(append(points, fmt.Sprintf("%d,%d", x(t.Took), bottom)), " ")
}
