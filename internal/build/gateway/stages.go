package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
)

// How the front end's options name a context that is the result of another
// build, and the metadata of that result (frontend/dockerui/namedcontext.go).
const (
	contextOption  = "context:"
	inputScheme    = "input:"
	metadataOption = "input-metadata:"
)

// UseStages builds stages of the Dockerfile and makes them named contexts:
// stages has them by the names of the contexts. While they are built there is
// none of these contexts, so that no stage comes to need itself.
func (c *Client) UseStages(ctx context.Context, stages map[string]string) error {
	inputs := map[string]llb.State{}
	options := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(stages)) {
		state, metadata, err := c.stage(ctx, stages[name])
		if err != nil {
			return fmt.Errorf("build context %s: %w", name, err)
		}
		inputs[name] = state
		options[contextOption+name] = inputScheme + name
		options[metadataOption+name] = metadata
	}
	c.inputs = inputs
	c.Options = maps.Clone(c.Options)
	maps.Copy(c.Options, options)
	return nil
}

// stage builds one stage. What it returns beside the state is, in JSON, how
// its image is configured.
func (c *Client) stage(ctx context.Context, stage string) (llb.State, string, error) {
	inner := *c
	inner.Options = maps.Clone(c.Options)
	inner.Options["target"] = stage
	delete(inner.Options, "requestid")
	res, err := inner.Run(ctx)
	if err != nil {
		return llb.State{}, "", err
	}
	if len(res.Refs) > 0 {
		return llb.State{}, "", fmt.Errorf("stage %s for several platforms: %w", stage, errdefs.ErrNotImplemented)
	}
	r, ok := res.Ref.(*Reference)
	if !ok {
		return llb.State{}, "", fmt.Errorf("stage %s has no file system: %w", stage, errdefs.ErrInternal)
	}
	metadata := map[string][]byte{}
	for key, value := range res.Metadata {
		if strings.HasPrefix(key, exptypes.ExporterImageConfigKey) {
			metadata[key] = value
		}
	}
	text, err := json.Marshal(metadata)
	if err != nil {
		return llb.State{}, "", err
	}
	state, err := r.ToState()
	return state, string(text), err
}
