package engine

import (
	"context"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/store"
)

// DiskUsage says where the bytes of the store are, and which of them are in
// use.
func (e *Engine) DiskUsage(ctx context.Context) (store.Usage, error) {
	containers, err := e.Containers()
	if err != nil {
		return store.Usage{}, err
	}
	u, err := containers.Store.Usage(ctx)
	if err != nil {
		return u, err
	}
	list, err := containers.List(ctx, container.ListOptions{All: true, Size: true})
	if err != nil {
		return u, err
	}
	u.Containers.Reclaimable = u.Containers.Size
	inUse := map[string]bool{}
	for _, c := range list {
		if c.Status == container.Running {
			u.Containers.Active++
			u.Containers.Reclaimable -= c.Size
		}
		for _, m := range c.Mounts {
			inUse[m] = true
		}
	}
	u.Containers.Reclaimable = max(u.Containers.Reclaimable, 0)
	volumes, err := containers.Volumes.List()
	if err != nil {
		return u, err
	}
	for _, v := range volumes {
		if inUse[v.Name] {
			u.Volumes.Active++
		}
	}
	if u.Volumes.Active == 0 {
		u.Volumes.Reclaimable = u.Volumes.Size
	}
	return u, nil
}
