package timeline

import (
	"crypto/sha256"
	_ "embed" // the page and its style
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"
	"unicode"

	"github.com/docker/go-units"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

// page is what the template shows.
type page struct {
	chart
	Title, Started, Took, Summary, Failed string
	Policy                                string
	Style                                 template.CSS
	Parallel                              int
	Rows                                  []row
}

// row is a step, in words and as it is drawn.
type row struct {
	drawn
	ID, Name, Short, State, Label string
	Number                        int
	Class                         string // run, hit, none, bad or off
	Critical, Odd, Open           bool

	Why                    []string
	Hit, Began, Slot       string
	In, Out, Moved, Failed string
	Tail                   string
	Inputs                 []link
}

type link struct{ ID, Name, Note string }

// WriteHTML writes t as a page. Whatever steps are called is text in it, and
// its policy lets a browser load nothing and run nothing.
func (t *Timeline) WriteHTML(w io.Writer) error {
	parsed, err := template.New("timeline").Parse(pageHTML)
	if err != nil {
		return fmt.Errorf("draw timeline: %w", err)
	}
	sum := sha256.Sum256([]byte(pageCSS))
	p := page{
		Title: t.clean(t.Title), Started: t.Started.Format("2006-01-02 15:04:05 MST"), Took: seconds(t.Took), Summary: t.summary(),
		Failed: t.clean(t.Failed), Style: template.CSS(pageCSS), Parallel: t.Parallel,
		Policy: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'",
	}
	for i := range t.Steps {
		p.Rows = append(p.Rows, t.row(i))
	}
	t.draw(&p)
	if err := parsed.Execute(w, p); err != nil {
		return fmt.Errorf("write timeline: %w", err)
	}
	return nil
}

func (t *Timeline) summary() string {
	ran, hit, failed := 0, 0, 0
	for _, s := range t.Steps {
		switch s.class() {
		case "run":
			ran++
		case "hit":
			hit++
		case "bad":
			failed++
		}
	}
	text := fmt.Sprintf("%d steps, %d ran, %d cached", len(t.Steps), ran, hit)
	if failed > 0 {
		text += fmt.Sprintf(", %d failed", failed)
	}
	return text
}

// class is how the step looks.
func (s *Step) class() string {
	switch {
	case s.Failed != "":
		return "bad"
	case s.Canceled:
		return "off"
	case s.Cached, s.Verdict != nil && s.Verdict.Hit:
		return "hit"
	case s.Verdict == nil:
		return "none"
	}
	return "run"
}

const (
	maxLabel = 54   // characters of a name in the chart
	maxText  = 2000 // characters of any text
)

func (t *Timeline) row(i int) row {
	s := &t.Steps[i]
	name := t.clean(s.Name)
	r := row{
		ID: stepID(i), Number: i + 1, Name: cut(name, maxText), Short: cut(strings.Join(strings.Fields(name), " "), maxLabel),
		Class: s.class(), Critical: s.Critical, Odd: i%2 == 1, Open: s.Failed != "",
		Began: "after " + seconds(s.Began), Failed: cut(t.clean(s.Failed), maxText), Tail: t.clean(s.Tail),
	}
	took := seconds(s.Ended - s.Began)
	switch r.Class {
	case "bad":
		r.State, r.Label = "failed after "+took, "failed, "+took
	case "off":
		r.State, r.Label = "stopped after "+took, "stopped"
	case "hit":
		r.State, r.Label = "cached", "cached"
	default:
		r.State, r.Label = took, took
	}
	if slot := s.Began - s.Ready; slot >= time.Millisecond {
		r.Slot = "waited for " + seconds(slot)
	}
	for _, in := range s.Inputs {
		l := link{ID: stepID(in), Name: cut(t.clean(t.Steps[in].Name), 200)}
		if in == s.WaitsFor {
			l.Note = ", the last of them, done after " + seconds(t.Steps[in].Ended)
		}
		r.Inputs = append(r.Inputs, l)
	}
	if s.In >= 0 {
		r.In = size(s.In)
	}
	if s.Out >= 0 {
		r.Out = size(s.Out)
	}
	if s.Moved > 0 {
		r.Moved = size(s.Moved)
	}
	r.explain(t, s)
	return r
}

// explain says why the step hit the cache or not.
func (r *row) explain(t *Timeline, s *Step) {
	v := s.Verdict
	switch {
	case v == nil:
	case v.Hit && v.From != "":
		r.Hit = "found in " + t.clean(v.From)
	case v.Hit:
		r.Hit = "found"
	default:
		for _, reason := range v.Reasons {
			r.Why = append(r.Why, cut(t.clean(reason.String()), maxText))
		}
		if v.More > 0 {
			r.Why = append(r.Why, fmt.Sprintf("%d more", v.More))
		}
	}
}

func stepID(i int) string { return fmt.Sprintf("step-%d", i+1) }

func size(n int64) string { return units.HumanSize(float64(n)) }

func seconds(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
}

// clean is a text as it may be shown.
func (t *Timeline) clean(text string) string {
	if t.Scrub != nil {
		text = t.Scrub(text)
	}
	return clean(text)
}

// clean shows characters that would change how others look, or that a page
// can't hold, as what they are not.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || unicode.Is(unicode.Noncharacter_Code_Point, r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(text, string(unicode.ReplacementChar)))
}

func cut(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}
