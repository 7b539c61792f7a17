package ops

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/sys"
	"github.com/shaleproject/shale/internal/tree"
)

// mountPoints makes the files and directories that mounts cover and the image
// lacks, in a layer of the stack that is below the upper directory and above
// the image's own. So they are there for the runtime and leave no trace in
// what the run wrote: nothing has to be taken out of a directory that the
// program could have changed.
func (j *job) mountPoints() error {
	i := slices.IndexFunc(j.plan.mounts, func(m sys.Mount) bool { return m.Type == "overlay" && m.Target == j.plan.root })
	if i < 0 {
		return fmt.Errorf("prepare mount points: no overlay at %s", j.plan.root)
	}
	base, err := j.tools.input(j.in, j.rootInput())
	if err != nil {
		return err
	}
	fsys, err := base.FS()
	if err != nil {
		return err
	}
	p := points{fsys: fsys, dir: j.path("points"), made: map[string]bool{}}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return err
	}
	if err := p.like(".", p.dir); err != nil {
		return err
	}
	for _, m := range j.plan.inside {
		if err := p.add(m); err != nil {
			return fmt.Errorf("prepare mount point %s: %w", m.Destination, err)
		}
	}
	if err := p.finish(); err != nil {
		return err
	}
	j.plan.mounts[i].Layers = append(slices.Clone(j.plan.mounts[i].Layers), p.dir)
	return nil
}

func (j *job) rootInput() int64 {
	for _, m := range j.op.Mounts {
		if m.Dest == "/" {
			return m.Input
		}
	}
	return -1
}

// points makes mount points over fsys in dir.
type points struct {
	fsys tree.FS
	dir  string
	made map[string]bool // existing directories that dir has, too
}

// under are the places where the runtime mounts something of its own: what
// lies below is not the image's.
var under = []string{"proc", "dev", "sys"}

func (p *points) add(m inside) error {
	name, err := tree.Resolve(p.fsys, m.Destination)
	if err != nil {
		return err
	}
	first, _, _ := strings.Cut(name, "/")
	if slices.Contains(under, first) {
		return nil
	}
	if _, err := p.fsys.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := p.parents(path.Dir(name)); err != nil {
		return err
	}
	host := filepath.Join(p.dir, filepath.FromSlash(name))
	if m.file {
		return os.WriteFile(host, nil, 0o644)
	}
	if err := os.Mkdir(host, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(host, 0o755)
}

// parents makes name and what leads to it: as the image has it, or new.
func (p *points) parents(name string) error {
	host := filepath.Join(p.dir, filepath.FromSlash(name))
	if _, err := os.Lstat(host); err == nil {
		return nil
	}
	if err := p.parents(path.Dir(name)); err != nil {
		return err
	}
	if err := os.Mkdir(host, 0o755); err != nil {
		return err
	}
	if _, err := p.fsys.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return os.Chmod(host, 0o755)
	}
	return p.like(name, host)
}

// like gives the directory host the metadata that name has in the image:
// overlayfs shows those of the topmost layer.
func (p *points) like(name, host string) error {
	info, err := p.fsys.Lstat(name)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*layer.Stat); ok {
		// In a user namespace with few ids, and on file systems that know no
		// attributes, the image's own directories lack the same.
		if err := os.Chown(host, int(st.UID), int(st.GID)); err != nil && !sys.InUserNamespace() {
			return err
		}
		for key, value := range st.Xattrs {
			err := sys.SetXattr(host, key, value)
			if err != nil && !errdefs.IsNotImplemented(err) && !errdefs.IsPermissionDenied(err) {
				return err
			}
		}
	}
	p.made[name] = true
	return os.Chmod(host, info.Mode())
}

// finish sets the times, which making entries has changed.
func (p *points) finish() error {
	for name := range p.made {
		info, err := p.fsys.Lstat(name)
		if err != nil {
			return err
		}
		host := filepath.Join(p.dir, filepath.FromSlash(name))
		if err := os.Chtimes(host, info.ModTime(), info.ModTime()); err != nil {
			return err
		}
	}
	return nil
}
