package gateway

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"

	"github.com/shaleproject/shale/internal/tree"
)

// MainContext is the build context as the steps of a Dockerfile see it: what
// the ignore file leaves of it. The front end's own code finds both.
func (c *Client) MainContext(ctx context.Context) (tree.FS, error) {
	front, err := dockerui.NewClient(c)
	if err != nil {
		return nil, err
	}
	// The Dockerfile may have an ignore file of its own.
	if _, err := front.ReadEntrypoint(ctx, "Dockerfile"); err != nil {
		return nil, err
	}
	state, err := front.MainContext(ctx)
	if err != nil {
		return nil, err
	}
	def, err := state.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	res, err := c.Solve(ctx, client.SolveRequest{Definition: def.ToPB()})
	if err != nil {
		return nil, err
	}
	r, ok := res.Ref.(*Reference)
	if !ok {
		return nil, fmt.Errorf("read build context: the front end has handed over no file system: %w", errdefs.ErrInternal)
	}
	return r.FS()
}
