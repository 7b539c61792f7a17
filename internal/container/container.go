// Package container keeps containers: what they were made of, whether they
// run, what they wrote, and what is left of them.
//
// A container is a directory in the store. No daemon knows of it; these rules
// take a daemon's place:
//
//   - one process owns a running container, the one in the foreground or a
//     monitor, and holds the lock on the file "running" for as long;
//   - a container runs if that lock is held. What state.json says of a
//     container whose lock is free is history, or the word of an owner that
//     was killed: the next command that looks puts it right;
//   - the container's processes die with the owner;
//   - config.json does not change after the creation, except for the name.
//
// What an image says is data. No label, annotation or path in an image steers
// anything here.
package container

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/network"
	"github.com/shaleproject/shale/internal/progress"
	"github.com/shaleproject/shale/internal/rootfs"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/volume"
)

// Containers are those of one store. Its methods may be called from any
// number of goroutines and processes at once.
type Containers struct {
	Store    *store.Store
	Images   *image.Images
	Networks *network.Networks
	Volumes  *volume.Volumes

	// Rootfs returns the driver that stacks layers. It is asked only when a
	// container starts.
	Rootfs func() (rootfs.Driver, error)

	// Runtime is the path of an OCI runtime binary; empty means the one that
	// is linked in.
	Runtime string

	// Monitor returns the command that calls RunMonitor for a container in a
	// process of its own.
	Monitor func(id string) (*exec.Cmd, error)

	// Now is the clock.
	Now func() time.Time
}

// IO is where a container's streams go while somebody looks on. Each may be
// nil.
type IO struct {
	In       io.Reader
	Out, Err io.Writer

	// Resize delivers the sizes of the person's terminal, the first one
	// included.
	Resize <-chan Size
}

// Size is that of a terminal, in characters.
type Size struct{ Width, Height uint16 }

// find returns the container that name means: its name, its id or the start
// of its id.
func (c *Containers) find(name string) (*record, error) {
	if name == "" {
		return nil, because(errdefs.ErrInvalidArgument, "find container: name is empty")
	}
	id, err := c.lookup(strings.TrimPrefix(name, "/"))
	if err != nil {
		return nil, err
	}
	r, err := c.load(id)
	if err != nil {
		return nil, err
	}
	return r, c.settle(r)
}

func (c *Containers) lookup(name string) (string, error) {
	if id, err := c.owner(name); err == nil {
		return id, nil
	} else if !errors.Is(err, errdefs.ErrNotFound) {
		return "", err
	}
	ids, err := c.Store.Containers()
	if err != nil {
		return "", err
	}
	if slices.Contains(ids, name) {
		return name, nil
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !strings.HasPrefix(id, name) })
	switch len(ids) {
	case 0:
		return "", because(errdefs.ErrNotFound, "no such container: %s", name)
	case 1:
		return ids[0], nil
	}
	return "", because(errdefs.ErrInvalidArgument, "find container %s: several ids begin with it", name)
}

// Users lists the containers as users of images.
func (c *Containers) Users(ctx context.Context) ([]image.User, error) {
	all, err := c.all(ctx)
	if err != nil {
		return nil, err
	}
	users := make([]image.User, 0, len(all))
	for _, r := range all {
		users = append(users, image.User{Container: r.config.ID, Image: r.config.ImageID, Running: r.running})
	}
	return users, nil
}

// all loads every container, newest first. One that is made or removed
// meanwhile is left out.
func (c *Containers) all(ctx context.Context) ([]*record, error) {
	ids, err := c.Store.Containers()
	if err != nil {
		return nil, err
	}
	var all []*record
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r, err := c.load(id)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := c.settle(r); errors.Is(err, errdefs.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b *record) int { return b.config.Created.Compare(a.config.Created) })
	return all, nil
}

// PullPolicy says when `run` and `create` pull an image.
type PullPolicy string

// Docker's policies.
const (
	PullMissing PullPolicy = "missing"
	PullAlways  PullPolicy = "always"
	PullNever   PullPolicy = "never"
)

// CreateOptions are a container to be made.
type CreateOptions struct {
	Name  string
	Image string
	// Platform is the one wanted, as --platform gives it; empty means the
	// default.
	Platform string
	Pull     PullPolicy
	Progress progress.Sink

	Settings
}
