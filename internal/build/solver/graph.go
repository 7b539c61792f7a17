package solver

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	bkerrdefs "github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// Vertex is one step of a build: an operation of LLB and where its inputs
// come from. Two vertices with one digest are the same step.
type Vertex struct {
	Digest digest.Digest
	Name   string
	Op     *pb.Op
	Inputs []Edge

	// IgnoreCache says that the step runs even if its result is known: it was
	// asked for, or a step before it runs for that reason.
	IgnoreCache bool

	// Group is how the display gathers vertices that belong together.
	Group *pb.ProgressGroup

	// Resources bound what an exec may use; nil means no bounds.
	Resources *pb.LinuxResources

	// Sources are the places in the Dockerfile that the step stands for.
	Sources []*bkerrdefs.Source
}

// Edge is one output of a vertex.
type Edge struct {
	Vertex *Vertex
	Index  int
}

// Load makes the graph that def describes and returns its target. A
// definition without operations is scratch: the zero Edge.
//
// The last operation of a definition has no work of its own; its one input
// is the target (solver/pb, Definition).
func Load(def *pb.Definition) (Edge, error) {
	if def == nil || len(def.Def) == 0 {
		return Edge{}, nil
	}
	l := loader{def: def, ops: map[digest.Digest]*pb.Op{}, vertices: map[digest.Digest]*Vertex{}}
	var last *pb.Op
	for _, data := range def.Def {
		op := new(pb.Op)
		if err := op.Unmarshal(data); err != nil {
			return Edge{}, fmt.Errorf("read build graph: %w", err)
		}
		l.ops[digest.FromBytes(data)] = op
		last = op
	}
	if last.Op != nil || len(last.Inputs) != 1 {
		return Edge{}, fmt.Errorf("read build graph: its last operation is no target: %w", errdefs.ErrInvalidArgument)
	}
	return l.edge(last.Inputs[0], 0)
}

// maxDepth bounds how long a chain of steps may be, so that a hostile graph
// ends in an error and not in a stack overflow.
const maxDepth = 100_000

type loader struct {
	def      *pb.Definition
	ops      map[digest.Digest]*pb.Op
	vertices map[digest.Digest]*Vertex
}

func (l *loader) edge(in *pb.Input, depth int) (Edge, error) {
	v, err := l.vertex(digest.Digest(in.Digest), depth)
	if err != nil {
		return Edge{}, err
	}
	if in.Index < 0 {
		return Edge{}, fmt.Errorf("read build graph: output %d of %q: %w", in.Index, v.Name, errdefs.ErrInvalidArgument)
	}
	return Edge{v, int(in.Index)}, nil
}

// vertex is the step with digest d. Graphs have no cycles: an operation
// holds the digests of its inputs.
func (l *loader) vertex(d digest.Digest, depth int) (*Vertex, error) {
	if v, ok := l.vertices[d]; ok {
		return v, nil
	}
	op, ok := l.ops[d]
	if !ok {
		return nil, fmt.Errorf("read build graph: operation %s: %w", d, errdefs.ErrNotFound)
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("read build graph: more than %d steps in a row: %w", maxDepth, errdefs.ErrResourceExhausted)
	}
	v := &Vertex{Digest: d, Op: op, Sources: l.sources(d)}
	for _, in := range op.Inputs {
		e, err := l.edge(in, depth+1)
		if err != nil {
			return nil, err
		}
		v.Inputs = append(v.Inputs, e)
		v.IgnoreCache = v.IgnoreCache || e.Vertex.IgnoreCache
	}
	v.Name = opName(v)
	if meta := l.def.Metadata[string(d)]; meta != nil {
		v.IgnoreCache = v.IgnoreCache || meta.IgnoreCache
		v.Group = meta.ProgressGroup
		v.Resources = meta.LinuxResources
		if name := meta.Description["llb.customname"]; name != "" {
			v.Name = name
		}
	}
	l.vertices[d] = v
	return v, nil
}

func (l *loader) sources(d digest.Digest) []*bkerrdefs.Source {
	if l.def.Source == nil {
		return nil
	}
	locations := l.def.Source.Locations[string(d)]
	if locations == nil {
		return nil
	}
	var sources []*bkerrdefs.Source
	for _, loc := range locations.Locations {
		if loc.SourceIndex < 0 || int(loc.SourceIndex) >= len(l.def.Source.Infos) {
			continue
		}
		sources = append(sources, &bkerrdefs.Source{Info: l.def.Source.Infos[loc.SourceIndex], Ranges: loc.Ranges})
	}
	return sources
}

// opName is what a step is called that the front end has given no name.
func opName(v *Vertex) string {
	switch op := v.Op.Op.(type) {
	case *pb.Op_Source:
		return op.Source.Identifier
	case *pb.Op_Exec:
		return strings.Join(op.Exec.GetMeta().GetArgs(), " ")
	case *pb.Op_File:
		return fileName(op.File)
	case *pb.Op_Merge:
		return "merge (" + inputNames(v, ", ") + ")"
	case *pb.Op_Diff:
		return "diff " + inputNames(v, " -> ")
	}
	return "unknown"
}

func fileName(op *pb.FileOp) string {
	var names []string
	for _, action := range op.Actions {
		switch a := action.Action.(type) {
		case *pb.FileAction_Mkdir:
			names = append(names, "mkdir "+a.Mkdir.Path)
		case *pb.FileAction_Mkfile:
			names = append(names, "mkfile "+a.Mkfile.Path)
		case *pb.FileAction_Symlink:
			names = append(names, "symlink "+a.Symlink.Newpath+" -> "+a.Symlink.Oldpath)
		case *pb.FileAction_Rm:
			names = append(names, "rm "+a.Rm.Path)
		case *pb.FileAction_Copy:
			names = append(names, "copy "+a.Copy.Src+" "+a.Copy.Dest)
		}
	}
	return strings.Join(names, ", ")
}

func inputNames(v *Vertex, separator string) string {
	var names []string
	for _, in := range v.Inputs {
		names = append(names, in.Vertex.Name)
	}
	return strings.Join(names, separator)
}
