package ops

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shaleproject/shale/internal/build/failure"
	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/sandbox"
)

// Program is what runs in place of the command of a step that failed.
type Program struct {
	Args   []string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer

	// Terminal gives it one, of this size in characters.
	Terminal      bool
	Width, Height uint16

	// Started, if not nil, is called when it runs.
	Started func(*sandbox.Sandbox)
}

// Debug runs p where the step f has ended: upon what it had written, which
// lies in dir, with its mounts, environment, user, working directory and
// network. What p writes is thrown away, but for cache mounts. Secrets and
// agents that t lacks are left out; [Missing] names them.
func (t *Tools) Debug(ctx context.Context, f failure.Failure, dir string, p Program) (sandbox.Exit, error) {
	j, err := t.debugJob(f)
	if err != nil {
		return sandbox.Exit{}, err
	}
	defer j.close()
	defer os.RemoveAll(j.dir) // at the latest with the lease
	if err := j.prepare(ctx); err != nil {
		return sandbox.Exit{}, err
	}
	for _, name := range f.Uppers {
		if err := j.stackUpper(name, filepath.Join(dir, name)); err != nil {
			return sandbox.Exit{}, err
		}
	}
	j.op.Meta.Args = p.Args
	spec, err := j.spec(j.id)
	if err != nil {
		return sandbox.Exit{}, err
	}
	if spec.Process.Terminal = p.Terminal; p.Terminal {
		spec.Process.ConsoleSize = &specs.Box{Width: uint(p.Width), Height: uint(p.Height)}
		if !slices.ContainsFunc(spec.Process.Env, func(v string) bool { return strings.HasPrefix(v, "TERM=") }) {
			spec.Process.Env = append(spec.Process.Env, "TERM=xterm")
		}
	}
	config := sandbox.Config{
		ID: j.id, Dir: j.path("state"), Mounts: j.plan.mounts, Spec: spec,
		Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr, Runtime: t.Runner.Runtime,
	}
	if j.network != nil {
		config.Attach = j.network.Connect
	}
	if err := os.Mkdir(config.Dir, 0o700); err != nil {
		return sandbox.Exit{}, err
	}
	return runProgram(ctx, config, p)
}

func runProgram(ctx context.Context, config sandbox.Config, p Program) (sandbox.Exit, error) {
	s, err := sandbox.Start(ctx, config)
	if err != nil {
		return sandbox.Exit{}, err
	}
	if p.Started != nil {
		p.Started(s)
	}
	exit, err := s.Wait(ctx)
	if derr := s.Delete(); err == nil {
		err = derr
	}
	return exit, err
}

// debugJob makes the step again that f was.
func (t *Tools) debugJob(f failure.Failure) (*job, error) {
	op := new(pb.ExecOp)
	if err := op.UnmarshalVT(f.Op); err != nil {
		return nil, fmt.Errorf("read step: %w: %w", err, errdefs.ErrDataLoss)
	}
	for _, m := range op.Mounts {
		if m.SecretOpt != nil {
			m.SecretOpt.Optional = true
		}
		if m.SSHOpt != nil {
			m.SSHOpt.Optional = true
		}
	}
	for _, s := range op.Secretenv {
		s.Optional = true
	}
	e := &exec{tools: t, name: f.Step, op: op, platform: f.Platform}
	if len(f.Resources) > 0 {
		e.resources = new(pb.LinuxResources)
		if err := e.resources.UnmarshalVT(f.Resources); err != nil {
			return nil, fmt.Errorf("read step: %w: %w", err, errdefs.ErrDataLoss)
		}
	}
	t.Runner.HostNetwork, t.Runner.Insecure = f.HostNetwork, f.Insecure
	if err := e.allowed(nil); err != nil {
		return nil, err
	}
	j := &job{exec: e, id: runID()}
	for _, layers := range f.Inputs {
		r, err := t.held(layers)
		if err != nil {
			return nil, err
		}
		j.in = append(j.in, r)
	}
	var err error
	if j.driver, err = t.Runner.Rootfs(); err == nil {
		j.dir, err = t.Lease.TempDir()
	}
	return j, err
}

// held returns the ref of layers that are in the store.
func (t *Tools) held(layers []digest.Digest) (*ref.Ref, error) {
	var list []ref.Layer
	for _, d := range layers {
		list = append(list, ref.Layer{Digest: d})
	}
	return t.Pool.Stack(list), t.Pool.Keep(list)
}

// stackUpper puts what was written to the mount called name, which lies in
// dir, upon its layers and below what is written from now on.
func (j *job) stackUpper(name, dir string) error {
	for i, m := range j.plan.mounts {
		if m.Type == "overlay" && filepath.Dir(m.Target) == j.path(name) {
			j.plan.mounts[i].Layers = append(slices.Clone(m.Layers), dir)
			return nil
		}
	}
	return fmt.Errorf("show what was written to %s: no such mount: %w", name, errdefs.ErrDataLoss)
}

// Missing names the secrets and agents that the step f had and t lacks, in
// the words of the flags that give them.
func (t *Tools) Missing(f failure.Failure) []string {
	op := new(pb.ExecOp)
	if err := op.UnmarshalVT(f.Op); err != nil {
		return nil // Debug will say so
	}
	var missing []string
	add := func(flag, id string, have bool) {
		if text := flag + id; !have && !slices.Contains(missing, text) {
			missing = append(missing, text)
		}
	}
	for _, m := range op.Mounts {
		if o := m.SecretOpt; m.MountType == pb.MountType_SECRET && o != nil {
			add("--secret id=", o.ID, t.Runner.Secrets[o.ID] != nil)
		}
		if o := m.SSHOpt; m.MountType == pb.MountType_SSH && o != nil {
			id := o.ID
			if id == "" {
				id = "default"
			}
			add("--ssh ", id, t.Runner.Sockets[id] != "")
		}
	}
	for _, s := range op.Secretenv {
		add("--secret id=", s.ID, t.Runner.Secrets[s.ID] != nil)
	}
	return missing
}
