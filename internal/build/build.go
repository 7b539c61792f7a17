// Package build makes images from Dockerfiles.
//
// The language is BuildKit's own front end ([gateway]); it yields a graph of
// steps, which the [solver] runs on layers of the store with the operations
// of [ops], skipping what the [cache] knows; [export] turns the result into
// an image. A build reads its context where it lies and writes nothing but
// the store. Until it is complete, only a lease keeps what it made, so one
// that is interrupted leaves nothing but garbage for the collector.
package build

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/gateway/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/cache"
	"github.com/shaleproject/shale/internal/build/gateway"
	"github.com/shaleproject/shale/internal/build/history"
	"github.com/shaleproject/shale/internal/build/ids"
	"github.com/shaleproject/shale/internal/build/limit"
	"github.com/shaleproject/shale/internal/build/ops"
	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/build/solver"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/network"
	"github.com/shaleproject/shale/internal/rootfs"
	"github.com/shaleproject/shale/internal/store"
)

// Builder builds images into one store.
type Builder struct {
	Store  *store.Store
	Images *image.Images

	// Rootfs returns the driver that shows layers to a RUN. It is asked when
	// the first RUN is about to run.
	Rootfs func() (rootfs.Driver, error)

	// Networks connect what runs. Nil makes every RUN on the default network
	// an error.
	Networks *network.Networks

	// Runtime is the path of an OCI runtime; empty means the linked-in one.
	Runtime string

	// Transport carries downloads; nil is Go's default.
	Transport http.RoundTripper

	// Platform is this machine's.
	Platform ocispec.Platform

	// Now is the clock of history entries, of files that have no other time,
	// and of the progress.
	Now func() time.Time
}

// job is one build.
type job struct {
	*Builder
	req      Request
	status   *solver.Status
	lease    *store.Lease
	pool     *ref.Pool
	contexts *contexts
	agents   *agents
	journal  *cache.Journal
	cache    *cache.Cache
	bases    *bases
	tools    *ops.Tools
	epoch    *time.Time
	known    facts

	id      string
	kept    atomic.Bool  // a step that failed is
	history *history.Log // nil before there is something to tell
	drawing *drawing     // nil unless there is to be a timeline
}

// Build carries out r. What goes on is sent to status, which may be nil and
// otherwise must be drained; it is closed when Build returns.
//
// An error may carry places in the Dockerfile; [Excerpt] shows them.
func (b *Builder) Build(ctx context.Context, r Request, status chan<- *bkclient.SolveStatus) (_ Result, err error) {
	j := &job{Builder: b, id: ids.New(), req: r, status: solver.NewStatus(status, b.Now), epoch: r.epoch(), known: facts{started: b.Now()}}
	j.status.Scrub = j.scrub
	defer j.status.Close()
	if len(r.Outputs) == 0 {
		j.req.Outputs = []Output{{Kind: OutputImage}}
	}
	if err := j.req.checkOutputs(); err != nil {
		return Result{}, err
	}
	if j.lease, err = b.Store.Lease(ctx); err != nil {
		return Result{}, err
	}
	defer j.lease.Close()
	if j.contexts, err = openContexts(ctx, b.Images, j.lease, r.Files); err != nil {
		return Result{}, err
	}
	defer j.contexts.Close()
	if j.agents, err = openAgents(r.Run.Agents, r.Run.Keys); err != nil {
		return Result{}, err
	}
	defer j.agents.Close()
	j.remember()
	j.beginDrawing()
	defer func() { j.remembered(err) }()
	j.pool = ref.NewPool(b.Store, j.lease)
	defer j.pool.Close()
	j.journal = j.newJournal()
	res, err := j.run(ctx)
	err = j.afterwards(ctx, err)
	if jerr := j.journal.Save(); err == nil {
		err = jerr
	}
	res.Steps = j.journal.Verdicts()
	res.Timeline = j.drawn(err)
	return res, err
}

func (j *job) run(ctx context.Context) (Result, error) {
	options, err := j.req.options()
	if err != nil {
		return Result{}, err
	}
	for key, value := range j.contexts.options {
		options[key] = value
	}
	j.bases = newBases(j.Images, j.lease, j.contexts.layouts)
	stats := cache.NewStats(j.Store, j.contexts.place)
	defer stats.Close()
	j.cache = cache.New(j.Store, j.pool, stats)
	j.cache.Collect = len(j.req.Cache.To) > 0
	if err := j.importCaches(ctx); err != nil {
		return Result{}, err
	}
	j.tools = &ops.Tools{
		Store: j.Store, Lease: j.lease, Pool: j.pool,
		Contexts: j.contexts.trees, Images: j.bases,
		Now: j.Now, Epoch: j.epoch, Platform: j.Platform,
		Transport: j.Transport, Runner: j.runner(),
		Found: j.known.add, Dated: j.known.date,
	}
	s := solver.New(ctx, solver.Options{
		Operation: j.operation,
		Cache:     j.cache,
		Journal:   j.journal,
		Pool:      j.pool, Status: j.status,
		Parallel: j.parallel(), Trace: j.tracer(j.parallel()),
	})
	defer s.Close()
	j.known.options = options
	answers := &answered{ImageResolver: j.bases}
	front := &gateway.Client{
		Solver: s, Status: j.status, Options: options, Platform: j.Platform, Images: answers,
		Guard: limit.NewGuard(j.req.Language.Args), Dates: j.known.dateOf,
	}
	if j.req.Language.Call == CallListContext {
		return listContext(ctx, front)
	}
	if err := j.setEpoch(ctx, front); err != nil {
		return Result{}, err
	}
	res, err := j.frontEnd(ctx, front)
	if serr := stats.Save(); err == nil && serr != nil {
		err = fmt.Errorf("remember digests of the context: %w", serr)
	}
	if err != nil {
		return Result{}, err
	}
	if j.req.Language.Call != "" {
		return answer(res), nil
	}
	b, err := takeApart(res)
	if err != nil {
		return Result{}, err
	}
	if j.req.Verify {
		if err := j.verify(ctx, s, answers, b); err != nil {
			return Result{}, err
		}
	}
	out, err := j.export(ctx, b)
	if err == nil {
		err = j.exportCaches(ctx, res)
	}
	return out, err
}

func (j *job) operation(v *solver.Vertex) (solver.Operation, error) { return ops.New(j.tools, v) }

func (j *job) frontEnd(ctx context.Context, c *gateway.Client) (*client.Result, error) {
	if err := c.UseStages(ctx, j.contexts.stages); err != nil {
		return nil, err
	}
	return c.Run(ctx)
}

// parallel is how many steps may run at once. One that waits for the network
// leaves room for another.
func (j *job) parallel() int {
	if j.req.Jobs > 0 {
		return j.req.Jobs
	}
	return max(2, runtime.GOMAXPROCS(0))
}

func (j *job) runner() ops.Runner {
	run := j.req.Run
	return ops.Runner{
		Rootfs: j.rootfs, Networks: j.Networks, Runtime: j.Runtime,
		ResolvConf: hostResolvConf(),
		Secrets:    run.Secrets, Sockets: j.agents.sockets,
		HostNetwork: run.HostNetwork || run.Network == "host",
		Insecure:    run.Insecure,
		Keep:        j.keep,
	}
}

func (j *job) rootfs() (rootfs.Driver, error) {
	if j.Rootfs == nil {
		return nil, fmt.Errorf("no way to show layers as a file system: %w", errdefs.ErrNotImplemented)
	}
	return j.Rootfs()
}

// hostResolvConf is where the host's name servers are listed. What
// systemd-resolved puts into /etc names only itself, on the loopback.
func hostResolvConf() string {
	const behind = "/run/systemd/resolve/resolv.conf"
	if target, err := os.Readlink("/etc/resolv.conf"); err == nil && len(target) > 0 {
		if _, err := os.Stat(behind); err == nil {
			return behind
		}
	}
	return "/etc/resolv.conf"
}
