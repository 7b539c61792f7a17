package build

import (
	"context"
	"fmt"

	"github.com/shaleproject/shale/internal/build/export"
	"github.com/shaleproject/shale/internal/build/ref"
)

// toDir writes the files of r into the directory that the request names.
func (j *job) toDir(ctx context.Context, r *ref.Ref) error {
	step := j.status.Step("exporting to client directory")
	fsys, err := r.FS()
	if err == nil {
		err = export.Dir(ctx, fsys, j.req.Output.Dir)
	}
	if err != nil {
		err = fmt.Errorf("export to %s: %w", j.req.Output.Dir, err)
	}
	step.Done(err)
	return err
}

// toTar writes them as a tar.
func (j *job) toTar(ctx context.Context, r *ref.Ref) error {
	step := j.status.Step("exporting to client tarball")
	fsys, err := r.FS()
	if err == nil {
		err = export.Tar(ctx, fsys, j.req.Output.Tar)
	}
	if err != nil {
		err = fmt.Errorf("export to tar: %w", err)
	}
	step.Done(err)
	return err
}
