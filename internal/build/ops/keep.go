package ops

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/build/failure"
	"github.com/shaleproject/shale/internal/build/ref"
)

// upperSuffix ends the name of the directory that takes what is written to a
// mount.
const upperSuffix = "-upper"

// keep hands on what the step leaves behind, if the failure is its program's.
// That nothing can be kept is no second failure.
func (j *job) keep(ctx context.Context, failed error) {
	var process *ProcessError
	if j.tools.Runner.Keep == nil || !errors.As(failed, &process) || ctx.Err() != nil {
		return
	}
	f, err := j.failure(ctx, process)
	dir := j.path("kept")
	if err == nil {
		f.Uppers, err = j.moveUppers(dir)
	}
	if err == nil {
		err = j.tools.Runner.Keep(ctx, f, dir)
	}
	if err != nil {
		slog.Debug("keep failed step", "error", err)
	}
}

// failure describes the step.
func (j *job) failure(ctx context.Context, process *ProcessError) (f failure.Failure, err error) {
	f = failure.Failure{
		Step: j.name, Command: process.Command, Code: process.Code, At: j.tools.Now(), Platform: j.platform,
		HostNetwork: j.tools.Runner.HostNetwork, Insecure: j.tools.Runner.Insecure,
		Inputs: make([][]digest.Digest, len(j.in)),
	}
	op := j.op.CloneVT()
	op.Meta.ProxyEnv, op.Meta.Args = nil, nil // neither is needed again
	if f.Op, err = op.MarshalVT(); err != nil {
		return f, err
	}
	if j.resources != nil {
		if f.Resources, err = j.resources.MarshalVT(); err != nil {
			return f, err
		}
	}
	for _, m := range j.op.Mounts {
		if m.Input < 0 || int(m.Input) >= len(j.in) {
			continue
		}
		layers, err := j.in[m.Input].Layers(ctx)
		if err != nil {
			return f, err
		}
		f.Inputs[m.Input] = digestsOf(layers)
	}
	return f, nil
}

func digestsOf(layers []ref.Layer) []digest.Digest {
	digests := make([]digest.Digest, len(layers))
	for i, l := range layers {
		digests[i] = l.Digest
	}
	return digests
}

// moveUppers moves what was written to each mount into dir, and returns the
// names of the mounts.
func (j *job) moveUppers(dir string) ([]string, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	uppers, err := filepath.Glob(j.path("*" + upperSuffix))
	var names []string
	for _, upper := range uppers {
		name := strings.TrimSuffix(filepath.Base(upper), upperSuffix)
		if err := os.Rename(upper, filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		names = append(names, name)
	}
	return names, err
}
