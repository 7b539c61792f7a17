package build

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/export"
	"github.com/shaleproject/shale/internal/build/gateway"
	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/registry/s3"
)

// Kinds of [CachePlace].
const (
	CacheLocal    = "local"
	CacheRegistry = "registry"
	CacheInline   = "inline"
	CacheS3       = "s3"
)

// CachePlace is where the build cache is kept for other machines: --cache-to
// and --cache-from.
type CachePlace struct {
	Kind string
	Ref  string // of a registry
	Dir  string // of a local one
	Tag  string // in Dir, or a digest; empty is "latest"
	S3   s3.Bucket

	// What follows is for writing it.

	Max         bool // all steps, not only those whose layers are in the image
	Compression layer.Compression
	Level       int
	IgnoreError bool // that it can't be written is a warning
	Parallel    int  // layers that travel at once; 0 means the default
}

func (p CachePlace) String() string {
	switch p.Kind {
	case CacheLocal:
		return p.Dir
	case CacheInline:
		return "the image"
	case CacheS3:
		return p.S3.String()
	}
	return p.Ref
}

// Media types of a cache: an artifact (image-spec, manifest.md) whose layers
// are those of images and whose config says which steps made them.
const (
	cacheArtifact = "application/vnd.shale.buildcache.v1"
	cacheConfig   = "application/vnd.shale.buildcache.config.v1+json"
)

func (j *job) place(p CachePlace) (image.Place, error) {
	switch p.Kind {
	case CacheLocal:
		return j.Images.Layout(p.Dir, p.Tag)
	case CacheS3:
		bucket, err := s3.New(p.S3, j.Transport, j.Now)
		if err != nil {
			return image.Place{}, err
		}
		return j.Images.At(bucket)
	}
	return j.Images.Remote(p.Ref)
}

// importCaches opens what the request names. One that can't be used costs
// time, not the build.
func (j *job) importCaches(ctx context.Context) error {
	for _, p := range j.req.Cache.From {
		step := j.status.Step("importing cache from " + p.String())
		sources, err := j.importCache(ctx, p)
		if ctx.Err() != nil {
			step.Done(context.Canceled)
			return context.Cause(ctx)
		}
		step.Done(err)
		if err != nil {
			j.warn(step, fmt.Sprintf("the cache at %s is not used: %v", p, err))
			continue
		}
		for _, s := range sources {
			s.Broken = func(err error) { j.warn(step, fmt.Sprintf("the cache at %s is not used any more: %v", p, err)) }
			j.cache.Import(s)
		}
	}
	return nil
}

func (j *job) warn(step *solver.Step, text string) {
	j.status.Warn(bkclient.VertexWarning{Vertex: step.Digest(), Level: 1, Short: []byte(text)})
}

// importCache opens one. An image for several platforms has the cache of each in
// its own; what it lacks of those that are built is left out.
func (j *job) importCache(ctx context.Context, p CachePlace) ([]*cache.Source, error) {
	at, err := j.place(p)
	if err != nil {
		return nil, err
	}
	wanted, err := j.targetPlatforms()
	if err != nil {
		return nil, err
	}
	var sources []*cache.Source
	var seen []digest.Digest
	var missing error
	for _, platform := range wanted {
		a, err := j.Images.OpenArtifact(ctx, j.lease, at, platform)
		if err == nil && slices.Contains(seen, a.Descriptor.Digest) {
			continue
		}
		var bundle *cache.Bundle
		if err == nil {
			seen = append(seen, a.Descriptor.Digest)
			bundle, err = cache.Extract(a.Config)
		}
		switch {
		case err != nil:
			missing = cmp.Or(missing, err)
		case bundle == nil:
			missing = cmp.Or(missing, fmt.Errorf("%s has no build cache in it: %w", a.Descriptor.Digest, errdefs.ErrNotFound))
		default:
			sources = append(sources, &cache.Source{Name: p.String(), Bundle: bundle, Fetch: a.Fetch})
		}
	}
	if len(sources) == 0 {
		return nil, missing
	}
	return sources, nil
}

// targetPlatforms are those that the request names; nil is this machine's.
func (j *job) targetPlatforms() ([]*ocispec.Platform, error) {
	if j.req.Language.Platform == "" {
		return []*ocispec.Platform{nil}, nil
	}
	var list []*ocispec.Platform
	for _, name := range strings.Split(j.req.Language.Platform, ",") {
		p, err := image.ParsePlatform(name)
		if err != nil {
			return nil, err
		}
		list = append(list, &p)
	}
	return list, nil
}

// inlineCache adds to config which steps made the image, if that is asked for.
func (j *job) inlineCache(ctx context.Context, config []byte, layers []digest.Digest) ([]byte, error) {
	if !slices.ContainsFunc(j.req.Cache.To, func(p CachePlace) bool { return p.Kind == CacheInline }) {
		return config, nil
	}
	bundle, err := j.cache.Bundle(ctx, func(d digest.Digest) bool { return slices.Contains(layers, d) })
	if err != nil {
		return nil, fmt.Errorf("export cache into the image: %w", err)
	}
	return bundle.Embed(config)
}

// exportCaches writes the cache to where the request says.
func (j *job) exportCaches(ctx context.Context, res *client.Result) error {
	if len(j.req.Cache.To) == 0 {
		return nil
	}
	layers, err := resultLayers(ctx, res)
	if err != nil {
		return err
	}
	for _, p := range j.req.Cache.To {
		if p.Kind == CacheInline {
			continue
		}
		step := j.status.Step("exporting cache to " + p.String())
		err = j.exportCache(ctx, p, layers, step)
		step.Done(err)
		if err == nil {
			continue
		}
		err = fmt.Errorf("export cache to %s: %w", p, err)
		if !p.IgnoreError || ctx.Err() != nil {
			return err
		}
		j.warn(step, err.Error())
	}
	return nil
}

// resultLayers are the layers of all that was built.
func resultLayers(ctx context.Context, res *client.Result) ([]digest.Digest, error) {
	all := []client.Reference{res.Ref}
	for _, r := range res.Refs {
		all = append(all, r)
	}
	var layers []digest.Digest
	for _, r := range all {
		if r, ok := r.(*gateway.Reference); ok {
			known, err := r.Layers(ctx)
			if err != nil {
				return nil, err
			}
			layers = append(layers, export.DiffIDs(known)...)
		}
	}
	return layers, nil
}

func (j *job) exportCache(ctx context.Context, p CachePlace, layers []digest.Digest, step *solver.Step) error {
	at, err := j.place(p)
	if err != nil {
		return err
	}
	bases := j.bases.known()
	bundle, err := j.cache.Bundle(ctx, func(d digest.Digest) bool {
		return p.Max || bases[d] || slices.Contains(layers, d)
	})
	if err != nil {
		return err
	}
	// Whoever gets to a step has the base that it stands on.
	send := []digest.Digest{}
	for _, l := range bundle.Layers {
		if !bases[l.Digest] && !slices.Contains(send, l.Digest) {
			send = append(send, l.Digest)
		}
	}
	config, err := json.Marshal(map[string]any{
		"rootfs":          ocispec.RootFS{Type: "layers", DiffIDs: send},
		cache.BundleField: bundle,
	})
	if err != nil {
		return err
	}
	desc, err := j.Images.PushArtifact(ctx, j.lease, at, send, image.ArtifactOptions{
		Type: cacheArtifact, ConfigType: cacheConfig, Config: config, Compression: p.Compression, Level: p.Level, Parallel: p.Parallel,
		Progress: shown(step),
	})
	if err == nil {
		step.Progress("writing manifest "+desc.Digest.String(), 0, 0, true)
	}
	return err
}
