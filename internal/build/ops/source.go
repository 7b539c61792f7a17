package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/tree"
)

// newSource returns the operation that reads what op names.
func newSource(t *Tools, v *solver.Vertex, op *pb.SourceOp) (solver.Operation, error) {
	scheme, name, _ := strings.Cut(op.Identifier, "://")
	switch scheme {
	case "docker-image", "oci-layout":
		return &image{tools: t, name: name, layout: op.Attrs[pb.AttrOCILayoutStoreID], platform: platformOf(v.Op.Platform)}, nil
	case "local":
		return &local{tools: t, name: name, attrs: op.Attrs}, nil
	case "http", "https":
		return newDownload(t, op)
	case "git":
		return newGit(t, op)
	}
	return nil, fmt.Errorf("read %s: sources of the kind %q: %w", op.Identifier, scheme, errdefs.ErrNotImplemented)
}

func platformOf(p *pb.Platform) *ocispec.Platform {
	if p == nil {
		return nil
	}
	return &ocispec.Platform{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant,
		OSVersion: p.OSVersion, OSFeatures: p.OSFeatures,
	}
}

// Images finds base images.
type Images interface {
	// Layers returns the layers of the image called name, lowest first, all
	// of which are in the store and leased.
	Layers(ctx context.Context, name string, platform *ocispec.Platform, step *solver.Step) ([]digest.Digest, error)

	// LayoutLayers does the same for an image in the OCI layout that the
	// build calls layout.
	LayoutLayers(ctx context.Context, layout string, platform *ocispec.Platform, step *solver.Step) ([]digest.Digest, error)
}

// image is the file system of an image.
type image struct {
	cheap
	tools    *Tools
	name     string
	layout   string // where it is, if in no registry
	platform *ocispec.Platform
}

func (op *image) Run(ctx context.Context, _ []*ref.Ref, step *solver.Step) ([]*ref.Ref, error) {
	digests, err := op.layers(ctx, step)
	if err != nil {
		return nil, err
	}
	layers := make([]ref.Layer, len(digests))
	for i, d := range digests {
		layers[i].Digest = d
	}
	if err := op.tools.Pool.Keep(layers); err != nil {
		return nil, fmt.Errorf("image %s: %w", op.name, err)
	}
	step.Cached()
	return []*ref.Ref{op.tools.Pool.Stack(layers)}, nil
}

func (op *image) layers(ctx context.Context, step *solver.Step) ([]digest.Digest, error) {
	if op.layout != "" {
		return op.tools.Images.LayoutLayers(ctx, op.layout, op.platform, step)
	}
	return op.tools.Images.Layers(ctx, op.name, op.platform, step)
}

// local is a part of a context, read where it lies.
type local struct {
	cheap
	tools *Tools
	name  string
	attrs map[string]string
}

func (op *local) Run(_ context.Context, _ []*ref.Ref, step *solver.Step) ([]*ref.Ref, error) {
	fsys, ok := op.tools.Contexts[op.name]
	if !ok {
		return nil, fmt.Errorf("read context %q: %w", op.name, errdefs.ErrNotFound)
	}
	patterns := map[string][]string{}
	for _, attr := range []string{pb.AttrIncludePatterns, pb.AttrExcludePatterns, pb.AttrFollowPaths} {
		list := op.attrs[attr]
		if list == "" {
			continue
		}
		var p []string
		if err := json.Unmarshal([]byte(list), &p); err != nil {
			return nil, fmt.Errorf("read context %q: attribute %s: %w", op.name, attr, err)
		}
		patterns[attr] = p
	}
	selected, err := tree.Include(fsys, patterns[pb.AttrIncludePatterns], patterns[pb.AttrExcludePatterns], patterns[pb.AttrFollowPaths])
	if err != nil {
		return nil, fmt.Errorf("read context %q: %w", op.name, err)
	}
	return []*ref.Ref{op.tools.Pool.Tree(selected)}, nil
}
