package build

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/progress"
)

// OutputKind says what an [Output] is.
type OutputKind string

// The kinds of outputs.
const (
	OutputImage  OutputKind = "image"  // in the list of images
	OutputOCI    OutputKind = "oci"    // an OCI layout
	OutputDocker OutputKind = "docker" // an archive that `docker load` reads, or, without a To, the list
	OutputLocal  OutputKind = "local"  // files in a directory
	OutputTar    OutputKind = "tar"    // files in a tar
)

// Output is one thing that becomes of the result.
type Output struct {
	Kind  OutputKind
	Names []string // of an image; without any it is dangling

	// To gets a tar, or an image as an archive.
	To io.Writer

	// Dir gets files, or an image as an OCI layout if To is nil.
	Dir string

	// Split gives each platform's files a directory of their own. Nil means
	// if several platforms were asked for.
	Split *bool

	// Form is that of layers and documents. In the list of images layers have
	// no compression: there it counts when they are pushed.
	Form image.Form

	// Plain pushes layers without compression; Force compresses those of base
	// images anew.
	Plain, Force bool

	Annotations []Annotation

	// Push sends an image to the registries of its names; with ByDigest it
	// gets no tag there, and no name here.
	Push, ByDigest bool
}

// checkOutputs refuses what can be known to fail before anything is built.
func (r *Request) checkOutputs() error {
	several := strings.Contains(r.Language.Platform, ",")
	for _, o := range r.Outputs {
		for _, name := range o.Names {
			if _, err := image.ParseName(name); err != nil {
				return err
			}
		}
		if o.Kind == OutputDocker && several {
			return errManifestList
		}
		if o.Push && len(o.Names) == 0 {
			return fmt.Errorf("push image: tag is needed when pushing to registry: %w", errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// The first part is what BuildKit says.
var errManifestList = fmt.Errorf("docker exporter does not currently support exporting manifest lists: "+
	"a docker-archive has one platform, use type=oci: %w", errdefs.ErrInvalidArgument)

// output makes o of what was built, and notes in res what that is.
func (j *job) output(ctx context.Context, o Output, b *built, res *Result) error {
	switch o.Kind {
	case OutputLocal:
		return j.toDir(ctx, o, b)
	case OutputTar:
		return j.toTar(ctx, o, b)
	}
	if o.Kind == OutputDocker && b.several {
		return errManifestList
	}
	images, err := j.assemble(ctx, o, b)
	if err != nil {
		return err
	}
	var target ocispec.Descriptor
	if o.Kind == OutputImage || o.Kind == OutputDocker && o.To == nil {
		target, err = j.toList(ctx, o, images, res)
	} else {
		target, err = j.toArchive(ctx, o, images)
	}
	if err != nil {
		return err
	}
	res.addNames(o)
	if res.Target.Digest == "" {
		if res.Target = target; !b.several {
			res.Config = b.configDigest()
		}
	}
	return nil
}

// addNames notes what the images of o are called, in full.
func (r *Result) addNames(o Output) {
	for _, name := range o.Names {
		named, err := image.ParseName(name)
		if o.ByDigest {
			named, err = reference.ParseNormalizedNamed(name)
		}
		if err == nil && !slices.Contains(r.Names, named.String()) {
			r.Names = append(r.Names, named.String())
		}
	}
}

// toList puts the image into the list, under its names, and pushes it.
func (j *job) toList(ctx context.Context, o Output, b image.Built, res *Result) (ocispec.Descriptor, error) {
	step := j.status.Step("exporting to image")
	step.Progress("exporting layers", 0, 0, true)
	names := o.Names
	if o.ByDigest {
		names = nil
	}
	img, err := j.Images.WriteBuilt(ctx, j.lease, b, o.Form, names)
	if err != nil {
		err = fmt.Errorf("export image: %w", err)
		step.Done(err)
		return ocispec.Descriptor{}, err
	}
	if img.Target.Digest != img.Manifest.Digest {
		step.Progress("exporting manifest list "+img.Target.Digest.String(), 0, 0, true)
	}
	step.Progress("writing image "+img.ConfigDigest.String(), 0, 0, true)
	for _, name := range names {
		named, _ := image.ParseName(name) // it did at the start
		step.Progress("naming to "+named.String(), 0, 0, true)
	}
	step.Done(nil)
	if res.Image == nil {
		res.Image = img
	}
	if !o.Push {
		return img.Target, nil
	}
	return j.push(ctx, o, img, res)
}

// push sends the image under each of its names.
func (j *job) push(ctx context.Context, o Output, img *image.Image, res *Result) (first ocispec.Descriptor, err error) {
	for n, name := range o.Names {
		step := j.status.Step("pushing " + name)
		how := image.PushOptions{
			Compression: o.Form.Compression, Level: o.Form.Level, Plain: o.Plain, Force: o.Force,
			Progress: stepSink(step),
		}
		var desc ocispec.Descriptor
		var err error
		if o.ByDigest {
			desc, err = j.Images.PushDigest(ctx, img.Target, name, how)
		} else {
			desc, err = j.Images.Push(ctx, name, how)
		}
		if err == nil {
			step.Progress("pushing manifest for "+name+"@"+desc.Digest.String(), 0, 0, true)
		}
		step.Done(err)
		if err != nil {
			return first, err
		}
		res.Pushed = append(res.Pushed, Pushed{name, desc})
		if n == 0 {
			first = desc
		}
	}
	return first, nil
}

// stepSink shows what a transfer does as the progress of step.
func stepSink(step *solver.Step) progress.Sink {
	return func(e progress.Event) {
		if e.ID != "" {
			step.Progress(e.ID+" "+e.Action, e.Current, e.Total, e.Total == 0 || e.Current >= e.Total)
		}
	}
}

// toArchive writes the image to where o says.
func (j *job) toArchive(ctx context.Context, o Output, b image.Built) (desc ocispec.Descriptor, err error) {
	step := j.status.Step(fmt.Sprintf("exporting to %s image format", o.Kind))
	defer func() { step.Done(err) }()
	if o.Form.Compression != layer.None {
		step.Progress("compressing layers with "+o.Form.Compression.String(), 0, 0, true)
	}
	if o.To == nil {
		return j.Images.LayoutBuilt(ctx, o.Dir, b, o.Form, o.Names)
	}
	return j.Images.SaveBuilt(ctx, o.To, b, o.Form, o.Names)
}
