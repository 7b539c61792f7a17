package cache

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/build/ref"
)

// Kinds of what goes into a key, and so of reasons why it changed.
const (
	KindInstruction = "instruction"
	KindArg         = "build-arg"
	KindEnv         = "env"
	KindOption      = "option"
	KindBase        = "base"
	KindInput       = "input"
	KindFile        = "file"

	KindUnknown = "unknown"  // nothing is known to compare with
	KindDropped = "dropped"  // the key is the same: the record, or its layers, are gone
	KindIgnored = "no-cache" // the record was not looked for
)

// Component is one thing that went into the key of a step.
type Component struct {
	Kind string `json:"kind"`
	Name string `json:"name,omitempty"` // of what there may be several
	Sum  string `json:"sum"`            // what Sum makes of its value
	Text string `json:"text,omitempty"` // the value, where it is no secret
}

// Sum tells values apart and does not tell what they are: build arguments
// must not be read from a cache.
func Sum(values ...[]byte) string {
	h := sha256.New()
	for _, v := range values {
		field(h, v)
	}
	return shortSum(h.Sum(nil))
}

func shortSum(sum []byte) string { return base64.RawURLEncoding.EncodeToString(sum[:9]) }

// Step is a step as a [Journal] knows it.
type Step struct {
	Digest digest.Digest // of the vertex
	Place  string        // where it is in the Dockerfile, or what it is
	Name   string
	Parts  []Component
	Inputs []Input
}

// Input is where a step has an input from.
type Input struct {
	Name string
	Base bool // it is an image
}

// trace is what the key of a step was made of.
type trace struct {
	Place  string       `json:"place"`
	Name   string       `json:"name"`
	Key    string       `json:"key"`
	Parts  []Component  `json:"parts"`
	Inputs []inputTrace `json:"inputs,omitempty"`
}

// inputTrace is one input. Files are names and sums, in turn; see [files].
type inputTrace struct {
	Name  string   `json:"name"`
	Kind  string   `json:"kind"`
	Sum   string   `json:"sum"`
	Files []string `json:"files,omitempty"`
	Depth int      `json:"depth,omitempty"`
}

// trace tells what the key of e was made of. Files of a context are looked at
// once more for it: nothing is read, since their digests are known by now.
func (e *Entry) trace(ctx context.Context, s Step) (*trace, error) {
	quick, err := e.quickKey(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := e.contentKey(ctx); err != nil {
		return nil, err
	}
	t := &trace{Place: s.Place, Name: s.Name, Key: quick, Parts: s.Parts}
	for i, r := range e.in {
		in, err := e.traceInput(ctx, i, r)
		if err != nil {
			return nil, err
		}
		if i < len(s.Inputs) {
			in.Name = s.Inputs[i].Name
			if s.Inputs[i].Base && in.Kind == KindInput {
				in.Kind = KindBase
			}
		}
		t.Inputs = append(t.Inputs, in)
	}
	return t, nil
}

func (e *Entry) traceInput(ctx context.Context, i int, r *ref.Ref) (inputTrace, error) {
	view := e.view(i)
	if view == nil {
		layers, err := r.Layers(ctx)
		if err != nil {
			return inputTrace{}, err
		}
		var all [][]byte
		for _, l := range layers {
			all = append(all, []byte(l.Digest))
		}
		return inputTrace{Kind: KindInput, Sum: Sum(all...)}, nil
	}
	seen := e.seen[i]
	if r.Direct() {
		seen = &files{}
		d, err := e.cache.content(ctx, r, view, seen)
		if err != nil {
			return inputTrace{}, err
		}
		return fileTrace(d, seen), nil
	}
	return fileTrace(e.contents[i], seen), nil
}

func fileTrace(d digest.Digest, seen *files) inputTrace {
	t := inputTrace{Kind: KindFile, Sum: Sum([]byte(d))}
	t.Files, t.Depth = seen.kept()
	return t
}

// Reason says why a step was no hit.
type Reason struct {
	Kind   string `json:"kind"`
	Name   string `json:"name,omitempty"`
	Change string `json:"change,omitempty"` // "changed", "added" or "removed"
	Was    string `json:"was,omitempty"`
	Is     string `json:"is,omitempty"`
}

// compare returns what has changed from old to t; nothing if they have one
// key.
func (t *trace) compare(old *trace) []Reason {
	if t.Key == old.Key {
		return nil
	}
	reasons := compareParts(old.Parts, t.Parts)
	other := slices.ContainsFunc(reasons, func(r Reason) bool { return r.Kind == KindInstruction })
	for i, in := range t.Inputs {
		if i < len(old.Inputs) {
			reasons = append(reasons, in.compare(old.Inputs[i], other)...)
		}
	}
	if len(reasons) == 0 {
		reasons = append(reasons, Reason{Kind: KindOption, Name: "the number of inputs", Change: changed})
	}
	return reasons
}

const (
	changed = "changed"
	added   = "added"
	removed = "removed"
)

type partID struct{ kind, name string }

func (c Component) id() partID {
	if c.Kind == KindArg {
		return partID{KindEnv, c.Name} // an argument and a variable of one name are one to the program
	}
	return partID{c.Kind, c.Name}
}

func compareParts(was, is []Component) []Reason {
	old := map[partID]Component{}
	for _, c := range was {
		old[c.id()] = c
	}
	var reasons []Reason
	for _, c := range is {
		o, ok := old[c.id()]
		delete(old, c.id())
		switch {
		case !ok:
			reasons = append(reasons, Reason{Kind: c.Kind, Name: c.Name, Change: added, Is: c.Text})
		case o.Sum != c.Sum:
			kind := c.Kind
			if o.Kind == KindArg {
				kind = KindArg
			}
			reasons = append(reasons, Reason{Kind: kind, Name: c.Name, Change: changed, Was: o.Text, Is: c.Text})
		}
	}
	for _, c := range was {
		if _, gone := old[c.id()]; gone {
			reasons = append(reasons, Reason{Kind: c.Kind, Name: c.Name, Change: removed, Was: c.Text})
		}
	}
	return reasons
}

// compare returns what changed of an input. If the instruction is another
// one, files that only it takes are no news.
func (in inputTrace) compare(old inputTrace, other bool) []Reason {
	if in.Sum == old.Sum {
		return nil
	}
	if in.Kind != KindFile || old.Kind != KindFile {
		r := Reason{Kind: in.Kind, Name: in.Name, Change: changed}
		if in.Kind == KindBase {
			r.Was, r.Is = old.Name, in.Name
		}
		return []Reason{r}
	}
	if len(in.Files) == 0 || len(old.Files) == 0 {
		if other {
			return nil
		}
		return []Reason{{Kind: KindFile, Change: changed}}
	}
	now, before := sameDepth(in.Files, in.Depth, old.Files, old.Depth)
	was := fileSums(before)
	var reasons []Reason
	for i := 0; i+1 < len(now); i += 2 {
		name, sum := now[i], now[i+1]
		o, ok := was[name]
		delete(was, name)
		switch {
		case !ok && !other:
			reasons = append(reasons, Reason{Kind: KindFile, Name: name, Change: added})
		case ok && o != sum:
			reasons = append(reasons, Reason{Kind: KindFile, Name: name, Change: changed})
		}
	}
	for i := 0; i+1 < len(before) && !other; i += 2 {
		if _, gone := was[before[i]]; gone {
			reasons = append(reasons, Reason{Kind: KindFile, Name: before[i], Change: removed})
		}
	}
	slices.SortStableFunc(reasons, func(a, b Reason) int { return cmp.Compare(a.Name, b.Name) })
	return reasons
}

func fileSums(list []string) map[string]string {
	m := make(map[string]string, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		m[list[i]] = list[i+1]
	}
	return m
}
