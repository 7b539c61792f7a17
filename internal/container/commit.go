package container

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/store"
)

// CommitOptions say what Commit makes.
type CommitOptions struct {
	// Name is a reference; empty gives the image no name.
	Name    string
	Author  string
	Message string
	// Changes are Dockerfile instructions for the configuration.
	Changes []string
	// NoPause lets the container write meanwhile.
	NoPause bool
}

// Commit makes an image of a container: its image, and what it has written
// as one more layer. It returns the image's id.
func (c *Containers) Commit(ctx context.Context, name string, o CommitOptions) (digest.Digest, error) {
	r, err := c.find(name)
	if err != nil {
		return "", err
	}
	config, err := c.commitConfig(r, o)
	if err != nil {
		return "", err
	}
	lease, err := c.Store.Lease(ctx)
	if err != nil {
		return "", err
	}
	defer lease.Close()
	if err := lease.Hold(r.config.Layers...); err != nil {
		return "", err
	}
	layers := slices.Clone(r.config.Layers)
	diffID, err := c.commitLayer(ctx, r, lease, o)
	if err != nil {
		return "", fmt.Errorf("commit %s: %w", r.config.Name, err)
	}
	layers = append(layers, diffID)
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: layers}
	raw, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	var names []string
	if o.Name != "" {
		names = []string{o.Name}
	}
	img, err := c.Images.Write(ctx, lease, raw, layers, names)
	if err != nil {
		return "", err
	}
	return img.ConfigDigest, nil
}

// commitConfig is the configuration of the container's image with what the
// container changes.
func (c *Containers) commitConfig(r *record, o CommitOptions) (*image.Config, error) {
	if o.Name != "" {
		if _, err := image.ParseName(o.Name); err != nil {
			return nil, err
		}
	}
	raw, err := c.Store.Read(r.config.ImageID)
	if err != nil {
		return nil, err
	}
	var config image.Config
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("read image %s: %w", r.config.ImageID, err)
	}
	p, of := &r.config.Process, &config.Config
	of.Cmd, of.Entrypoint, of.Env, of.User, of.WorkingDir = p.Cmd, p.Entrypoint, p.Env, p.User, p.Dir
	of.Labels, of.StopSignal = r.config.Labels, r.config.Life.StopSignal
	for _, e := range r.config.Network.Expose {
		if of.ExposedPorts == nil {
			of.ExposedPorts = map[string]struct{}{}
		}
		of.ExposedPorts[e] = struct{}{}
	}
	for _, m := range r.config.Mounts {
		if m.Anonymous {
			if of.Volumes == nil {
				of.Volumes = map[string]struct{}{}
			}
			of.Volumes[m.Target] = struct{}{}
		}
	}
	if err := image.Change(&config, o.Changes); err != nil {
		return nil, err
	}
	now := c.Now().UTC()
	config.Created, config.Author = &now, o.Author
	config.History = append(config.History, ocispec.History{
		Created: &now, Author: o.Author, Comment: o.Message, CreatedBy: strings.Join(p.Args(), " "),
	})
	return &config, nil
}

// commitLayer takes the upper directory into the store.
func (c *Containers) commitLayer(ctx context.Context, r *record, lease *store.Lease, o CommitOptions) (_ digest.Digest, failure error) {
	if r.status() == Running && !o.NoPause {
		switch err := c.pause(r); {
		case errdefs.IsNotImplemented(err):
			// As with --no-pause: what is written meanwhile may be missing.
		case err != nil:
			return "", err
		default:
			defer func() { failure = errors.Join(failure, c.unpause(r)) }()
		}
	}
	in, err := c.Store.IngestLayer(lease)
	if err != nil {
		return "", err
	}
	defer in.Close()
	files, err := openImage(c.Store, r.config.Layers)
	if err != nil {
		return "", err
	}
	defer files.Close()
	if err := r.writeChanges(ctx, in, files); err != nil {
		return "", err
	}
	d, _, err := in.Commit(ctx, "")
	return d, err
}

// writeChanges writes what the container has changed of its image's files as a
// layer.
func (r *record) writeChanges(ctx context.Context, w io.Writer, files *imageTree) error {
	tar := layer.NewWriter(w)
	err := layer.FromUpper(ctx, tar, r.path(upperDir), layer.UpperOptions{
		Below: files,
		Skip:  r.isPlace,
		Warn:  func(string, error) {}, // sockets have no place in an image, as in Docker's
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // it has never run
	}
	if err != nil {
		return err
	}
	return tar.Close()
}

// places are what is made in the upper directory for something to be mounted
// on. What was in the image is not copied up.
var places = []string{"dev", "proc", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf"}

// isPlace tells whether nothing of what is called name was written by the
// container.
func (r *record) isPlace(name string) bool {
	if slices.Contains(places, name) {
		return true
	}
	if !r.mounted("/" + name) {
		return false
	}
	// A directory that the container has filled before something was mounted
	// on it can't be: mounts don't change.
	entries, err := os.ReadDir(r.path(path.Join(upperDir, name)))
	return err == nil && len(entries) == 0
}

// Change is what a container did to a path.
type Change struct {
	// Kind is "A" for added, "C" for changed and "D" for deleted.
	Kind string
	Path string
}

// Diff lists what a container has changed, by path.
func (c *Containers) Diff(ctx context.Context, name string) ([]Change, error) {
	r, err := c.find(name)
	if err != nil {
		return nil, err
	}
	files, err := openImage(c.Store, r.config.Layers)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	in, out := io.Pipe()
	go func() { out.CloseWithError(r.writeChanges(ctx, out, files)) }()
	defer in.Close()
	var changes []Change
	for members := tar.NewReader(in); ; {
		h, err := members.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("compare container %s: %w", r.config.Name, err)
		}
		changes = append(changes, changeOf(files, h))
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return changes, nil
}

// changeOf tells what the member of a layer means for the image below.
func changeOf(below fs.FS, h *tar.Header) Change {
	name := path.Clean(strings.TrimSuffix(h.Name, "/"))
	dir, base := path.Split(name)
	// image-spec layer.md, "Whiteouts"
	if base == ".wh..wh..opq" {
		return Change{"C", "/" + path.Clean(dir)}
	}
	if hidden, found := strings.CutPrefix(base, ".wh."); found {
		return Change{"D", "/" + dir + hidden}
	}
	if _, err := fs.Lstat(below, name); err == nil {
		return Change{"C", path.Join("/", name)}
	}
	return Change{"A", "/" + name}
}
