package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/gateway/client"
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
	options := maps.Clone(c.Options)
	for _, name := range slices.Sorted(maps.Keys(stages)) {
		res, err := c.stage(ctx, stages[name])
		if err != nil {
			return fmt.Errorf("build context %s: %w", name, err)
		}
		add := func(name, config string, r client.Reference) error {
			state, err := r.ToState()
			if err != nil {
				return err
			}
			metadata, err := json.Marshal(map[string][]byte{exptypes.ExporterImageConfigKey: res.Metadata[config]})
			inputs[name] = state
			options[contextOption+name], options[metadataOption+name] = inputScheme+name, string(metadata)
			return err
		}
		if res.Ref != nil {
			err = add(name, exptypes.ExporterImageConfigKey, res.Ref)
		}
		// One a platform, if there are several; so the front end asks for them.
		for platform, r := range res.Refs {
			err = errors.Join(err, add(name+"::"+platform, exptypes.ExporterImageConfigKey+"/"+platform, r))
		}
		if err != nil {
			return fmt.Errorf("build context %s: %w", name, err)
		}
	}
	c.inputs, c.Options = inputs, options
	return nil
}

// stage builds one stage.
func (c *Client) stage(ctx context.Context, stage string) (*client.Result, error) {
	inner := *c
	inner.Options = maps.Clone(c.Options)
	inner.Options["target"] = stage
	delete(inner.Options, "requestid")
	return inner.Run(ctx)
}
