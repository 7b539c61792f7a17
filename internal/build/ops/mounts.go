package ops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/network"
	"github.com/shaleproject/shale/internal/rootfs"
	"github.com/shaleproject/shale/internal/sys"
	"github.com/shaleproject/shale/internal/tree"
)

// plan is how the file system of a run comes about.
type plan struct {
	mounts   []sys.Mount // made before the start, below the job's directory
	inside   []inside    // made by the runtime, inside the root
	root     string
	readOnly bool
	outputs  []upperOutput
}

// inside is a mount that the program sees. File says that it is one of a file.
type inside struct {
	specs.Mount
	file bool
}

// upperOutput is where an output of the run comes from: what upper holds
// over base. An empty upper means that it is base itself.
type upperOutput struct {
	index int64
	base  *ref.Ref
	upper string
}

// prepare makes the plan: the network, the root, the mounts of the step, and
// the files that every RUN finds in /etc.
func (j *job) prepare(ctx context.Context) error {
	if j.op.Network == pb.NetMode_UNSET {
		a, err := j.tools.Runner.Networks.Reserve(ctx, network.Endpoint{ContainerID: j.id})
		if err != nil {
			return err
		}
		j.network = a
		j.closers = append(j.closers, a.Close)
	}
	for i, m := range j.op.Mounts {
		if m.Dest == "/" {
			if err := j.mountRoot(ctx, m); err != nil {
				return err
			}
			continue
		}
		if err := j.mount(ctx, i, m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Dest, err)
		}
	}
	if err := j.etcFiles(); err != nil {
		return err
	}
	return j.mountPoints()
}

// mountRoot plans the tree that the program sees as "/".
func (j *job) mountRoot(ctx context.Context, m *pb.Mount) error {
	if m.MountType != pb.MountType_BIND || path.Join("/", m.Selector) != "/" {
		return fmt.Errorf("mount /: a root of type %s, selector %q: %w", m.MountType, m.Selector, errdefs.ErrNotImplemented)
	}
	base, err := j.tools.input(j.in, m.Input)
	if err != nil {
		return err
	}
	j.plan.readOnly = m.Readonly
	at, err := j.stack(ctx, "root", base, m)
	j.plan.root = at
	return err
}

// stack plans a tree of its own over base and returns where it will be.
// Writes are kept if m has an output, and thrown away otherwise.
func (j *job) stack(ctx context.Context, name string, base *ref.Ref, m *pb.Mount) (string, error) {
	layers, err := base.Layers(ctx)
	if err != nil {
		return "", err
	}
	at, upper := j.path(name), j.path(name+upperSuffix)
	if m.Readonly {
		upper = ""
	}
	if err := os.Mkdir(at, 0o700); err != nil {
		return "", err
	}
	mounts, err := j.driver.Stack(ctx, digestsOf(layers), at, upper, j.path(name+"-work"))
	if err != nil {
		return "", err
	}
	j.plan.mounts = append(j.plan.mounts, rootfs.Volatile(mounts)...)
	if m.Output >= 0 {
		j.plan.outputs = append(j.plan.outputs, upperOutput{m.Output, base, upper})
	}
	return filepath.Join(at, "rootfs"), nil
}

// mount plans the mount with number i.
func (j *job) mount(ctx context.Context, i int, m *pb.Mount) error {
	name := "mount" + strconv.Itoa(i)
	switch m.MountType {
	case pb.MountType_BIND:
		return j.mountBind(ctx, name, m)
	case pb.MountType_CACHE:
		return j.mountCache(ctx, name, m)
	case pb.MountType_TMPFS:
		options := []string{"nosuid", "nodev", "mode=1777"}
		if size := m.TmpfsOpt.GetSize(); size > 0 {
			options = append(options, "size="+strconv.FormatInt(size, 10))
		}
		j.plan.inside = append(j.plan.inside, inside{Mount: specs.Mount{
			Destination: path.Join("/", m.Dest), Type: "tmpfs", Source: "tmpfs", Options: options,
		}})
		return nil
	case pb.MountType_SECRET:
		return j.mountSecret(name, m)
	case pb.MountType_SSH:
		return j.mountAgent(name, m)
	}
	return fmt.Errorf("type %s: %w", m.MountType, errdefs.ErrNotImplemented)
}

// bind plans to show source, a directory, at dest, which the runtime resolves
// within the root.
func (j *job) bind(source, dest string, options ...string) {
	j.plan.inside = append(j.plan.inside, inside{Mount: specs.Mount{
		Destination: path.Join("/", dest), Type: "bind", Source: source, Options: append([]string{"rbind"}, options...),
	}})
}

// bindFile is bind for a file.
func (j *job) bindFile(source, dest string, options ...string) {
	j.bind(source, dest, options...)
	j.plan.inside[len(j.plan.inside)-1].file = true
}

// mountBind shows a part of another ref. The part is found in the ref, which
// nobody can change, so that no link in it leads out.
func (j *job) mountBind(ctx context.Context, name string, m *pb.Mount) error {
	base, err := j.tools.input(j.in, m.Input)
	if err != nil {
		return err
	}
	fsys, err := base.FS()
	if err != nil {
		return err
	}
	part, err := tree.Resolve(fsys, m.Selector)
	if err != nil {
		return err
	}
	info, err := fsys.Lstat(part)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%q: %w", path.Join("/", m.Selector), errdefs.ErrNotFound)
	}
	if err != nil {
		return err
	}
	at, err := j.stack(ctx, name, base, m)
	if err != nil {
		return err
	}
	options := []string{}
	if m.Readonly {
		options = append(options, "ro")
	}
	bind := j.bind
	if !info.IsDir() {
		bind = j.bindFile
	}
	bind(filepath.Join(at, filepath.FromSlash(part)), m.Dest, options...)
	return nil
}

// mountSecret shows the value of a secret. It lives in memory only: in a
// file system that goes with the run.
func (j *job) mountSecret(name string, m *pb.Mount) error {
	opt := m.SecretOpt
	if opt == nil {
		return fmt.Errorf("secret without a name: %w", errdefs.ErrInvalidArgument)
	}
	value, ok := j.tools.Runner.Secrets[opt.ID]
	if !ok && opt.Optional {
		return nil
	}
	if !ok {
		return noSecret(opt.ID)
	}
	j.plan.mounts = append(j.plan.mounts, sys.Mount{
		Type: "tmpfs", Source: "secret", Target: j.path(name),
		Flags: sys.NoDev | sys.NoSuid | sys.NoExec, Data: "mode=0700",
		Files: []sys.File{{Name: "secret", Mode: fs.FileMode(opt.Mode).Perm(), UID: int(opt.Uid), GID: int(opt.Gid), Data: value}},
	})
	j.bindFile(j.path(name, "secret"), m.Dest, "ro", "nosuid", "nodev", "noexec")
	return nil
}

// mountAgent shows a socket that leads to the user's SSH agent.
func (j *job) mountAgent(name string, m *pb.Mount) error {
	opt := m.SSHOpt
	if opt == nil {
		return fmt.Errorf("agent without a name: %w", errdefs.ErrInvalidArgument)
	}
	id := opt.ID
	if id == "" {
		id = "default"
	}
	agent, ok := j.tools.Runner.Sockets[id]
	if !ok && opt.Optional {
		return nil
	}
	if !ok {
		return fmt.Errorf("ssh agent %s: not given (build with --ssh %s): %w", id, id, errdefs.ErrNotFound)
	}
	socket := j.path(name + ".sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	j.closers = append(j.closers, l.Close)
	if err := os.Chmod(socket, fs.FileMode(opt.Mode).Perm()); err != nil {
		return err
	}
	if err := os.Chown(socket, int(opt.Uid), int(opt.Gid)); err != nil {
		return err
	}
	go forward(l, agent)
	j.bindFile(socket, m.Dest, "nosuid", "nodev", "noexec")
	return nil
}
