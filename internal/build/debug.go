package build

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/build/attest"
	"github.com/shaleproject/shale/internal/build/failure"
	"github.com/shaleproject/shale/internal/build/ops"
	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/sandbox"
	"github.com/shaleproject/shale/internal/sys"
)

// Failure is a step that failed and is kept.
type Failure = failure.Failure

// Program is what runs in a step that failed.
type Program = ops.Program

// KeptError is the error of a build whose failed step is kept.
type KeptError struct {
	ID  string // for [Builder.Debug]
	Err error
}

func (e *KeptError) Error() string { return e.Err.Error() }
func (e *KeptError) Unwrap() error { return e.Err }

// Hint tells what can be done with it.
func (e *KeptError) Hint() string {
	return "look around in the step that failed: shale debug " + e.ID
}

// scope names the context and the Dockerfile of a build.
func (j *job) scope() string {
	place := j.contexts.place
	if place == "" {
		place = j.req.Files.Context
	}
	return place + "\x00" + j.req.Files.Dockerfile
}

func (j *job) scopeDigest() string { return digest.FromString(j.scope()).Encoded() }

// keep keeps the first step that fails, unless that would keep a disk full.
func (j *job) keep(ctx context.Context, f failure.Failure, dir string) error {
	if free, all, err := sys.Free(dir); err == nil && free < max(64<<20, all/100) {
		return nil
	}
	if !j.kept.CompareAndSwap(false, true) {
		return nil
	}
	f.ID, f.Scope = j.id, j.scopeDigest()
	f.Step, f.Command = j.scrub(f.Step), j.scrub(f.Command)
	f.Context = j.scrub(j.req.Files.Context)
	if j.contexts.place != "" {
		f.Context = j.contexts.place
	}
	err := failure.Keep(ctx, j.Store, f, dir)
	if err != nil {
		j.kept.Store(false)
	}
	return err
}

// scrub takes out of a text what must not stay on disk.
func (j *job) scrub(text string) string { return attest.Scrub(text, j.req.Run.Secrets) }

// afterwards is what becomes of failed steps when the build ends with err:
// one that is kept is told of, one of an earlier build goes when this one has
// done something.
func (j *job) afterwards(ctx context.Context, err error) error {
	switch {
	case err != nil && j.kept.Load():
		return &KeptError{j.id, err}
	case err == nil && j.journal.Worked():
		return failure.Forget(ctx, j.Store, j.scopeDigest())
	}
	return err
}

// Failures lists the failed steps that are kept, the latest first.
func (b *Builder) Failures(ctx context.Context) ([]Failure, error) {
	return failure.All(ctx, b.Store)
}

// Debugging is a failed step, ready to be looked into.
type Debugging struct {
	Failure

	// Missing are the flags for the secrets and agents that the step had and
	// that were not given again.
	Missing []string

	tools   *ops.Tools
	dir     string
	closers []func() error
}

// Debug opens the failed step called id, the latest if it is empty. Of run,
// only secrets and agents count. The caller closes it.
func (b *Builder) Debug(ctx context.Context, id string, run Run) (_ *Debugging, err error) {
	d := &Debugging{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	lease, err := b.Store.Lease(ctx)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, lease.Close)
	f, dir, err := failure.Open(ctx, b.Store, id)
	if err != nil {
		return nil, fmt.Errorf("debug: %w", err)
	}
	d.Failure, d.dir = f, dir.Path
	d.closers = append(d.closers, dir.Close)
	pool := ref.NewPool(b.Store, lease)
	d.closers = append(d.closers, pool.Close)
	j := &job{Builder: b, req: Request{Run: run}}
	if j.agents, err = openAgents(run.Agents, run.Keys); err != nil {
		return nil, err
	}
	d.closers = append(d.closers, j.agents.Close)
	d.tools = &ops.Tools{
		Store: b.Store, Lease: lease, Pool: pool,
		Now: b.Now, Platform: b.Platform, Runner: j.runner(),
	}
	d.tools.Runner.Keep = nil
	d.Missing = d.tools.Missing(f)
	return d, nil
}

// Run runs p in the state that the step has left, and returns how it ended.
// What it writes is thrown away, except to cache mounts.
func (d *Debugging) Run(ctx context.Context, p Program) (sandbox.Exit, error) {
	exit, err := d.tools.Debug(ctx, d.Failure, d.dir, p)
	if err != nil {
		return exit, fmt.Errorf("debug %s: %w", d.ID, err)
	}
	return exit, nil
}

// Close gives up what the step needs.
func (d *Debugging) Close() error {
	var errs []error
	for i := len(d.closers) - 1; i >= 0; i-- {
		errs = append(errs, d.closers[i]())
	}
	d.closers = nil
	return errors.Join(errs...)
}
