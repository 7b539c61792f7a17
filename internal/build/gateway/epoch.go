package gateway

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
)

// EpochOption is the front end's name of the build argument SOURCE_DATE_EPOCH.
const EpochOption = "build-arg:" + epochName

const epochName = "SOURCE_DATE_EPOCH"

// Epoch returns the date that the Dockerfile, or the value of [EpochOption],
// says: a number, or the name of what has a date, such as "context" (BuildKit,
// docs/build-repro.md). It is nil if there is none. The front end would tell
// only after all steps have run.
//
// What is wrong with the Dockerfile is for [Client.Run] to say.
func (c *Client) Epoch(ctx context.Context) *time.Time {
	ui, err := dockerui.NewClient(c)
	if err != nil {
		return nil
	}
	file, err := ui.ReadEntrypoint(ctx, "Dockerfile")
	if err != nil || c.Options[EpochOption] == "" && !bytes.Contains(file.Data, []byte(epochName)) {
		return nil
	}
	o := dockerfile2llb.ConvertOpt{Config: ui.Config, Client: ui, SourceMap: file.SourceMap, MetaResolver: c}
	o.BuildArgs = maps.Clone(o.BuildArgs)
	if len(o.TargetPlatforms) > 0 {
		o.TargetPlatform = &o.TargetPlatforms[0]
	}
	res, err := dockerfile2llb.Dockerfile2LLB(ctx, file.Data, o)
	if err != nil {
		return nil
	}
	return res.Epoch
}

// IsGit tells whether a context is a repository to be fetched.
func IsGit(context string) bool {
	_, is, err := dockerui.DetectGitContext(context, nil)
	return is && err == nil
}

// dated tells when the source op was committed or last modified, which is
// known as soon as it has been fetched.
func (c *Client) dated(ctx context.Context, op *pb.SourceOp) (*sourceresolver.MetaResponse, error) {
	res := &sourceresolver.MetaResponse{Op: op}
	if c.Dates == nil {
		return res, nil
	}
	def, err := llb.NewState(llb.NewSource(op.Identifier, maps.Clone(op.Attrs), llb.Constraints{}).Output()).Marshal(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.Solve(ctx, client.SolveRequest{Definition: def.ToPB()}); err != nil {
		return nil, err
	}
	switch at, known := c.Dates(op.Identifier); {
	case !known:
	case strings.HasPrefix(op.Identifier, "git://"):
		// Nothing but the committer's date is read of it.
		res.Git = &sourceresolver.ResolveGitResponse{CommitObject: fmt.Appendf(nil,
			"tree %040d\nauthor - <-> %d +0000\ncommitter - <-> %[2]d +0000\n\n", 0, at.Unix())}
	default:
		res.HTTP = &sourceresolver.ResolveHTTPResponse{LastModified: &at}
	}
	return res, nil
}

// wantsDate tells whether the front end asks about op only for its date. It
// asks about downloads for no other reason.
func wantsDate(op *pb.SourceOp, opt sourceresolver.Opt) bool {
	scheme, _, _ := strings.Cut(op.Identifier, "://")
	return scheme == "git" && opt.GitOpt != nil && opt.GitOpt.ReturnObject || (scheme == "http" || scheme == "https") && opt.HTTPOpt == nil
}
