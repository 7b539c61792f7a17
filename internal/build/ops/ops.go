// Package ops has the operations that the steps of a build carry out: one
// file an operation.
//
// An operation takes refs and yields refs. All but exec work in memory and
// write one layer to the store: they need no mount and no privilege. What an
// operation does depends on its description, its inputs and the times in
// [Tools], and on nothing else of this machine.
package ops

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/solver/pb"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/tree"
)

// Tools are what the operations of one build work with.
type Tools struct {
	Store *store.Store
	Lease *store.Lease
	Pool  *ref.Pool

	// Contexts are the trees that local sources name.
	Contexts map[string]tree.FS

	// Images finds the layers of base images.
	Images Images

	// Now is the clock: the time of what has no other, and of history.
	Now func() time.Time

	// Epoch, if not nil, is the latest time that new layers may hold
	// (SOURCE_DATE_EPOCH).
	Epoch *time.Time

	// Exact says that Epoch is the time of all that is made, even if the
	// clock is behind it, and that the contexts have no time of their own.
	Exact bool

	// Platform is the one that this machine runs.
	Platform ocispec.Platform

	// Transport carries downloads; nil is Go's default.
	Transport http.RoundTripper

	Runner Runner

	// Found, if not nil, is told the digest or the commit behind the
	// identifier of a source, as soon as a server has said it.
	Found func(source, sum string)

	// Dated, if not nil, is told when what is behind the identifier of a
	// source was committed or last modified.
	Dated func(source string, at time.Time)

	sweep sync.Once // of what killed builds left
}

func (t *Tools) found(source, sum string) {
	if t.Found != nil {
		t.Found(source, sum)
	}
}

func (t *Tools) dated(source string, at time.Time) {
	if t.Dated != nil {
		t.Dated(source, at)
	}
}

// New returns the operation that v describes.
func New(t *Tools, v *solver.Vertex) (solver.Operation, error) {
	switch op := v.Op.Op.(type) {
	case *pb.Op_Source:
		return newSource(t, v, op.Source)
	case *pb.Op_File:
		return newFile(t, v, op.File)
	case *pb.Op_Exec:
		return newExec(t, v, op.Exec)
	case *pb.Op_Merge:
		return &merge{tools: t, op: op.Merge}, nil
	case *pb.Op_Diff:
		return &diff{tools: t, op: op.Diff, name: v.Name}, nil
	}
	return nil, fmt.Errorf("run %q: operation %T: %w", v.Name, v.Op.Op, errdefs.ErrNotImplemented)
}

// cheap is the part of an operation that costs less than a look at the cache.
type cheap struct{}

func (cheap) Key() []byte          { return nil }
func (cheap) Sees(int) *cache.View { return nil }

// input is the ref with number i; -1 is scratch.
func (t *Tools) input(in []*ref.Ref, i int64) (*ref.Ref, error) {
	if i == int64(pb.Empty) {
		return t.Pool.Stack(nil), nil
	}
	if i < 0 || i >= int64(len(in)) {
		return nil, badIndex(i, len(in))
	}
	return in[i], nil
}

func badIndex(i int64, n int) error {
	return fmt.Errorf("read build graph: input %d of %d: %w", i, n, errdefs.ErrInvalidArgument)
}

// now is the time of what is made now, cut to what a layer can hold.
func (t *Tools) now() time.Time {
	now := t.Now().UTC()
	if t.Epoch != nil && (t.Exact || now.After(*t.Epoch)) {
		return *t.Epoch
	}
	return now
}

// latest is Epoch as tree wants it.
func (t *Tools) latest() time.Time {
	if t.Epoch == nil {
		return time.Time{}
	}
	return *t.Epoch
}

// epoch is Epoch as keys have it.
func (t *Tools) epoch() string {
	switch {
	case t.Epoch == nil:
		return "none"
	case t.Exact:
		return fmt.Sprintf("=%d", t.Epoch.Unix())
	}
	return fmt.Sprint(t.Epoch.Unix())
}

// key makes the description of a step: what it is, its operation, and the
// latest time that its layer may hold.
func (t *Tools) key(kind string, op []byte) []byte {
	return append([]byte(kind+"\x00"+t.epoch()+"\x00"), op...)
}
