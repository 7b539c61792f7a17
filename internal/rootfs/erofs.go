package rootfs

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
)

// erofs mounts layers where they lie: the index as a file system, the tar as the
// device that holds its file contents.
type erofs struct {
	store *store.Store
}

func (d erofs) Name() string { return "erofs" }

func (d erofs) Stack(ctx context.Context, layers []digest.Digest, at, upper, work string) ([]sys.Mount, error) {
	s, err := look(d.store, layers)
	if err != nil {
		return nil, err
	}
	patch, err := s.patch(ctx, d.store, ownForm(), upper == "")
	if err != nil {
		return nil, err
	}
	mounts := []sys.Mount{scratch(at)}
	var lowers []string
	for i, l := range s.visible {
		index, err := d.store.Index(ctx, l)
		if err != nil {
			return nil, fmt.Errorf("stack layer %s: %w", l, err)
		}
		dir := filepath.Join(at, "layers", strconv.Itoa(i))
		lowers = append(lowers, dir)
		mounts = append(mounts, sys.Mount{
			Type: "erofs", Source: index, Target: dir,
			// These flags bind whoever enters the layer itself; the tree above
			// has its own.
			Flags: sys.ReadOnly | sys.NoDev | sys.NoSuid | sys.NoExec,
			Data:  sys.Option("device", d.store.Path(l)),
		})
	}
	if err := makeUpper(upper, work, s.root, true); err != nil {
		return nil, err
	}
	return append(mounts, stack(patch.over(lowers), at, upper, work)...), nil
}

// Forget removes patches. The index belongs to the store, which reads it too.
func (d erofs) Forget(_ context.Context, l digest.Digest) error { return forget(d.store, l) }
