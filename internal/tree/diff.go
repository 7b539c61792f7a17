package tree

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/shaleproject/shale/internal/layer"
)

// Diff writes the layer that turns lower into upper. It does not close w.
func Diff(ctx context.Context, lower, upper FS, w *layer.Writer) error {
	return fmt.Errorf("compare trees: %w", errdefs.ErrNotImplemented)
}

// Archive writes all of fsys as one layer. It does not close w.
func Archive(ctx context.Context, fsys FS, w *layer.Writer) error {
	return fmt.Errorf("archive tree: %w", errdefs.ErrNotImplemented)
}
