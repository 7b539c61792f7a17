package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/tree"
	"github.com/shaleproject/shale/internal/volume"
)

// volumes makes the volumes of a container that is being created, names the
// anonymous ones, and fills those that are empty with what the image has in
// their place.
func (c *Containers) volumes(ctx context.Context, r *record) error {
	var files *imageTree
	defer func() { files.Close() }()
	for i := range r.config.Mounts {
		m := &r.config.Mounts[i]
		if m.Type != MountVolume {
			continue
		}
		if m.Source == "" {
			m.Source, m.Anonymous = NewID(), true
		}
		v, _, err := c.Volumes.Create(m.Source, nil, c.Now())
		if err != nil {
			return err
		}
		if m.NoCopy {
			continue
		}
		if empty, err := isEmpty(v.Mountpoint); err != nil || !empty {
			if err != nil {
				return err
			}
			continue
		}
		if files == nil {
			if files, err = openImage(c.Store, r.config.Layers); err != nil {
				return err
			}
		}
		if err := fill(ctx, v, files, m.Target); err != nil {
			return fmt.Errorf("copy %s of the image into volume %s: %w", m.Target, v.Name, err)
		}
	}
	return nil
}

func isEmpty(dir string) (bool, error) {
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	_, err = d.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// imageTree are the layers of an image as one tree.
type imageTree struct {
	tree.FS
	layers []*store.Layer
}

func openImage(s *store.Store, layers []digest.Digest) (*imageTree, error) {
	t := &imageTree{}
	var stack []tree.FS
	for _, d := range layers {
		l, err := s.Layer(d)
		if err != nil {
			t.Close()
			return nil, err
		}
		t.layers = append(t.layers, l)
		stack = append(stack, l)
	}
	t.FS = tree.Stack(stack...)
	return t, nil
}

// Close closes the layers; a nil tree has none.
func (t *imageTree) Close() {
	if t == nil {
		return
	}
	for _, l := range t.layers {
		_ = l.Close() // only read
	}
}

// fill copies the directory at target of the image into an empty volume, with
// owners, modes and attributes, its own included. If there is none, the volume
// stays empty.
//
// The tree is read in user space and unpacked like a layer, by code that
// keeps to a directory whatever the names and links in a stranger's tree are.
func fill(ctx context.Context, v volume.Volume, files *imageTree, target string) error {
	path, err := tree.Resolve(files, strings.TrimPrefix(target, "/"))
	if err != nil {
		return err
	}
	info, err := fs.Stat(files, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !info.IsDir() {
		return err
	}
	changes := tree.Edit(nil)
	defer changes.Close()
	if err := changes.Copy(ctx, files, path, "/", tree.CopyOptions{DirContents: true}); err != nil {
		return err
	}
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		tar := layer.NewWriter(w)
		err := changes.WriteLayer(ctx, tar)
		if err == nil {
			err = tar.Close()
		}
		w.CloseWithError(err)
		written <- err
	}()
	err = layer.Unpack(ctx, r, v.Mountpoint, layer.UnpackOptions{})
	r.CloseWithError(err)
	if err := errors.Join(err, <-written); err != nil {
		return err
	}
	stat, ok := info.Sys().(*layer.Stat)
	if !ok {
		return nil
	}
	if err := os.Chown(v.Mountpoint, int(stat.UID), int(stat.GID)); err != nil {
		return err
	}
	return os.Chmod(v.Mountpoint, info.Mode())
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
		return because(errdefs.ErrConflict, "remove %s: volume is in use - %v", name, users)
	}
	return c.Volumes.Remove(name)
}

// PruneVolumes removes the volumes that no container has: the anonymous ones
// or, with all, those with names, too. It returns their names.
func (c *Containers) PruneVolumes(ctx context.Context, all bool) (removed []string, err error) {
	volumes, err := c.Volumes.List()
	if err != nil {
		return nil, err
	}
	for _, v := range volumes {
		// An anonymous volume is called by 64 digits.
		if !all && len(v.Name) != 64 {
			continue
		}
		err := c.RemoveVolume(ctx, v.Name)
		switch {
		case err == nil:
			removed = append(removed, v.Name)
		case !errors.Is(err, errdefs.ErrConflict) && !errors.Is(err, errdefs.ErrNotFound):
			return removed, err
		}
	}
	return removed, nil
}

// ListVolumes returns the volumes that match Docker's filters: name, label,
// dangling and driver.
func (c *Containers) ListVolumes(ctx context.Context, filters image.Filters) ([]volume.Volume, error) {
	volumes, err := c.Volumes.List()
	if err != nil {
		return nil, err
	}
	var kept []volume.Volume
	for _, v := range volumes {
		keep := true
		for key, values := range filters {
			ok, err := c.volumeMatches(ctx, v, key, values)
			if err != nil {
				return nil, err
			}
			keep = keep && ok
		}
		if keep {
			kept = append(kept, v)
		}
	}
	return kept, nil
}

func (c *Containers) volumeMatches(ctx context.Context, v volume.Volume, key string, values []string) (bool, error) {
	for _, value := range values {
		ok := false
		switch key {
		case "name":
			ok = strings.Contains(v.Name, value)
		case "driver":
			ok = v.Driver == value
		case "label":
			name, want, valued := strings.Cut(value, "=")
			have, found := v.Labels[name]
			ok = found && (!valued || have == want)
		case "dangling":
			users, err := c.VolumeUsers(ctx, v.Name)
			if err != nil {
				return false, err
			}
			ok = (len(users) == 0) == (value == "true" || value == "1")
		default:
			return false, because(errdefs.ErrInvalidArgument, "invalid filter '%s'", key)
		}
		if ok {
			return true, nil
		}
	}
	return false, nil
}
