package build

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/attest"
	"github.com/shaleproject/shale/internal/build/export"
	"github.com/shaleproject/shale/internal/build/gateway"
	"github.com/shaleproject/shale/internal/image"
)

// built is what a build has made for all its platforms.
type built struct {
	images  []builtImage
	several bool // asked for as such, even if there is only one
	ready   bool // the images are complete
}

// builtImage is that of one platform. Its config is the front end's until
// [job.complete] has been there; then it has layers, too.
type builtImage struct {
	id       string // of the platform: "linux/arm64"
	platform ocispec.Platform
	ref      *gateway.Reference
	config   []byte
	base     []byte     // the config of the base image
	epoch    *time.Time // of its sources, if the build has none
	layers   []digest.Digest
	about    []image.Attestation // without subjects
}

// configDigest is the id of the image if there is only one.
func (b *built) configDigest() digest.Digest { return digest.FromBytes(b.images[0].config) }

// export makes what the request wants of b.
func (j *job) export(ctx context.Context, b *built) (Result, error) {
	var out Result
	for _, o := range j.req.Outputs {
		if err := j.output(ctx, o, b, &out); err != nil {
			return out, err
		}
	}
	return out, nil
}

// takeApart reads a result of the front end.
func takeApart(res *client.Result) (*built, error) {
	found, err := exptypes.ParsePlatforms(res.Metadata)
	if err != nil {
		return nil, fmt.Errorf("export result: %w", err)
	}
	b := &built{several: len(res.Refs) > 0}
	for _, p := range found.Platforms {
		ref, ok := res.FindRef(p.ID)
		reference, is := ref.(*gateway.Reference)
		if !ok || !is {
			return nil, fmt.Errorf("export result: the front end has handed over no file system for %s: %w", p.ID, errdefs.ErrInternal)
		}
		img := builtImage{
			id: p.ID, platform: p.Platform, ref: reference,
			config: exptypes.ParseKey(res.Metadata, exptypes.ExporterImageConfigKey, &p),
			base:   exptypes.ParseKey(res.Metadata, exptypes.ExporterImageBaseConfigKey, &p),
		}
		if seconds, err := strconv.ParseInt(string(exptypes.ParseKey(res.Metadata, "source.date.epoch", &p)), 10, 64); err == nil {
			t := time.Unix(seconds, 0).UTC()
			img.epoch = &t
		}
		b.images = append(b.images, img)
	}
	return b, nil
}

// complete finishes the configs and writes what the request wants to be said
// of the images; once, for all outputs.
func (j *job) complete(ctx context.Context, b *built) error {
	if b.ready {
		return nil
	}
	for n := range b.images {
		if err := j.completeImage(ctx, &b.images[n]); err != nil {
			return err
		}
	}
	b.ready = true
	return nil
}

func (j *job) completeImage(ctx context.Context, b *builtImage) error {
	layers, err := b.ref.Layers(ctx)
	if err != nil {
		return err
	}
	epoch := j.epoch
	if epoch == nil {
		epoch = b.epoch
	}
	if b.config, err = export.Config(b.config, b.base, layers, epoch, j.Now().UTC()); err != nil {
		return err
	}
	b.layers = export.DiffIDs(layers)
	if b.config, err = j.inlineCache(ctx, b.config, b.layers); err != nil {
		return err
	}
	b.about, err = j.attest(ctx, *b)
	return err
}

// assemble makes the images of an output.
func (j *job) assemble(ctx context.Context, o Output, b *built) (image.Built, error) {
	if err := j.complete(ctx, b); err != nil {
		return image.Built{}, err
	}
	out := image.Built{Index: b.several}
	used, err := annotate(&out, o.Annotations, b)
	if err != nil {
		return out, err
	}
	for n, img := range b.images {
		names, err := subjects(o.Names, img.platform)
		if err != nil {
			return out, err
		}
		made := image.BuiltImage{Config: img.config, Layers: img.layers, Platform: &b.images[n].platform, Annotations: used[n]}
		for _, a := range img.about {
			a.Subjects = names
			made.About = append(made.About, a)
		}
		out.Images = append(out.Images, made)
	}
	return out, nil
}

// subjects are the names of an image in statements about it.
func subjects(names []string, p ocispec.Platform) ([]string, error) {
	var list []string
	for _, name := range names {
		subject, err := attest.ImageName(name, p)
		if err != nil {
			return nil, err
		}
		list = append(list, subject)
	}
	return list, nil
}

// Annotation is one of those that an output puts upon the documents of an
// image.
type Annotation struct {
	Where    string            // one of BuildKit's words: "manifest", "index", "manifest-descriptor", "index-descriptor"
	Platform *ocispec.Platform // nil means every one
	Key      string
	Value    string
}

// annotate puts those of the index into out and returns those of the images.
func annotate(out *image.Built, list []Annotation, b *built) ([]image.Annotations, error) {
	of := make([]image.Annotations, len(b.images))
	put := func(m *map[string]string, a Annotation) {
		if *m == nil {
			*m = map[string]string{}
		}
		(*m)[a.Key] = a.Value
	}
	for _, a := range list {
		found := false
		for n, img := range b.images {
			if a.Platform != nil && platforms.FormatAll(*a.Platform) != img.id {
				continue
			}
			found = true
			switch a.Where {
			case exptypes.AnnotationManifest:
				put(&of[n].Document, a)
			case exptypes.AnnotationManifestDescriptor:
				put(&of[n].Descriptor, a)
			}
		}
		switch {
		case !found:
			return nil, fmt.Errorf("annotate image: invalid annotation: no platform %s found in source: %w", platforms.FormatAll(*a.Platform), errdefs.ErrInvalidArgument)
		case a.Where == exptypes.AnnotationIndex:
			put(&out.Annotations.Document, a)
		case a.Where == exptypes.AnnotationIndexDescriptor:
			put(&out.Annotations.Descriptor, a)
		}
	}
	return of, nil
}
