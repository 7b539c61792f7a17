package attest

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// steps are the operations of a graph, each after its inputs.
type steps struct {
	def   *pb.Definition
	order []digest.Digest
	ops   map[digest.Digest]*pb.Op
	index map[digest.Digest]int
}

// config and source are BuildKit's words for the graph (solver/llbsolver/
// provenance/types).
type (
	config struct {
		Steps   []step                   `json:"llbDefinition,omitempty"`
		Mapping map[digest.Digest]string `json:"digestMapping,omitempty"`
	}
	step struct {
		ID     string   `json:"id"`
		Op     *pb.Op   `json:"op,omitempty"`
		Inputs []string `json:"inputs,omitempty"`
	}
	source struct {
		Locations map[string]*pb.Locations `json:"locations,omitempty"`
		Infos     []sourceInfo             `json:"infos,omitempty"`
	}
	sourceInfo struct {
		Filename string `json:"filename,omitempty"`
		Language string `json:"language,omitempty"`
		Data     []byte `json:"data,omitempty"`
	}
)

// load reads a graph, whose last operation stands for its result.
func load(def *pb.Definition) (*steps, error) {
	s := &steps{def: def, ops: map[digest.Digest]*pb.Op{}, index: map[digest.Digest]int{}}
	if def == nil || len(def.Def) == 0 {
		return s, nil // scratch
	}
	var last digest.Digest
	for _, data := range def.Def {
		op := new(pb.Op)
		if err := op.Unmarshal(data); err != nil {
			return nil, fmt.Errorf("read build graph: %w", err)
		}
		last = digest.FromBytes(data)
		s.ops[last] = op
	}
	return s, s.walk(last)
}

// walk appends what d needs, then d. It has a stack of its own: a graph may be
// one long chain.
func (s *steps) walk(d digest.Digest) error {
	type frame struct {
		d    digest.Digest
		next int
	}
	seen := map[digest.Digest]bool{d: true}
	for stack := []frame{{d: d}}; len(stack) > 0; {
		top := &stack[len(stack)-1]
		op, ok := s.ops[top.d]
		if !ok {
			return fmt.Errorf("read build graph: operation %s: %w", top.d, errdefs.ErrNotFound)
		}
		if top.next < len(op.Inputs) {
			in := digest.Digest(op.Inputs[top.next].Digest)
			top.next++
			if !seen[in] {
				seen[in] = true
				stack = append(stack, frame{d: in})
			}
			continue
		}
		s.index[top.d] = len(s.order)
		s.order = append(s.order, top.d)
		stack = stack[:len(stack)-1]
	}
	return nil
}

func stepID(n int) string { return fmt.Sprintf("step%d", n) }

func (s *steps) inputs(op *pb.Op) []string {
	var list []string
	for _, in := range op.Inputs {
		list = append(list, fmt.Sprintf("%s:%d", stepID(s.index[digest.Digest(in.Digest)]), in.Index))
	}
	return list
}

// last names the output that is the image.
func (s *steps) last() string {
	if len(s.order) == 0 {
		return ""
	}
	if in := s.inputs(s.ops[s.order[len(s.order)-1]]); len(in) == 1 {
		return in[0]
	}
	return ""
}

// network tells whether a step could reach others.
func (s *steps) network() bool {
	for _, op := range s.ops {
		if exec := op.GetExec(); exec != nil && exec.Network != pb.NetMode_NONE {
			return true
		}
	}
	return false
}

// confidants are the ids of the secrets and agents that steps are given.
func (s *steps) confidants() (secrets, agents map[string]bool) {
	secrets, agents = map[string]bool{}, map[string]bool{}
	for _, op := range s.ops {
		exec := op.GetExec()
		for _, m := range exec.GetMounts() {
			if m.SecretOpt != nil {
				secrets[m.SecretOpt.ID] = true
			}
			if m.SSHOpt != nil {
				agents[m.SSHOpt.ID] = true
			}
		}
		for _, env := range exec.GetSecretenv() {
			secrets[env.ID] = true
		}
	}
	return secrets, agents
}

// config shows every step, but for what only one build has.
func (s *steps) config(scrub *scrubber) *config {
	c := &config{Mapping: map[digest.Digest]string{}}
	for n, d := range s.order {
		c.Mapping[d] = stepID(n)
		c.Steps = append(c.Steps, step{ID: stepID(n), Inputs: s.inputs(s.ops[d]), Op: tell(s.ops[d], scrub)})
	}
	return c
}

// tell returns op without what must not be told and the scrubber would not
// find: what is encoded, and headers that may be a password.
func tell(op *pb.Op, scrub *scrubber) *pb.Op {
	op = op.CloneVT()
	op.Inputs = nil
	if meta := op.GetExec().GetMeta(); meta != nil {
		meta.ProxyEnv = nil
	}
	for _, a := range op.GetFile().GetActions() {
		if f := a.GetMkfile(); f != nil {
			f.Data = []byte(scrub.text(string(f.Data)))
		}
	}
	if src := op.GetSource(); src != nil {
		for key := range src.Attrs {
			switch {
			case key == "local.session", key == "local.unique":
				delete(src.Attrs, key)
			case strings.HasPrefix(key, pb.AttrHTTPHeaderPrefix):
				src.Attrs[key] = mask
			}
		}
	}
	return op
}

// source shows the Dockerfile, and which lines of it the steps stand for.
func (s *steps) source(scrub *scrubber) *source {
	if s.def == nil || s.def.Source == nil || len(s.def.Source.Infos) == 0 {
		return nil
	}
	out := &source{Locations: map[string]*pb.Locations{}}
	for _, info := range s.def.Source.Infos {
		out.Infos = append(out.Infos, sourceInfo{info.Filename, info.Language, []byte(scrub.text(string(info.Data)))})
	}
	for d, where := range s.def.Source.Locations {
		if n, ok := s.index[digest.Digest(d)]; ok {
			out.Locations[stepID(n)] = where
		}
	}
	return out
}
