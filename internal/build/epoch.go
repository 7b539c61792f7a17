package build

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"

	"github.com/shaleproject/shale/internal/build/gateway"
	"github.com/shaleproject/shale/internal/tree"
)

// epoch is SOURCE_DATE_EPOCH as the build's arguments have it, if that is a
// number; the front end knows what else it may be.
func (r *Request) epoch() *time.Time {
	seconds, err := strconv.ParseInt(r.Language.Args["SOURCE_DATE_EPOCH"], 10, 64)
	if err != nil {
		return nil
	}
	t := time.Unix(seconds, 0).UTC()
	return &t
}

// setEpoch finds the date of the build, and tells the steps and front.
//
// A build argument counts most, then what the Dockerfile says. If neither does
// and the build is to be reproducible, it is the date of the commit that the
// context is, and where there is none 1970-01-01.
func (j *job) setEpoch(ctx context.Context, front *gateway.Client) error {
	if j.req.Language.Call != "" {
		return nil
	}
	if j.epoch == nil {
		j.epoch = front.Epoch(ctx)
	}
	if j.req.Reproducible || j.req.Verify {
		if err := j.reproducible(ctx, front); err != nil {
			return err
		}
	}
	if j.epoch == nil {
		return nil
	}
	front.Options[gateway.EpochOption] = strconv.FormatInt(j.epoch.Unix(), 10)
	j.tools.Epoch = j.epoch
	// Not only later times: those of a context are of its directory, not of
	// what is in it, and no step's key knows them.
	for name, t := range j.contexts.trees {
		if name == dockerfiles {
			continue
		}
		j.contexts.trees[name] = tree.At(t, *j.epoch)
	}
	return nil
}

// reproducible takes from the build what depends on where and when it runs.
func (j *job) reproducible(ctx context.Context, front *gateway.Client) error {
	origin := "asked for"
	if j.epoch == nil {
		var err error
		if origin, err = j.commitEpoch(ctx, front); err != nil {
			return err
		}
	}
	if now := j.Now(); j.epoch.After(now) {
		return fmt.Errorf("build reproducibly: its date %s (%s) is ahead of this machine's clock: %w",
			j.epoch.Format(time.RFC3339), origin, errdefs.ErrFailedPrecondition)
	}
	j.tools.Exact = true
	j.status.Step("[internal] set all times to " + j.epoch.Format(time.RFC3339) + " (" + origin + ")").Done(nil)
	return nil
}

// commitEpoch sets the epoch to the date of the commit that the context is. It
// returns what the date is of.
func (j *job) commitEpoch(ctx context.Context, front *gateway.Client) (origin string, err error) {
	start := time.Unix(0, 0).UTC()
	j.epoch = &start
	if gateway.IsGit(front.Options[mainContext]) {
		front.Options[gateway.EpochOption] = "context"
		at := front.Epoch(ctx)
		if at == nil {
			return "the context is no commit", nil
		}
		*j.epoch = at.UTC()
		return "the commit of the context", nil
	}
	if j.contexts.place == "" {
		return "the context is no commit", nil
	}
	dir, err := j.lease.TempDir()
	if err != nil {
		return "", err
	}
	c, err := findCommit(ctx, j.contexts.place, dir)
	if err != nil {
		return "", fmt.Errorf("find commit of the context %s: %w", j.contexts.place, err)
	}
	switch {
	case c == nil:
		return "the context is no commit", nil
	case c.dirty:
		return "the context has changes that are not committed", nil
	}
	*j.epoch = c.at
	return "commit " + c.id[:12], nil
}
