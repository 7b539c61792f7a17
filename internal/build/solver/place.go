package solver

import (
	"fmt"
	"regexp"
	"sync"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shaleproject/shale/internal/build/cache"
)

// numbered knows the names that the front end gives to instructions:
// "[stage 2/5] COPY . /app".
var numbered = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^\[(.*?)(\d+)/\d+\] `)
})

// place is where v is in the Dockerfile: its stage and its number there. What
// the front end gives no number is known by its name.
func (v *Vertex) place() string {
	kind := fmt.Sprintf("%T ", v.Op.Op)
	if m := numbered().FindStringSubmatch(v.Name); m != nil {
		return kind + m[1] + m[2]
	}
	return kind + v.Name
}

// journalStep is v as the journal knows it.
func journalStep(v *Vertex, op Operation) cache.Step {
	s := cache.Step{Digest: v.Digest, Place: v.place(), Name: v.Name}
	if d, ok := op.(described); ok {
		s.Parts = d.Parts()
	} else {
		s.Parts = []cache.Component{{Kind: cache.KindInstruction, Sum: cache.Sum(op.Key()), Text: v.Name}}
	}
	for _, in := range v.Inputs {
		source, ok := in.Vertex.Op.Op.(*pb.Op_Source)
		base := ok && len(source.Source.Identifier) > len(imageScheme) && source.Source.Identifier[:len(imageScheme)] == imageScheme
		name := in.Vertex.Name
		if base {
			name = source.Source.Identifier[len(imageScheme):]
		}
		s.Inputs = append(s.Inputs, cache.Input{Name: name, Base: base})
	}
	return s
}

const imageScheme = "docker-image://"
