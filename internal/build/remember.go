package build

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/shaleproject/shale/internal/build/history"
)

// remember begins the history of the build. Calls are none.
func (j *job) remember() {
	if j.req.Language.Call != "" {
		return
	}
	r := history.Record{
		ID: j.id, Context: j.scrub(j.req.Files.Context), Dockerfile: j.req.Files.Dockerfile,
		Target: j.req.Language.Target, Started: j.known.started,
	}
	for _, o := range j.req.Outputs {
		r.Names = append(r.Names, o.Names...)
	}
	if j.contexts.place != "" {
		r.Context = j.contexts.place
		if r.Dockerfile != "" && r.Dockerfile != "-" {
			if abs, err := filepath.Abs(r.Dockerfile); err == nil {
				r.Dockerfile = abs
			}
		}
	}
	j.history = history.New(j.Store, r, j.scrub)
	j.status.Watch(j.history.Observe)
}

// remembered completes the history of the build, which ends with err. That it
// can't be written is no failure of the build.
func (j *job) remembered(err error) {
	if j.history == nil {
		return
	}
	j.status.Unwatch()
	status := history.Completed
	switch {
	case errors.Is(err, context.Canceled):
		status = history.Canceled
	case err != nil:
		status = history.Failed
	}
	if err := j.history.End(j.Now(), status, err, j.kept.Load()); err != nil {
		slog.Debug("remember build", "error", err)
	}
}
