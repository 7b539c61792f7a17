package ops

import (
	"context"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/solver/pb"

	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/tree"
)

// merge lays its inputs upon each other: their layers one after the other.
type merge struct {
	cheap
	tools *Tools
	op    *pb.MergeOp
}

func (op *merge) Run(ctx context.Context, in []*ref.Ref, _ *solver.Step) ([]*ref.Ref, error) {
	var all []ref.Layer
	for _, input := range op.op.Inputs {
		r, err := op.tools.input(in, input.Input)
		if err != nil {
			return nil, err
		}
		layers, err := r.Layers(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, layers...)
	}
	return []*ref.Ref{op.tools.Pool.Stack(all)}, nil
}

// diff is what has to be laid upon its lower input to get the upper one.
type diff struct {
	cheap
	tools *Tools
	op    *pb.DiffOp
	name  string
}

// Run finds the answer among the layers, nearly always.
func (op *diff) Run(ctx context.Context, in []*ref.Ref, _ *solver.Step) ([]*ref.Ref, error) {
	if op.op.Lower == nil || op.op.Upper == nil {
		return nil, fmt.Errorf("read build graph: difference without two sides: %w", errdefs.ErrInvalidArgument)
	}
	lower, err := op.tools.input(in, op.op.Lower.Input)
	if err != nil {
		return nil, err
	}
	upper, err := op.tools.input(in, op.op.Upper.Input)
	if err != nil {
		return nil, err
	}
	below, err := lower.Layers(ctx)
	if err != nil {
		return nil, err
	}
	above, err := upper.Layers(ctx)
	if err != nil {
		return nil, err
	}
	if len(above) >= len(below) && slices.EqualFunc(below, above[:len(below)], sameLayer) {
		return []*ref.Ref{op.tools.Pool.Stack(above[len(below):])}, nil
	}
	return op.compare(ctx, lower, upper)
}

func sameLayer(a, b ref.Layer) bool { return a.Digest == b.Digest }

// compare makes the layer out of the two trees.
func (op *diff) compare(ctx context.Context, lower, upper *ref.Ref) ([]*ref.Ref, error) {
	from, err := lower.FS()
	if err != nil {
		return nil, err
	}
	to, err := upper.FS()
	if err != nil {
		return nil, err
	}
	l, err := op.tools.Pool.Write(ctx, ref.Layer{Created: op.tools.now(), By: op.name}, func(w *layer.Writer) error {
		return tree.Diff(ctx, from, to, w)
	})
	if err != nil {
		return nil, err
	}
	return []*ref.Ref{op.tools.Pool.Stack([]ref.Layer{l})}, nil
}
