package solver

import (
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// define makes a definition of operations whose last is the target's.
func define(t *testing.T, ops ...*pb.Op) *pb.Definition {
	t.Helper()
	def := &pb.Definition{Metadata: map[string]*pb.OpMetadata{}}
	for _, op := range ops {
		data, err := op.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		def.Def = append(def.Def, data)
	}
	return def
}

func digestOf(t *testing.T, op *pb.Op) string {
	t.Helper()
	data, err := op.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(digest.FromBytes(data))
}

func source(name string) *pb.Op {
	return &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: name}}}
}

func TestAGraphIsLoadedFromItsTarget(t *testing.T) {
	base := source("docker-image://base")
	run := &pb.Op{
		Inputs: []*pb.Input{{Digest: digestOf(t, base)}},
		Op:     &pb.Op_Exec{Exec: &pb.ExecOp{Meta: &pb.Meta{Args: []string{"make", "all"}}}},
	}
	def := define(t, base, run, source("local://unused"), &pb.Op{Inputs: []*pb.Input{{Digest: digestOf(t, run)}}})
	def.Metadata[digestOf(t, base)] = &pb.OpMetadata{
		IgnoreCache: true, Description: map[string]string{"llb.customname": "FROM base"},
	}
	target, err := Load(def)
	if err != nil {
		t.Fatal(err)
	}
	v := target.Vertex
	if v.Name != "make all" || len(v.Inputs) != 1 || v.Inputs[0].Vertex.Name != "FROM base" {
		t.Errorf("graph is %+v", v)
	}
	if !v.IgnoreCache {
		t.Error("a step after one that ignores the cache does not")
	}
}

func TestScratchIsNoVertex(t *testing.T) {
	for _, def := range []*pb.Definition{nil, {}} {
		if target, err := Load(def); err != nil || target.Vertex != nil {
			t.Errorf("%v: %v, error %v", def, target, err)
		}
	}
}

func TestAMalformedGraphIsAnError(t *testing.T) {
	some := source("local://x")
	for name, def := range map[string]*pb.Definition{
		"no target":       define(t, some),
		"missing input":   define(t, some, &pb.Op{Inputs: []*pb.Input{{Digest: "sha256:" + strings.Repeat("0", 64)}}}),
		"negative output": define(t, some, &pb.Op{Inputs: []*pb.Input{{Digest: digestOf(t, some), Index: -1}}}),
		"two targets":     define(t, some, &pb.Op{Inputs: []*pb.Input{{Digest: digestOf(t, some)}, {Digest: digestOf(t, some)}}}),
		"no protobuf":     {Def: [][]byte{{0xff}}},
	} {
		if _, err := Load(def); err == nil {
			t.Errorf("%s: it was loaded", name)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		_, _ = Load(&pb.Definition{Def: [][]byte{one, two}})
	})
}
