package container

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/shaleproject/shale/internal/sys"
)

// CopyOptions say how files are copied into and out of a container.
type CopyOptions struct {
	// Follow copies what a symbolic link points at, if the source is one.
	Follow bool
	// Owners keeps user and group ids; without it, everything is root's in a
	// container and the caller's outside.
	Owners bool
}

// CopyFrom copies src of a container to dst of the host, as cp -r would.
func (c *Containers) CopyFrom(ctx context.Context, name, src, dst string, o CopyOptions) error {
	return c.withFiles(ctx, name, func(root *os.File) error {
		from, err := inContainer(root, src, o.Follow)
		if err != nil {
			return err
		}
		defer from.Close()
		to, err := onHost(dst)
		if err != nil {
			return err
		}
		defer to.Close()
		return copyPlace(ctx, from, to, o)
	})
}

// CopyTo copies src of the host to dst of a container.
func (c *Containers) CopyTo(ctx context.Context, src, name, dst string, o CopyOptions) error {
	return c.withFiles(ctx, name, func(root *os.File) error {
		if o.Follow {
			real, err := filepath.EvalSymlinks(src)
			if err != nil {
				return err
			}
			src = real
		}
		from, err := onHost(src)
		if err != nil {
			return err
		}
		defer from.Close()
		to, err := inContainer(root, dst, true)
		if err != nil {
			return err
		}
		defer to.Close()
		return copyPlace(ctx, from, to, o)
	})
}

// ReadTar writes src of a container as a tar.
func (c *Containers) ReadTar(ctx context.Context, name, src string, w io.Writer, o CopyOptions) error {
	return c.withFiles(ctx, name, func(root *os.File) error {
		from, err := inContainer(root, src, o.Follow)
		if err != nil {
			return err
		}
		defer from.Close()
		if from.info == nil {
			return because(errdefs.ErrNotFound, "could not find the file %s in container %s", src, name)
		}
		as := from.base
		if from.contents {
			as = "."
		}
		return archive(ctx, from.dir, from.base, as, w)
	})
}

// WriteTar unpacks a tar into the directory dst of a container.
func (c *Containers) WriteTar(ctx context.Context, name, dst string, r io.Reader, o CopyOptions) error {
	return c.withFiles(ctx, name, func(root *os.File) error {
		to, err := inContainer(root, dst+"/.", true)
		if err != nil {
			return err
		}
		defer to.Close()
		if to.info == nil || !to.info.IsDir() {
			return because(errdefs.ErrInvalidArgument, "%s is not a directory of container %s", dst, name)
		}
		into, err := to.dir.OpenRoot(to.base)
		if err != nil {
			return err
		}
		defer into.Close()
		return extract(ctx, into, r, o.Owners)
	})
}

// Export writes the root file system of a container as a tar: of what is
// mounted on it, only the places.
func (c *Containers) Export(ctx context.Context, name string, w io.Writer) error {
	return c.withFiles(ctx, name, func(root *os.File) error {
		from, err := inContainer(root, "/.", false)
		if err != nil {
			return err
		}
		defer from.Close()
		own, ok := from.info.Sys().(*syscall.Stat_t)
		// All directories of an overlay have one device, that of others differs.
		return archiveWhere(ctx, from.dir, from.base, ".", w, func(dir fs.FileInfo) bool {
			stat, known := dir.Sys().(*syscall.Stat_t)
			return !ok || !known || stat.Dev == own.Dev
		})
	})
}

// withFiles calls f with the root directory of a container. That of one that
// runs is what its first process sees; that of another is mounted for as long
// as f takes, without its volumes.
func (c *Containers) withFiles(ctx context.Context, name string, f func(root *os.File) error) error {
	r, err := c.find(name)
	if err != nil {
		return err
	}
	open := func(path string) error {
		root, err := os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer root.Close()
		return f(root)
	}
	if r.running && r.state.Pid != 0 {
		return open(fmt.Sprintf("/proc/%d/root", r.state.Pid))
	}
	lock, err := r.own()
	if err != nil {
		return err
	}
	defer lock.Close()
	driver, err := c.Rootfs()
	if err != nil {
		return err
	}
	at := r.path(mountDir)
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	mounts, err := driver.Stack(ctx, r.config.Layers, at, r.path(upperDir), r.path(workDir))
	if err != nil {
		return err
	}
	return sys.PrivateMounts(func() error {
		if err := sys.MountAll(mounts); err != nil {
			return err
		}
		return open(filepath.Join(at, "rootfs"))
	})
}

// place is where something is or is to be: a name in a directory.
type place struct {
	dir  *os.Root
	base string
	// info is what is there; nil if nothing is.
	info fs.FileInfo
	// contents tells that what a directory holds is meant ("dir/."), slash
	// that only a directory can be ("dir/").
	contents, slash bool
	name            string // for messages
}

func (p *place) Close() { _ = p.dir.Close() }

func newPlace(dir *os.Root, base, given string) (*place, error) {
	p := &place{dir: dir, base: base, name: given,
		contents: given == "." || strings.HasSuffix(given, "/."), slash: strings.HasSuffix(given, "/")}
	info, err := dir.Lstat(base)
	if err == nil {
		p.info = info
	} else if !errors.Is(err, fs.ErrNotExist) {
		_ = dir.Close()
		return nil, err
	}
	return p, nil
}

// inContainer finds a path below root, through whose symbolic links nothing
// leads out. The last one is followed only if follow says so.
func inContainer(root *os.File, given string, follow bool) (*place, error) {
	clean := path.Clean("/" + given)
	if follow || strings.HasSuffix(given, "/.") || strings.HasSuffix(given, "/") {
		// What it leads to has another directory.
		f, err := sys.OpenInRoot(root, clean, unix.O_PATH)
		if err == nil {
			real, rerr := realPath(root, f)
			f.Close()
			if rerr != nil {
				return nil, rerr
			}
			clean = real
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	parent, base := path.Split(clean)
	if clean == "/" {
		base = "."
	}
	dir, err := sys.OpenInRoot(root, parent, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("open %s in the container: %w", parent, err)
	}
	defer dir.Close()
	opened, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))
	if err != nil {
		return nil, err
	}
	return newPlace(opened, base, given)
}

// realPath is the path of f below root.
func realPath(root, f *os.File) (string, error) {
	top, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", root.Fd()))
	if err != nil {
		return "", err
	}
	full, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return "", err
	}
	if top == "/" {
		return full, nil
	}
	below, found := strings.CutPrefix(full, top)
	if !found {
		// Another mount of the container's namespace, as its own root is.
		return full, nil
	}
	return path.Clean("/" + below), nil
}

func onHost(given string) (*place, error) {
	absolute, err := filepath.Abs(given)
	if err != nil {
		return nil, err
	}
	parent, base := filepath.Split(absolute)
	if info, err := os.Stat(absolute); err == nil && info.IsDir() {
		// A link to a directory stands for it.
		parent, base = absolute, "."
	}
	dir, err := os.OpenRoot(parent)
	if err != nil {
		return nil, err
	}
	return newPlace(dir, base, given)
}

// copyPlace copies by the rules of cp -r, which are docker cp's.
func copyPlace(ctx context.Context, from, to *place, o CopyOptions) error {
	if from.info == nil {
		return because(errdefs.ErrNotFound, "no such file or directory: %s", from.name)
	}
	into, as, err := target(from, to)
	if err != nil {
		return err
	}
	defer into.Close()
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := archive(ctx, from.dir, from.base, as, w)
		w.CloseWithError(err)
		written <- err
	}()
	err = extract(ctx, into, r, o.Owners)
	r.CloseWithError(err)
	return errors.Join(err, <-written)
}

// target decides the directory to unpack in and what the source is called
// there.
func target(from, to *place) (*os.Root, string, error) {
	switch {
	case to.info != nil && to.info.IsDir():
		into, err := to.dir.OpenRoot(to.base)
		as := filepath.Base(strings.TrimSuffix(from.name, "/"))
		if from.contents || as == "/" {
			as = "."
		}
		return into, as, err
	case to.info != nil && from.info.IsDir():
		return nil, "", because(errdefs.ErrInvalidArgument, "cannot copy directory %s to the file %s", from.name, to.name)
	case to.info == nil && to.slash && !from.info.IsDir():
		return nil, "", because(errdefs.ErrInvalidArgument, "no such directory: %s", to.name)
	case to.info != nil && to.slash:
		return nil, "", because(errdefs.ErrInvalidArgument, "not a directory: %s", to.name)
	}
	into, err := to.dir.OpenRoot(".")
	return into, to.base, err
}

// archive writes what base is in dir as a tar whose members are called as.
// Links are not followed.
func archive(ctx context.Context, dir *os.Root, base, as string, w io.Writer) error {
	return archiveWhere(ctx, dir, base, as, w, func(fs.FileInfo) bool { return true })
}

// archiveWhere leaves out what lies in directories that descend refuses.
func archiveWhere(ctx context.Context, dir *os.Root, base, as string, w io.Writer, descend func(fs.FileInfo) bool) error {
	out := tar.NewWriter(w)
	seen := map[inode]string{}
	var walk func(name, member string) error
	walk = func(name, member string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := dir.Lstat(name)
		if err != nil {
			return err
		}
		if err := addMember(out, dir, name, member, info, seen); err != nil || !info.IsDir() || !descend(info) {
			return err
		}
		d, err := dir.Open(name)
		if err != nil {
			return err
		}
		names, err := d.Readdirnames(-1)
		d.Close()
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := walk(path.Join(name, n), path.Join(member, n)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(base, as); err != nil {
		return err
	}
	return out.Close()
}
