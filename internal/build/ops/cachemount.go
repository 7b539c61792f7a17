package ops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
	"github.com/shaleproject/shale/internal/tree"
)

// mountCache shows a directory that outlives the build.
//
// It lies in <store>/cache/mounts, named by a digest over its id and what it
// began with, so that no id is ever a path. A lock beside it says who uses
// it; it dies with the process.
func (j *job) mountCache(ctx context.Context, name string, m *pb.Mount) error {
	if m.CacheOpt == nil || m.CacheOpt.ID == "" {
		return fmt.Errorf("cache without an id: %w", errdefs.ErrInvalidArgument)
	}
	base, err := j.tools.input(j.in, m.Input)
	if err != nil {
		return err
	}
	layers, err := base.Layers(ctx)
	if err != nil {
		return err
	}
	id := m.CacheOpt.ID
	for _, l := range layers {
		id += "\x00" + l.Digest.String()
	}
	dir, err := j.lockCache(ctx, digest.FromString(id).Encoded(), m.CacheOpt.Sharing)
	if err != nil {
		return err
	}
	if err := fillCache(ctx, dir, base); err != nil {
		return err
	}
	return j.bindCache(name, dir, m)
}

// CacheMounts is where the directories of cache mounts lie, each with a lock
// beside it.
func CacheMounts(s *store.Store) string { return filepath.Join(s.Root(), "cache", "mounts") }

// lockCache takes the cache called id as sharing says and returns its
// directory, which may be missing.
func (j *job) lockCache(ctx context.Context, id string, sharing pb.CacheSharingOpt) (string, error) {
	parent := CacheMounts(j.tools.Store)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return "", err
	}
	dir := filepath.Join(parent, id)
	var lock *sys.FileLock
	var err error
	switch sharing {
	case pb.CacheSharingOpt_SHARED:
		lock, err = sys.LockContext(ctx, dir+".lock", sys.Shared)
	case pb.CacheSharingOpt_LOCKED:
		lock, err = sys.LockContext(ctx, dir+".lock", sys.Exclusive)
	case pb.CacheSharingOpt_PRIVATE: // the first copy that nobody uses
		for i := 0; ; i++ {
			if i > 0 {
				dir = filepath.Join(parent, id+"-"+strconv.Itoa(i))
			}
			lock, err = sys.TryLock(dir+".lock", sys.Exclusive)
			if !errdefs.IsUnavailable(err) {
				break
			}
		}
	default:
		err = fmt.Errorf("sharing %s: %w", sharing, errdefs.ErrNotImplemented)
	}
	if err != nil {
		return "", err
	}
	j.closers = append(j.closers, lock.Close)
	now := j.tools.Now() // prune goes by the last use
	return dir, sys.Touch(dir+".lock", now, now)
}

// fillCache makes dir with what base holds, unless it is there. It is
// complete when it has its name.
func fillCache(ctx context.Context, dir string, base *ref.Ref) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fsys, err := base.FS()
	if err != nil {
		return err
	}
	aside, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(aside)
	if err := os.Chmod(aside, 0o755); err != nil {
		return err
	}
	r, w := io.Pipe()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		lw := layer.NewWriter(w)
		err := tree.Archive(ctx, fsys, lw)
		if err == nil {
			err = lw.Close()
		}
		w.CloseWithError(err)
		return err
	})
	group.Go(func() error {
		err := layer.Unpack(ctx, r, aside, layer.UnpackOptions{Warn: func(string, error) {}})
		r.CloseWithError(err)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	err = sys.RenameNoReplace(aside, dir)
	if errdefs.IsAlreadyExists(err) {
		return nil // somebody who shares the cache was faster
	}
	return err
}

// bindCache plans the mount of dir, or of the part that m selects. Others may
// be writing into the directory, so the part is found when it is mounted, in
// a way that does not leave dir.
func (j *job) bindCache(name, dir string, m *pb.Mount) error {
	at := j.path(name)
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	j.plan.mounts = append(j.plan.mounts, sys.Mount{Root: dir, Source: filepath.Join("/", m.Selector), Target: at, Flags: sys.Bind})
	options := []string{}
	if m.Readonly {
		options = append(options, "ro")
	}
	j.bind(at, m.Dest, options...)
	return nil
}
