// Package attest writes down how an image was built: SLSA provenance, in the
// form that BuildKit gives it.
//
// Provenance is published with the image, so it holds nothing that a build is
// given in confidence: no secret and no password of a URL, wherever it stands,
// and in [Min] neither build arguments nor the steps that could repeat them.
// Directories of the host are not named. The only times are those of the
// build's start and end.
package attest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ProvenanceType is the predicate type of provenance (slsa.dev/spec/v1.1).
const ProvenanceType = "https://slsa.dev/provenance/v1"

// buildType says how to read the parameters: as BuildKit's, since they are
// those of its Dockerfile front end.
const buildType = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"

// builder is who says all this if nobody else is named.
const builder = "https://github.com/shaleproject/shale"

// Mode says how much is told.
type Mode int

const (
	Min Mode = iota // what went in, and when
	Max             // build arguments, ids of secrets, steps and their Dockerfile, too
)

// Build is what provenance tells of.
type Build struct {
	Mode         Mode
	BuilderID    string // empty means shale
	Reproducible bool   // somebody has said so

	// Options are those of the front end.
	Options map[string]string

	// Definition is the graph of the image's steps.
	Definition *pb.Definition

	// Found are the digests or commits of sources that the graph does not
	// pin, by their identifiers in it.
	Found map[string]string

	// Secrets are values that must not be told.
	Secrets [][]byte

	Builder, Target ocispec.Platform
	Started, Ended  time.Time

	// Layers are the image's.
	Layers []ocispec.Descriptor
}

type (
	predicate struct {
		Definition definition `json:"buildDefinition"`
		Details    details    `json:"runDetails"`
	}
	definition struct {
		Type         string     `json:"buildType"`
		External     external   `json:"externalParameters"`
		Internal     internal   `json:"internalParameters"`
		Dependencies []material `json:"resolvedDependencies,omitempty"`
	}
	external struct {
		Source  configSource `json:"configSource"`
		Request request      `json:"request"`
	}
	configSource struct {
		URI    string            `json:"uri,omitempty"`
		Digest map[string]string `json:"digest,omitempty"`
		Path   string            `json:"path,omitempty"`
	}
	request struct {
		Frontend string            `json:"frontend"`
		Args     map[string]string `json:"args,omitempty"`
		Secrets  []secret          `json:"secrets,omitempty"`
		Agents   []secret          `json:"ssh,omitempty"`
		Locals   []local           `json:"locals,omitempty"`
	}
	secret struct {
		ID string `json:"id"`
	}
	local struct {
		Name string `json:"name"`
	}
	internal struct {
		Config  *config `json:"buildConfig,omitempty"`
		Builder string  `json:"builderPlatform"`
		Target  string  `json:"targetPlatform,omitempty"`
	}
	material struct {
		URI    string            `json:"uri"`
		Digest map[string]string `json:"digest,omitempty"`
	}
	details struct {
		Builder  builderID `json:"builder"`
		Metadata metadata  `json:"metadata"`
	}
	builderID struct {
		ID string `json:"id"`
	}
	metadata struct {
		Started      time.Time    `json:"startedOn"`
		Ended        time.Time    `json:"finishedOn"`
		BuildKit     buildkit     `json:"buildkit_metadata"`
		Hermetic     bool         `json:"buildkit_hermetic,omitempty"`
		Completeness completeness `json:"buildkit_completeness"`
		Reproducible bool         `json:"buildkit_reproducible,omitempty"`
	}
	buildkit struct {
		VCS    map[string]string                 `json:"vcs,omitempty"`
		Source *source                           `json:"source,omitempty"`
		Layers map[string][][]ocispec.Descriptor `json:"layers,omitempty"`
	}
	completeness struct {
		Request      bool `json:"request"`
		Dependencies bool `json:"resolvedDependencies"`
	}
)

// Provenance writes the predicate of b.
func Provenance(b Build) ([]byte, error) {
	steps, err := load(b.Definition)
	if err != nil {
		return nil, fmt.Errorf("write provenance: %w", err)
	}
	s := newScrubber(b.Secrets)
	found := steps.sources(b.Found, s)
	p := predicate{
		Definition: definition{
			Type:         buildType,
			External:     external{Source: b.configSource(), Request: b.request(steps, found.locals)},
			Internal:     internal{Builder: platform(b.Builder), Target: platform(b.Target)},
			Dependencies: found.materials,
		},
		Details: details{
			Builder: builderID{b.BuilderID},
			Metadata: metadata{
				Started: b.Started.UTC(), Ended: b.Ended.UTC(), Reproducible: b.Reproducible,
				BuildKit:     buildkit{VCS: b.vcs()},
				Hermetic:     len(found.locals) == 0 && !steps.network(),
				Completeness: completeness{Request: b.Mode == Max || !b.confidential(), Dependencies: len(found.locals) == 0},
			},
		},
	}
	if b.BuilderID == "" {
		p.Details.Builder.ID = builder
	}
	if b.Mode == Max {
		p.Definition.Internal.Config = steps.config(s)
		p.Details.Metadata.BuildKit.Source = steps.source(s)
		if last := steps.last(); last != "" && len(b.Layers) > 0 {
			p.Details.Metadata.BuildKit.Layers = map[string][][]ocispec.Descriptor{last: {b.Layers}}
		}
	}
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write provenance: %w", err)
	}
	return s.json(data)
}

func platform(p ocispec.Platform) string {
	if p.OS == "" {
		return ""
	}
	return platforms.Format(platforms.Normalize(p))
}

// configSource is where the Dockerfile lies: beside the context, or in the
// directory that is another one's business.
func (b Build) configSource() configSource {
	c := configSource{Path: "Dockerfile"}
	if name := b.Options["filename"]; name != "" {
		c.Path = name
	}
	if uri := b.Options["context"]; strings.Contains(uri, "://") || strings.HasPrefix(uri, "git@") {
		c.URI = uri
		for id, sum := range b.Found {
			if sameSource(id, uri) {
				c.Digest = digestSet(sum)
			}
		}
	}
	return c
}

// request is what the build was asked for. What Min leaves out is what
// BuildKit leaves out.
func (b Build) request(steps *steps, locals []string) request {
	r := request{Frontend: "dockerfile.v0", Args: map[string]string{}}
	for key, value := range b.Options {
		switch {
		case strings.HasPrefix(key, "vcs:"), b.Mode == Min && private(key):
		case strings.HasSuffix(strings.ToLower(key), "_proxy"):
			r.Args[key] = withoutUser(value)
		default:
			r.Args[key] = value
		}
	}
	if !slices.Contains(locals, "dockerfile") && b.Options["context"] == "" {
		locals = append(locals, "dockerfile")
	}
	for _, name := range locals {
		r.Locals = append(r.Locals, local{name})
	}
	if b.Mode == Max {
		secrets, agents := steps.confidants()
		r.Secrets, r.Agents = ids(secrets), ids(agents)
	}
	return r
}

func ids(used map[string]bool) []secret {
	var list []secret
	for _, id := range slices.Sorted(maps.Keys(used)) {
		list = append(list, secret{id})
	}
	return list
}

// private tells whether an option may hold what not everybody should know.
func private(key string) bool {
	return strings.HasPrefix(key, "build-arg:") || strings.HasPrefix(key, "label:")
}

func (b Build) confidential() bool {
	for key := range b.Options {
		if private(key) {
			return true
		}
	}
	return false
}

// vcs is what the options say of the repository that the context is of.
func (b Build) vcs() map[string]string {
	vcs := map[string]string{}
	for key, value := range b.Options {
		if name, ok := strings.CutPrefix(key, "vcs:"); ok && value != "" {
			vcs[name] = value
		}
	}
	return vcs
}
