// Package failure keeps what is left of steps that failed, so that somebody
// can look around in it.
//
// A failure is a record of the build cache: it holds the layers that the step
// began with, and has a directory with what the step had written. It goes by
// the rules of the cache, and when the same build succeeds or fails anew. No
// value of a secret is in it, unless the step wrote one into a file.
package failure

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shaleproject/shale/internal/build/ids"
	"github.com/shaleproject/shale/internal/store"
)

// Failure is a RUN that failed.
type Failure struct {
	ID    string    `json:"id"`    // of the build
	Scope string    `json:"scope"` // names the context and the Dockerfile
	At    time.Time `json:"at"`

	Context string `json:"context"`
	Step    string `json:"step"`
	Command string `json:"command"`
	Code    int    `json:"code"`

	// Op is the step as LLB has it (pb.ExecOp), without what proxies are
	// called, which may have passwords; Resources is a pb.LinuxResources.
	Op        []byte            `json:"op"`
	Resources []byte            `json:"resources,omitempty"`
	Platform  *ocispec.Platform `json:"platform,omitempty"`

	// Inputs are the layers of each input that a mount shows, lowest first.
	Inputs [][]digest.Digest `json:"inputs"`

	// Uppers are the mounts, by the name of their directory, for which the
	// record's directory has what the step wrote.
	Uppers []string `json:"uppers"`

	// What the build allowed.
	HostNetwork bool `json:"hostNetwork,omitempty"`
	Insecure    bool `json:"insecure,omitempty"`
}

const kind = "failed"

// most is how many failures are kept.
const most = 20

// Keep keeps f and the directory dir, which is moved away. Failures of the
// same scope go, and the oldest if there are too many.
func Keep(ctx context.Context, s *store.Store, f Failure, dir string) error {
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	var holds []digest.Digest
	for _, layers := range f.Inputs {
		holds = append(holds, layers...)
	}
	slices.Sort(holds)
	if err := s.Cache(kind).PutDir(f.ID, store.Record{Data: data, Holds: slices.Compact(holds)}, dir); err != nil {
		return fmt.Errorf("keep the failed step: %w", err)
	}
	all, err := All(ctx, s)
	if err != nil {
		return err
	}
	n := 0
	for _, old := range all {
		if n++; old.ID != f.ID && (old.Scope == f.Scope || n > most) {
			if _, err := Remove(s, old.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// All returns what is kept, the latest first.
func All(ctx context.Context, s *store.Store) ([]Failure, error) {
	records, err := s.Cache(kind).All(ctx)
	if err != nil {
		return nil, err
	}
	var all []Failure
	for _, r := range records {
		var f Failure
		if json.Unmarshal(r.Data, &f) == nil {
			all = append(all, f)
		}
	}
	slices.SortFunc(all, func(a, b Failure) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// Open returns the failure called id, or whose id begins with it, or the latest
// if id is empty, and its directory, which the caller closes.
func Open(ctx context.Context, s *store.Store, id string) (Failure, *store.RecordDir, error) {
	all, err := All(ctx, s)
	if err != nil {
		return Failure{}, nil, err
	}
	f, err := choose(all, id)
	if err != nil {
		return Failure{}, nil, err
	}
	dir, err := s.Cache(kind).Dir(f.ID)
	if err != nil {
		return f, nil, err
	}
	_, err = s.Cache(kind).Get(f.ID) // it is used; and it is there still
	if err != nil {
		dir.Close()
	}
	return f, dir, err
}

// choose finds id among all, of which the latest is the first.
func choose(all []Failure, id string) (Failure, error) {
	if id != "" {
		return ids.Find(all, id, "failed step", func(f Failure) string { return f.ID })
	}
	if len(all) == 0 {
		return Failure{}, fmt.Errorf("no failed step is kept: %w", errdefs.ErrNotFound)
	}
	return all[0], nil
}

// Forget removes the failures of scope that nobody is looking at.
func Forget(ctx context.Context, s *store.Store, scope string) error {
	all, err := All(ctx, s)
	if err != nil {
		return err
	}
	for _, f := range all {
		if f.Scope == scope {
			if _, err := Remove(s, f.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// Remove removes a failure, unless somebody is looking at it, and tells
// whether it has.
func Remove(s *store.Store, id string) (bool, error) {
	err := s.Cache(kind).Delete(id)
	if errdefs.IsUnavailable(err) {
		return false, nil
	}
	return err == nil, err
}

// Size is what a failure takes on disk beside the layers that it holds, in
// bytes.
func Size(s *store.Store, id string) int64 { return s.Cache(kind).DirSize(id) }
