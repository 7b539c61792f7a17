package ops

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/network"
	"github.com/shaleproject/shale/internal/rootfs"
	"github.com/shaleproject/shale/internal/sandbox"
)

// job is one run of an exec.
type job struct {
	*exec
	step   *solver.Step
	in     []*ref.Ref
	driver rootfs.Driver
	dir    string // of its own, on the store's file system

	id      string
	plan    plan
	network *network.Attachment // nil without a network of its own
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
	j.tools.sweep.Do(sweepCgroups)
	said := &refusals{Writer: j.step.Log(solver.Stderr)}
	config := sandbox.Config{
		ID: j.id, Dir: j.path("state"),
		Mounts:  j.plan.mounts,
		Stdout:  j.step.Log(solver.Stdout),
		Stderr:  said,
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
	if j.network != nil {
		config.Attach = j.network.Connect
	}
	command := strings.Join(j.op.Meta.Args, " ")
	s, err := sandbox.Start(ctx, config)
	if command := (*sandbox.CommandError)(nil); errors.As(err, &command) {
		return &ProcessError{Command: strings.Join(j.op.Meta.Args, " "), Code: command.Code, Cause: command}
	}
	if err != nil && strings.Contains(strings.ToLower(err.Error()), "exec format error") {
		err = cmp.Or(unlisted(j.target(), j.tools.Platform), err)
	}
	if err != nil {
		return fmt.Errorf("run %q: %w", command, unlent(err, j.op.Meta.User))
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
	if exit.Code == notExecuted {
		if err := unlisted(j.target(), j.tools.Platform); err != nil {
			return err
		}
	}
	said.explain()
	perr := &ProcessError{Command: command, Code: exit.Code}
	if exit.OOM {
		perr.Cause = errors.New("cannot allocate memory")
	}
	return perr
}

// notExecuted is the exit code of libcontainer's init if the kernel did not
// take the program; what it said is in the log.
const notExecuted = 255

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
		below, err := o.base.FS()
		if err != nil {
			return nil, err
		}
		l, err := j.tools.Pool.Write(ctx, ref.Layer{Created: j.tools.now(), By: j.name}, func(w *layer.Writer) error {
			return layer.FromUpper(ctx, w, o.upper, layer.UpperOptions{
				Epoch: j.tools.Epoch,
				Below: below,
				Warn: func(name string, err error) {
					fmt.Fprintf(j.step.Log(solver.Stderr), "warning: %s is left out of the layer: %v\n", name, err)
				},
			})
		})
		if err != nil {
			return nil, err
		}
		layers, err := o.base.Layers(ctx)
		if err != nil {
			return nil, err
		}
		outputs[o.index] = j.tools.Pool.Stack(append(layers[:len(layers):len(layers)], l))
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
