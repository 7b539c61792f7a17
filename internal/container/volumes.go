package container

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/volume"
)

// volumes checks the names of the volumes and names the anonymous ones. They
// are made when the container starts.
func (c *Containers) volumes(r *record) error {
	for i := range r.config.Mounts {
		m := &r.config.Mounts[i]
		if m.Type != MountVolume {
			continue
		}
		if m.Source == "" {
			m.Source, m.Anonymous = NewID(), true
		}
		if err := volume.CheckName(m.Source); err != nil {
			return err
		}
		if _, _, err := c.Volumes.Create(m.Source, nil, c.Now()); err != nil {
			return err
		}
	}
	return nil
}

// VolumeUsers lists the containers that mount the volume called name.
func (c *Containers) VolumeUsers(ctx context.Context, name string) ([]string, error) {
	all, err := c.all(ctx)
	if err != nil {
		return nil, err
	}
	var users []string
	for _, r := range all {
		for _, m := range r.config.Mounts {
			if m.Type == MountVolume && m.Source == name {
				users = append(users, r.config.ID)
			}
		}
	}
	return users, nil
}

// RemoveVolume removes a volume that no container has.
func (c *Containers) RemoveVolume(ctx context.Context, name string) error {
	users, err := c.VolumeUsers(ctx, name)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("remove %s: volume is in use - %v: %w", name, users, errdefs.ErrConflict)
	}
	return c.Volumes.Remove(name)
}
