package build

import (
	"context"
	"fmt"

	"github.com/shaleproject/shale/internal/build/export"
	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/image"
)

// toImage puts the image into the list, under the names of the request.
func (j *job) toImage(ctx context.Context, b built) (Result, error) {
	step := j.status.Step("exporting to image")
	step.Progress("exporting layers", 0, 0, true)
	img, err := j.Images.WriteAttested(ctx, j.lease, b.config, b.layers, b.attestations, j.req.Output.Names)
	if err != nil {
		err = fmt.Errorf("export image: %w", err)
		step.Done(err)
		return Result{}, err
	}
	step.Progress("writing image "+img.ConfigDigest.String(), 0, 0, true)
	for _, name := range j.req.Output.Names {
		named, _ := image.ParseName(name) // it did at the start
		step.Progress("naming to "+named.String(), 0, 0, true)
	}
	step.Done(nil)
	return Result{Image: img}, nil
}

// toArchive writes the image to where the request says.
func (j *job) toArchive(ctx context.Context, b built) (Result, error) {
	step := j.status.Step("exporting to docker and oci image format")
	id, err := j.Images.SaveBuilt(ctx, j.req.Output.Archive, b.config, b.layers, b.attestations, j.req.Output.Names)
	step.Done(err)
	return Result{archived: id}, err
}

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
