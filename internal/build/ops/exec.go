package ops

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/layer"
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
	if err := op.allowed(); err != nil {
		return nil, err
	}
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
	j := &job{exec: op, step: step, in: in, driver: driver, dir: dir}
	defer j.close()
	if err := j.prepare(ctx); err != nil {
		return nil, err
	}
	if err := j.run(ctx); err != nil {
		return nil, err
	}
	return j.collect(ctx)
}

// allowed refuses what this machine can't do or the user did not allow.
func (op *exec) allowed() error {
	r := op.tools.Runner
	if !platforms.Only(op.tools.Platform).Match(op.target()) && !emulated(op.target().Architecture) {
		return fmt.Errorf("run a program for %s on %s: no emulator is registered (docker run --privileged --rm tonistiigi/binfmt --install %s does that): %w",
			platforms.Format(op.target()), platforms.Format(op.tools.Platform), op.target().Architecture, errdefs.ErrNotImplemented)
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

// emulators has the names that QEMU's packages register with binfmt_misc,
// where they are not those of GOARCH.
var emulators = map[string]string{
	"amd64": "x86_64", "386": "i386", "arm64": "aarch64", "loong64": "loongarch64", "mips64le": "mips64el",
}

// emulated tells whether the kernel runs programs for arch through an
// emulator.
func emulated(arch string) bool {
	name := arch
	if n, ok := emulators[arch]; ok {
		name = n
	}
	data, err := os.ReadFile("/proc/sys/fs/binfmt_misc/qemu-" + name)
	return err == nil && strings.HasPrefix(string(data), "enabled")
}

// job is one run of an exec.
type job struct {
	*exec
	step   *solver.Step
	in     []*ref.Ref
	driver rootfs.Driver
	dir    string // of its own, on the store's file system

	plan    plan
	closers []func() error
}

func (j *job) close() {
	for _, c := range slices.Backward(j.closers) {
		_ = c() // locks and sockets: nothing was written through them
	}
}

func (j *job) path(elem ...string) string { return filepath.Join(append([]string{j.dir}, elem...)...) }

// run starts the sandbox and waits for its end.
func (j *job) run(ctx context.Context) error {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	config := sandbox.Config{
		ID: "build-" + hex.EncodeToString(id), Dir: j.path("state"),
		Mounts:  j.plan.mounts,
		Stdout:  j.step.Log(solver.Stdout),
		Stderr:  j.step.Log(solver.Stderr),
		Runtime: j.tools.Runner.Runtime,
	}
	if err := os.Mkdir(config.Dir, 0o700); err != nil {
		return err
	}
	spec, err := j.spec(config.ID)
	if err != nil {
		return err
	}
	config.Spec = spec
	if j.op.Network == pb.NetMode_UNSET {
		config.Attach = func(pid int) error {
			a, err := j.tools.Runner.Networks.Attach(ctx, pid, network.Endpoint{ContainerID: config.ID})
			if err == nil {
				j.closers = append(j.closers, a.Close)
			}
			return err
		}
	}
	command := strings.Join(j.op.Meta.Args, " ")
	s, err := sandbox.Start(ctx, config)
	if command := (*sandbox.CommandError)(nil); errors.As(err, &command) {
		return &ProcessError{Command: strings.Join(j.op.Meta.Args, " "), Code: command.Code, Cause: command}
	}
	if err != nil {
		return fmt.Errorf("run %q: %w", command, err)
	}
	exit, err := s.Wait(ctx)
	if derr := s.Delete(); err == nil {
		err = derr
	}
	if err != nil {
		return fmt.Errorf("run %q: %w", command, err)
	}
	if exit.Code == 0 && len(j.op.Meta.ValidExitCodes) == 0 || slices.Contains(j.op.Meta.ValidExitCodes, int32(exit.Code)) {
		return nil
	}
	perr := &ProcessError{Command: command, Code: exit.Code}
	if exit.OOM {
		perr.Cause = errors.New("cannot allocate memory")
	}
	return perr
}

// ProcessError is a RUN whose program failed. Its text is that of docker
// build.
type ProcessError struct {
	Command string
	Code    int
	Cause   error // nil if the program just said so
}

func (e *ProcessError) Error() string {
	text := fmt.Sprintf("process %q did not complete successfully: exit code: %d", e.Command, e.Code)
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

func (e *ProcessError) Unwrap() error { return e.Cause }

// collect makes the outputs: the upper directory of each mount that has one
// becomes a layer.
func (j *job) collect(ctx context.Context) ([]*ref.Ref, error) {
	var outputs []*ref.Ref
	for _, o := range j.plan.outputs {
		for int64(len(outputs)) <= o.index {
			outputs = append(outputs, nil)
		}
		if o.upper == "" {
			outputs[o.index] = o.base
			continue
		}
		l, err := j.tools.Pool.Write(ctx, ref.Layer{Created: j.tools.now(), By: j.name}, func(w *layer.Writer) error {
			return layer.FromUpper(ctx, w, o.upper, layer.UpperOptions{
				Epoch: j.tools.Epoch,
				Warn: func(name string, err error) {
					fmt.Fprintf(j.step.Log(solver.Stderr), "warning: %s is left out of the layer: %v\n", name, err)
				},
			})
		})
		if err != nil {
			return nil, err
		}
		below, err := o.base.Layers(ctx)
		if err != nil {
			return nil, err
		}
		outputs[o.index] = j.tools.Pool.Stack(append(below[:len(below):len(below)], l))
	}
	return outputs, nil
}

// spec describes the process. Its environment is what the step says, and
// nothing of ours.
func (j *job) spec(id string) (*specs.Spec, error) {
	meta := j.op.Meta
	env, err := j.environment()
	if err != nil {
		return nil, err
	}
	o := sandbox.SpecOptions{
		ID: id, Root: j.plan.root, ReadOnly: j.plan.readOnly,
		Hostname: j.hostname(),
		Process: sandbox.ProcessOptions{
			Args: meta.Args, Env: env, Cwd: meta.Cwd, User: meta.User,
		},
		Security: sandbox.SecurityOptions{
			Privileged: j.op.Security == pb.SecurityMode_INSECURE,
			Foreign:    j.target().Architecture != runtime.GOARCH,
		},
		Resources:    linuxResources(j.resources),
		CgroupParent: meta.CgroupParent,
	}
	for _, m := range j.plan.inside {
		o.Mounts = append(o.Mounts, m.Mount)
	}
	if j.op.Network == pb.NetMode_HOST {
		o.Namespaces.Network = sandbox.Host
	}
	for _, u := range meta.Ulimit {
		o.Process.Rlimits = append(o.Process.Rlimits, specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard),
		})
	}
	return sandbox.NewSpec(o)
}

// hostname is BuildKit's unless the build says otherwise, so that a RUN sees
// the same name everywhere.
func (j *job) hostname() string {
	if j.op.Meta.Hostname != "" {
		return j.op.Meta.Hostname
	}
	return "buildkitsandbox"
}

func (j *job) environment() ([]string, error) {
	env := slices.Clone(j.op.Meta.Env)
	if p := j.op.Meta.ProxyEnv; p != nil {
		for _, v := range []struct{ name, value string }{
			{"http_proxy", p.HttpProxy}, {"https_proxy", p.HttpsProxy}, {"ftp_proxy", p.FtpProxy},
			{"no_proxy", p.NoProxy}, {"all_proxy", p.AllProxy},
		} {
			if v.value != "" {
				env = append(env, strings.ToUpper(v.name)+"="+v.value, v.name+"="+v.value)
			}
		}
	}
	for _, s := range j.op.Secretenv {
		value, ok := j.tools.Runner.Secrets[s.ID]
		switch {
		case ok:
			env = append(env, s.Name+"="+string(value))
		case !s.Optional:
			return nil, noSecret(s.ID)
		}
	}
	return env, nil
}

func noSecret(id string) error {
	return fmt.Errorf("secret %s: not given (build with --secret id=%s,src=FILE): %w", id, id, errdefs.ErrNotFound)
}

func linuxResources(r *pb.LinuxResources) *specs.LinuxResources {
	if r == nil {
		return nil
	}
	out := &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}, Memory: &specs.LinuxMemory{}}
	if r.Memory != 0 {
		out.Memory.Limit = &r.Memory
	}
	if r.MemorySwap != 0 {
		out.Memory.Swap = &r.MemorySwap
	}
	if r.CpuShares != 0 {
		out.CPU.Shares = &r.CpuShares
	}
	if r.CpuPeriod != 0 {
		out.CPU.Period = &r.CpuPeriod
	}
	if r.CpuQuota != 0 {
		out.CPU.Quota = &r.CpuQuota
	}
	return out
}
