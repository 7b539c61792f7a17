package container

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/network"
)

// ListOptions say which containers List returns.
type ListOptions struct {
	// All lists those that don't run, too.
	All bool
	// Last lists only the newest n, whatever they do; 0 means no limit.
	Last int
	// Filters are Docker's: id, name, label, status, exited, ancestor,
	// before, since, volume, network, publish, expose.
	Filters image.Filters
	// Size measures the files that each container has written.
	Size bool
}

// Summary is a container in a list.
type Summary struct {
	ID, Name string
	Image    string
	ImageID  digest.Digest
	Command  []string
	Created  time.Time
	State    State
	Status   Status
	Labels   map[string]string
	Mounts   []string
	Network  string
	Ports    []network.Port
	Exposed  []string
	// Size is what the container wrote and Virtual that with the layers
	// below it, in bytes; both are measured only if they were asked for.
	Size, Virtual int64
}

// filterKeys are those that ps knows.
var filterKeys = []string{"id", "name", "label", "status", "exited", "ancestor", "before", "since", "volume", "network", "publish", "expose", "health", "is-task"}

// List returns containers, newest first.
func (c *Containers) List(ctx context.Context, o ListOptions) ([]Summary, error) {
	for key := range o.Filters {
		if !slices.Contains(filterKeys, strings.TrimSuffix(key, "!")) {
			return nil, because(errdefs.ErrInvalidArgument, "invalid filter '%s'", key)
		}
	}
	all, err := c.all(ctx)
	if err != nil {
		return nil, err
	}
	if o.Last > 0 && len(all) > o.Last {
		all = all[:o.Last]
	}
	var list []Summary
	for _, r := range all {
		hidden := !r.running && !o.All && o.Last <= 0 && len(o.Filters["status"]) == 0 && len(o.Filters["exited"]) == 0
		if hidden {
			continue
		}
		keep, err := c.matches(ctx, r, all, o.Filters)
		if err != nil {
			return nil, err
		}
		if !keep {
			continue
		}
		s := r.summary()
		if o.Size {
			if s.Size, err = r.size(); err != nil {
				return nil, err
			}
			s.Virtual = s.Size
			for _, layer := range r.config.Layers {
				if n, err := c.Store.Stat(layer); err == nil {
					s.Virtual += n
				}
			}
		}
		list = append(list, s)
	}
	return list, nil
}

// status is what the container does now.
func (r *record) status() Status {
	switch {
	case !r.running:
		return r.state.Status
	case r.state.Status == Restarting:
		return Restarting
	case r.state.Pid != 0:
		if _, err := os.Lstat(r.path(pauseFile)); err == nil {
			return Paused
		}
		return Running
	}
	return Created // owned, and on its way
}

func (r *record) summary() Summary {
	s := Summary{
		ID: r.config.ID, Name: r.config.Name, Image: r.config.Image, ImageID: r.config.ImageID,
		Command: r.config.Process.Args(), Created: r.config.Created, State: r.state, Status: r.status(),
		Labels: r.config.Labels, Network: r.config.Network.Mode, Exposed: r.config.Network.Expose,
	}
	if r.running {
		s.Ports = r.state.Endpoint.Ports
	}
	for _, m := range r.config.Mounts {
		if m.Type != MountTmpfs {
			s.Mounts = append(s.Mounts, m.Source)
		}
	}
	return s
}

// size adds up what the container wrote.
func (r *record) size() (int64, error) {
	var total int64
	err := filepath.WalkDir(r.path(upperDir), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // removed meanwhile, or never started
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total, err
}

// matches applies Docker's filters: values of one key are alternatives,
// except labels.
func (c *Containers) matches(ctx context.Context, r *record, all []*record, filters image.Filters) (bool, error) {
	for key, values := range filters {
		ok, err := c.matchesKey(ctx, r, all, strings.TrimSuffix(key, "!"), values)
		if err != nil {
			return false, err
		}
		if ok == strings.HasSuffix(key, "!") {
			return false, nil
		}
	}
	return true, nil
}

func (c *Containers) matchesKey(ctx context.Context, r *record, all []*record, key string, values []string) (bool, error) {
	if key == "label" {
		for _, v := range values {
			name, want, valued := strings.Cut(v, "=")
			if have, found := r.config.Labels[name]; !found || valued && have != want {
				return false, nil
			}
		}
		return true, nil
	}
	for _, v := range values {
		ok, err := c.matchesValue(ctx, r, all, key, v)
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (c *Containers) matchesValue(ctx context.Context, r *record, all []*record, key, v string) (bool, error) {
	switch key {
	case "id":
		return strings.HasPrefix(r.config.ID, v), nil
	case "name":
		return matchName(r.config.Name, v)
	case "status":
		switch Status(v) {
		case Created, Running, Paused, Restarting, Exited, "removing", "dead":
			return r.status() == Status(v), nil
		}
		return false, because(errdefs.ErrInvalidArgument, "invalid filter 'status=%s'", v)
	case "exited":
		code, err := strconv.Atoi(v)
		if err != nil {
			return false, because(errdefs.ErrInvalidArgument, "invalid filter 'exited=%s'", v)
		}
		return r.status() == Exited && r.state.ExitCode == code, nil
	case "ancestor":
		return c.descends(ctx, r, v), nil
	case "before", "since":
		other, err := c.lookup(v)
		if err != nil {
			return false, err
		}
		for _, a := range all {
			if a.config.ID == other {
				return key == "before" == r.config.Created.Before(a.config.Created) && a != r, nil
			}
		}
		return false, nil
	case "volume":
		return slices.ContainsFunc(r.config.Mounts, func(m Mount) bool { return m.Source == v || m.Target == v }), nil
	case "network":
		return r.config.Network.Mode == v, nil
	case "publish", "expose":
		return r.hasPort(key, v)
	case "health":
		return v == "none", nil
	case "is-task":
		return v == "false", nil
	}
	return false, nil
}

// descends tells whether the container was made of the image v.
func (c *Containers) descends(ctx context.Context, r *record, v string) bool {
	if r.config.Image == v || image.Familiar(r.config.Image) == image.Familiar(v) {
		return true
	}
	img, err := c.Images.Get(ctx, v, nil)
	return err == nil && img.ConfigDigest == r.config.ImageID
}

func (r *record) hasPort(key, v string) (bool, error) {
	ports, err := network.ParsePort(v)
	if err != nil {
		return false, err
	}
	for _, p := range ports {
		if key == "expose" && slices.Contains(r.config.Network.Expose, fmt.Sprintf("%d/%s", p.ContainerPort, p.Protocol)) {
			return true, nil
		}
		if slices.ContainsFunc(r.config.Network.Publish, func(q network.Port) bool {
			return q.ContainerPort == p.ContainerPort && q.Protocol == p.Protocol
		}) {
			return true, nil
		}
	}
	return false, nil
}
