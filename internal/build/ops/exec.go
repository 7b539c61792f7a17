package ops

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/failure"
	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/network"
	"github.com/shaleproject/shale/internal/rootfs"
	"github.com/shaleproject/shale/internal/sandbox"
	"github.com/shaleproject/shale/internal/tree"
)

// Runner is what RUN needs beside layers.
type Runner struct {
	// Rootfs returns the driver that shows layers as a file system; its
	// error says why there is none.
	Rootfs func() (rootfs.Driver, error)

	// Networks connect what runs; nil is an error of whatever asks for one.
	Networks *network.Networks

	// Runtime is the path of an OCI runtime; empty means the linked-in one.
	Runtime string

	// ResolvConf is the host's resolv.conf.
	ResolvConf string

	// Secrets and Sockets are the values of --secret and the agent sockets
	// of --ssh, by id.
	Secrets map[string][]byte
	Sockets map[string]string

	// HostNetwork and Insecure allow a RUN to ask for the host's network,
	// or to be privileged.
	HostNetwork, Insecure bool

	// Keep, if not nil, gets what is left of a RUN whose program failed, and
	// the directory of what it had written, to move away.
	Keep func(ctx context.Context, f failure.Failure, dir string) error
}

// exec runs a program upon a tree: RUN. Its layer is what the program
// changed.
type exec struct {
	tools     *Tools
	name      string
	op        *pb.ExecOp
	platform  *ocispec.Platform
	resources *pb.LinuxResources
	key       []byte
	views     map[int]*cache.View
}

func newExec(t *Tools, v *solver.Vertex, op *pb.ExecOp) (*exec, error) {
	if op.Meta == nil || len(op.Meta.Args) == 0 {
		return nil, fmt.Errorf("run %q: no command: %w", v.Name, errdefs.ErrInvalidArgument)
	}
	if !slices.ContainsFunc(op.Mounts, func(m *pb.Mount) bool { return m.Dest == "/" }) {
		return nil, fmt.Errorf("run %q: no root file system: %w", v.Name, errdefs.ErrInvalidArgument)
	}
	e := &exec{
		tools: t, name: v.Name, op: op,
		platform: platformOf(v.Op.Platform), resources: v.Resources,
		views: execViews(op),
	}
	described := op.CloneVT()
	described.Meta.ProxyEnv = nil // how the build reaches the network does not change what it makes
	data, err := described.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("describe %q: %w", v.Name, err)
	}
	e.key = t.key("exec\x00"+platforms.Format(platforms.Normalize(e.target())), data)
	return e, nil
}

func (op *exec) Key() []byte            { return op.key }
func (op *exec) Sees(i int) *cache.View { return op.views[i] }

func (op *exec) target() ocispec.Platform {
	if op.platform != nil {
		return *op.platform
	}
	return op.tools.Platform
}

// execViews says of which inputs op sees only a part: those that are mounted
// from a directory and whose changes, if any, nobody sees. An input with an
// output counts as a whole, since all of it is in the output.
func execViews(op *pb.ExecOp) map[int]*cache.View {
	views, kept := map[int]*cache.View{}, map[int64]bool{}
	for _, m := range op.Mounts {
		switch {
		case m.Input < 0 || m.MountType != pb.MountType_BIND && m.MountType != pb.MountType_CACHE:
			continue
		case m.Dest == "/" || m.Output >= 0 || m.ContentCache == pb.MountContentCache_OFF:
			kept[m.Input] = true
			continue
		}
		i := int(m.Input)
		if views[i] == nil {
			views[i] = &cache.View{}
		}
		views[i].Add(cache.Part{Path: path.Join("/", m.Selector), Select: tree.DigestOptions{FollowSymlink: true}})
	}
	for i := range kept {
		delete(views, int(i))
	}
	return views
}

// Run starts the program and waits for it.
func (op *exec) Run(ctx context.Context, in []*ref.Ref, step *solver.Step) (_ []*ref.Ref, err error) {
	if err := op.allowed(in); err != nil {
		return nil, err
	}
	sandbox.Hasten()
	driver, err := op.tools.Runner.Rootfs()
	if err != nil {
		return nil, fmt.Errorf("prepare RUN: %w", err)
	}
	dir, err := op.tools.Lease.TempDir()
	if err != nil {
		return nil, err
	}
	defer func() {
		if rerr := os.RemoveAll(dir); err == nil && rerr != nil {
			err = fmt.Errorf("remove what RUN left: %w", rerr)
		}
	}()
	j := &job{exec: op, step: step, in: in, driver: driver, dir: dir, id: runID()}
	defer j.close()
	if err := j.prepare(ctx); err != nil {
		return nil, err
	}
	if err := j.run(ctx); err != nil {
		j.keep(ctx, err)
		return nil, err
	}
	return j.collect(ctx)
}

// rootHas returns what tells whether the root directory has a file; nil if its
// layers are not known.
func (op *exec) rootHas(in []*ref.Ref) func(path string) bool {
	for _, m := range op.op.Mounts {
		if m.Dest != "/" || m.Input < 0 || m.Input >= int64(len(in)) {
			continue
		}
		return func(path string) bool {
			fsys, err := in[m.Input].FS()
			if err != nil {
				return true // whoever mounts it will tell
			}
			name, err := tree.Resolve(fsys, path)
			if err == nil {
				_, err = fsys.Lstat(name)
			}
			return err == nil
		}
	}
	return nil
}

// allowed refuses what this machine can't do or the user did not allow. in, if
// it is known, is what the mounts show.
func (op *exec) allowed(in []*ref.Ref) error {
	r := op.tools.Runner
	if err := emulated(op.target(), op.tools.Platform, op.rootHas(in)); err != nil {
		return err
	}
	switch {
	case op.op.Security == pb.SecurityMode_INSECURE && !r.Insecure:
		return fmt.Errorf("run privileged: security.insecure is not allowed (build with --allow security.insecure): %w", errdefs.ErrPermissionDenied)
	case op.op.Network == pb.NetMode_HOST && !r.HostNetwork:
		return fmt.Errorf("run on the host's network: network.host is not allowed (build with --allow network.host): %w", errdefs.ErrPermissionDenied)
	case op.op.Network == pb.NetMode_UNSET && r.Networks == nil:
		return fmt.Errorf("connect RUN to a network: there is none (build with --network none or --network host): %w", errdefs.ErrNotImplemented)
	}
	for _, d := range op.op.CdiDevices {
		if !d.Optional {
			return fmt.Errorf("use device %s: %w", d.Name, errdefs.ErrNotImplemented)
		}
	}
	return nil
}
