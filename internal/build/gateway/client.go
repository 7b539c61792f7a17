// Package gateway runs BuildKit's Dockerfile front end inside this process.
//
// The front end asks back through [client.Client], as it would ask a
// BuildKit daemon: for files of the contexts, for the configs of base
// images, for graphs to be solved. Client answers from the solver and the
// list of images. No other front end is ever run: "# syntax=docker/dockerfile"
// in any version means the one that is linked in.
package gateway

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/limit"
	"github.com/shaleproject/shale/internal/build/solver"
)

// Client is what the front end sees of shale.
type Client struct {
	Solver *solver.Solver
	Status *solver.Status

	// Options are the front end's own ("target", "build-arg:NAME", …).
	Options map[string]string

	// Platform is the one that this machine runs.
	Platform ocispec.Platform

	// Images answers questions about base images.
	Images ImageResolver

	// Guard sees what the front end reads before it does.
	Guard *limit.Guard

	// Dates, if not nil, tells of a source that has been fetched when it was
	// committed or last modified.
	Dates func(source string) (time.Time, bool)

	inputs map[string]llb.State // by the names of contexts
}

var _ client.Client = (*Client)(nil)

// ImageResolver knows where images come from.
type ImageResolver interface {
	// Resolve returns the digest and the config of the image called name.
	// mode is one of BuildKit's resolve modes; "pull" asks the registry even
	// if there is an image of the name.
	Resolve(ctx context.Context, name, mode string, platform *ocispec.Platform, step *solver.Step) (digest.Digest, []byte, error)

	// ResolveLayout does the same for an image in the OCI layout that the
	// build calls layout.
	ResolveLayout(ctx context.Context, layout string, platform *ocispec.Platform, step *solver.Step) (digest.Digest, []byte, error)
}

// Run runs the front end.
func (c *Client) Run(ctx context.Context) (*client.Result, error) {
	return builder.Build(ctx, c)
}

// BuildOpts tells the front end what it may ask for: everything that it
// knows. What shale lacks is an error of the step that needs it, so that it
// has a place in the Dockerfile.
func (c *Client) BuildOpts() client.BuildOpts {
	return client.BuildOpts{
		Opts:      maps.Clone(c.Options), // the front end writes into it
		SessionID: "shale",
		Workers:   []client.WorkerInfo{{ID: "shale", Platforms: []ocispec.Platform{c.Platform}}},
		Product:   "shale",
		LLBCaps:   pb.Caps.CapSet(pb.Caps.All()),
		Caps:      gwpb.Caps.CapSet(gwpb.Caps.All()),
	}
}

// Inputs are the stages of [Client.UseStages].
func (c *Client) Inputs(context.Context) (map[string]llb.State, error) {
	return c.inputs, nil
}

// Solve solves a graph, or starts over with another front end.
func (c *Client) Solve(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	if req.Frontend != "" {
		return c.forward(ctx, req)
	}
	target, err := solver.Load(req.Definition)
	if err != nil {
		return nil, err
	}
	r, err := c.Solver.Solve(ctx, target)
	if err != nil {
		return nil, err
	}
	res := client.NewResult()
	res.SetRef(&Reference{Ref: r, def: req.Definition, guard: c.Guard})
	return res, nil
}

// forward runs the front end that a syntax line asks for, if that is the one
// we have.
func (c *Client) forward(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	source := req.FrontendOpt["source"]
	if !isDockerfile(source) {
		return nil, fmt.Errorf("use syntax %s: only docker/dockerfile is built in: %w", source, errdefs.ErrNotImplemented)
	}
	next := *c
	next.Options = maps.Clone(req.FrontendOpt) // holds "cmdline", which ends the search for a syntax line
	return next.Run(ctx)
}

// isDockerfile tells whether source is an image of the Dockerfile front end.
func isDockerfile(source string) bool {
	named, err := reference.ParseNormalizedNamed(source)
	if err != nil {
		return false
	}
	switch named.Name() {
	case "docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream":
		return true
	}
	return false
}

// ResolveImageConfig answers for whoever still asks for images in this way.
func (c *Client) ResolveImageConfig(ctx context.Context, name string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return sourceresolver.NewImageMetaResolver(c).ResolveImageConfig(ctx, name, opt)
}

// ResolveSourceMetadata tells what is behind the name of a source.
func (c *Client) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	if wantsDate(op, opt) {
		return c.dated(ctx, op)
	}
	scheme, name, _ := strings.Cut(op.Identifier, "://")
	if scheme != "docker-image" && scheme != "oci-layout" {
		return &sourceresolver.MetaResponse{Op: op}, nil
	}
	logName := opt.LogName
	if logName == "" {
		logName = "resolve image config for " + op.Identifier
	}
	step := c.Status.Step(logName)
	d, config, err := c.resolve(ctx, name, op, opt, step)
	step.Done(err)
	if err == nil {
		err = c.Guard.Base(config)
	}
	if err != nil {
		return nil, err
	}
	return &sourceresolver.MetaResponse{
		Op:    op,
		Image: &sourceresolver.ResolveImageResponse{Digest: d, Config: config},
	}, nil
}

func (c *Client) resolve(ctx context.Context, name string, op *pb.SourceOp, opt sourceresolver.Opt, step *solver.Step) (digest.Digest, []byte, error) {
	if layout := op.Attrs[pb.AttrOCILayoutStoreID]; layout != "" {
		var platform *ocispec.Platform
		if opt.OCILayoutOpt != nil {
			platform = opt.OCILayoutOpt.Platform
		}
		return c.Images.ResolveLayout(ctx, layout, platform, step)
	}
	var mode string
	var platform *ocispec.Platform
	if opt.ImageOpt != nil {
		mode, platform = opt.ImageOpt.ResolveMode, opt.ImageOpt.Platform
	}
	return c.Images.Resolve(ctx, name, mode, platform, step)
}

// NewContainer is for front ends that run programs of their own.
func (c *Client) NewContainer(context.Context, client.NewContainerRequest) (client.Container, error) {
	return nil, fmt.Errorf("run a front end's container: %w", errdefs.ErrNotImplemented)
}

// Warn passes a build check on to whoever watches.
func (c *Client) Warn(_ context.Context, d digest.Digest, msg string, opts client.WarnOpts) error {
	c.Status.Warn(bkclient.VertexWarning{
		Vertex: d, Level: opts.Level, Short: []byte(msg), Detail: opts.Detail, URL: opts.URL,
		SourceInfo: opts.SourceInfo, Range: opts.Range,
	})
	return nil
}
