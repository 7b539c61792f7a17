package build

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	bkerrdefs "github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/export"
	"github.com/shaleproject/shale/internal/build/gateway"
	"github.com/shaleproject/shale/internal/build/limit"
	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/tree"
)

// Difference is one file that two builds of the same have made differently.
type Difference struct {
	Step string // "[2/3] RUN date > /stamp"
	File string // the Dockerfile; "" if the step has no place in it
	Line int

	Path string // absolute; "" if it is not about a file
	How  string // "mode 0644, then 0600"
}

func (d Difference) String() string {
	step := d.Step
	if d.File != "" {
		step = fmt.Sprintf("%s:%d: %s", d.File, d.Line, d.Step)
	}
	if d.Path == "" {
		return fmt.Sprintf("%s (%s)", d.How, step)
	}
	return fmt.Sprintf("%s: %s (%s)", d.Path, d.How, step)
}

// DifferenceError says that two builds of the same are not. It carries the
// place in the Dockerfile of the first difference.
type DifferenceError struct {
	Differences []Difference // that of the first step comes first
	More        int          // that are not in the list
}

func (e *DifferenceError) Error() string {
	return "built twice, it is not the same: " + e.Differences[0].String()
}

// maxDifferences bounds how many are named.
const maxDifferences = 11

// verify builds once more what s has built, without a cache: from the same
// contexts, bases and downloads. If that makes anything else it returns a
// [DifferenceError].
func (j *job) verify(ctx context.Context, s *solver.Solver, answers *answered, first *built) error {
	if err := j.nextSecond(ctx, first); err != nil {
		return err
	}
	again := solver.New(ctx, solver.Options{
		Operation: j.operation,
		Given: func(v *solver.Vertex) []*ref.Ref {
			if _, source := v.Op.Op.(*pb.Op_Source); source {
				return s.Made(v.Digest)
			}
			return nil
		},
		Pool: j.pool, Status: j.status.Again("again: "), Parallel: j.parallel(),
	})
	defer again.Close()
	res, err := j.frontEnd(ctx, &gateway.Client{
		Solver: again, Options: maps.Clone(j.known.options), Platform: j.Platform, Images: answers,
		Guard: limit.NewGuard(j.req.Language.Args), Dates: j.known.dateOf,
	})
	if err != nil {
		return fmt.Errorf("build again: %w", err)
	}
	second, err := takeApart(res)
	if err != nil {
		return err
	}
	c := &verifier{job: j, first: s, second: again, steps: map[digest.Digest]bool{}, pairs: map[[2]digest.Digest]bool{}}
	if err := c.images(ctx, first, second); err != nil {
		return fmt.Errorf("compare builds: %w", err)
	}
	return c.result()
}

// nextSecond waits until a program that writes the time down writes another
// one. What runs nothing need not wait.
func (j *job) nextSecond(ctx context.Context, b *built) error {
	for _, img := range b.images {
		target, err := solver.Load(img.ref.Definition())
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(solver.Order(target), func(v *solver.Vertex) bool { return v.Op.GetExec() != nil }) {
			continue
		}
		now := j.Now()
		select {
		case <-time.After(now.Truncate(time.Second).Add(time.Second).Sub(now)):
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// verifier compares two builds step by step.
type verifier struct {
	*job
	first, second *solver.Solver
	steps         map[digest.Digest]bool
	pairs         map[[2]digest.Digest]bool // of layers that were told about

	found  []Difference
	more   int
	source *bkerrdefs.Source // of the first
}

func (c *verifier) result() error {
	if len(c.found) == 0 {
		return nil
	}
	err := error(&DifferenceError{Differences: c.found, More: c.more})
	if c.source != nil {
		err = bkerrdefs.WithSource(err, c.source)
	}
	return err
}

func (c *verifier) images(ctx context.Context, first, second *built) error {
	for n, a := range first.images {
		if n >= len(second.images) || second.images[n].id != a.id {
			return fmt.Errorf("the second build has no %s: %w", a.id, errdefs.ErrInternal)
		}
		target, err := solver.Load(a.ref.Definition())
		if err != nil {
			return err
		}
		for _, v := range solver.Order(target) {
			if c.steps[v.Digest] {
				continue
			}
			c.steps[v.Digest] = true
			if err := c.step(ctx, v); err != nil {
				return fmt.Errorf("step %s: %w", v.Name, err)
			}
		}
		if err := c.config(ctx, a, second.images[n]); err != nil {
			return err
		}
	}
	return nil
}

// step compares what v has made. A layer of a step before it is that step's.
func (c *verifier) step(ctx context.Context, v *solver.Vertex) error {
	a, b := c.first.Made(v.Digest), c.second.Made(v.Digest)
	if a == nil {
		return nil // a cache of others spared it: what it is needed for is compared
	}
	if len(a) != len(b) {
		c.add(v, "", "it is no step of the second build")
		return nil
	}
	for n := range a {
		if a[n] == nil || b[n] == nil || a[n] == b[n] {
			continue
		}
		if err := c.output(ctx, v, a[n], b[n]); err != nil {
			return err
		}
	}
	return nil
}

func (c *verifier) output(ctx context.Context, v *solver.Vertex, a, b *ref.Ref) error {
	layersA, err := a.Layers(ctx)
	if err != nil {
		return err
	}
	layersB, err := b.Layers(ctx)
	if err != nil {
		return err
	}
	if len(layersA) != len(layersB) {
		treeA, err := a.FS()
		if err != nil {
			return err
		}
		treeB, err := b.FS()
		if err != nil {
			return err
		}
		return c.trees(ctx, v, treeA, treeB)
	}
	for n := range layersA {
		pair := [2]digest.Digest{layersA[n].Digest, layersB[n].Digest}
		if pair[0] == pair[1] || c.pairs[pair] {
			continue
		}
		c.pairs[pair] = true
		treeA, err := c.pool.Layer(pair[0])
		if err != nil {
			return err
		}
		treeB, err := c.pool.Layer(pair[1])
		if err != nil {
			return err
		}
		if err := c.trees(ctx, v, treeA, treeB); err != nil {
			return err
		}
	}
	return nil
}

func (c *verifier) trees(ctx context.Context, v *solver.Vertex, a, b tree.FS) error {
	before := len(c.found) + c.more
	err := tree.Compare(ctx, a, b, func(path, how string) { c.add(v, "/"+path, how) })
	if err == nil && len(c.found)+c.more == before {
		c.add(v, "", "its layer has the same files, written in another way")
	}
	return err
}

func (c *verifier) add(v *solver.Vertex, path, how string) {
	if len(c.found) == maxDifferences {
		c.more++
		return
	}
	d := Difference{Step: v.Name, Path: path, How: how}
	if path == "/." {
		d.Path = "/"
	}
	for _, s := range v.Sources {
		if len(s.Ranges) > 0 && s.Info != nil {
			d.File, d.Line = s.Info.Filename, int(s.Ranges[0].Start.Line)
			if c.source == nil && len(c.found) == 0 {
				c.source = s
			}
			break
		}
	}
	c.found = append(c.found, d)
}

// config compares the configurations, unless files differ: they hold the
// digests of layers.
func (c *verifier) config(ctx context.Context, a, b builtImage) error {
	if len(c.found) > 0 {
		return nil
	}
	var configs [2]map[string]json.RawMessage
	for n, img := range []builtImage{a, b} {
		layers, err := img.ref.Layers(ctx)
		if err != nil {
			return err
		}
		config, err := export.Config(img.config, img.base, layers, c.epoch, c.Now().UTC())
		if err == nil {
			err = json.Unmarshal(config, &configs[n])
		}
		if err != nil {
			return err
		}
	}
	for _, field := range slices.Sorted(maps.Keys(configs[0])) {
		if !bytes.Equal(configs[0][field], configs[1][field]) {
			c.add(&solver.Vertex{Name: "the configuration"}, "", fmt.Sprintf("%q differs: %s, then %s", field, configs[0][field], configs[1][field]))
		}
	}
	return nil
}

// answered remembers what it was told of images, so that a second build has
// the same ones.
type answered struct {
	gateway.ImageResolver

	mu    sync.Mutex
	known map[string]answeredImage
}

type answeredImage struct {
	digest digest.Digest
	config []byte
}

func (a *answered) Resolve(ctx context.Context, name, mode string, platform *ocispec.Platform, step *solver.Step) (digest.Digest, []byte, error) {
	key := name + "\x00" + mode
	if platform != nil {
		key += fmt.Sprintf("\x00%v", *platform)
	}
	a.mu.Lock()
	img, ok := a.known[key]
	a.mu.Unlock()
	if ok {
		return img.digest, img.config, nil
	}
	d, config, err := a.ImageResolver.Resolve(ctx, name, mode, platform, step)
	if err != nil {
		return "", nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil {
		a.known = map[string]answeredImage{}
	}
	a.known[key] = answeredImage{d, config}
	return d, config, nil
}
