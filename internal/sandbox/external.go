package sandbox

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
)

func startExternal(context.Context, Config) (*Sandbox, error) {
	return nil, fmt.Errorf("start sandbox with another runtime: %w", errdefs.ErrNotImplemented)
}
