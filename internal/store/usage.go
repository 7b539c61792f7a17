package store

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/shaleproject/shale/internal/sys"
)

// Share is what one kind of thing takes of the store.
type Share struct {
	Total       int   // things
	Active      int   // those in use; the store can't tell running containers from stopped ones and counts none
	Size        int64 // bytes
	Reclaimable int64 // bytes that removing what isn't active would free
}

// Usage is where the bytes of a store are, in blocks on disk. A layer counts
// with its index and its unpacked tree, and what several parts need counts for
// the first of them.
type Usage struct {
	Images     Share // what names point at; active: a container uses it
	Containers Share // their directories, and content that only they keep
	Volumes    Share
	Cache      Share // build cache: records, and content that only they keep
	Registry   Share // what hidden names and pushed blobs keep
	InFlight   int64 // temporary files, and content that only leases keep
	Garbage    int64 // content that the next Collect frees
	Total      int64 // of all that
}

// Usage measures the store. It reads no content but documents, and takes no
// lock: what others do meanwhile is counted or not.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	u := &usage{store: s, marker: newMarker(s), sizes: map[digest.Digest]int64{}}
	if err := u.measure(ctx); err != nil {
		return Usage{}, fmt.Errorf("measure store: %w", err)
	}
	return u.Usage, nil
}

type usage struct {
	Usage
	store  *Store
	marker *marker
	sizes  map[digest.Digest]int64 // of content that no part has claimed yet
}

func (u *usage) measure(ctx context.Context) error {
	if err := u.content(); err != nil {
		return err
	}
	for _, part := range []func(context.Context) error{u.images, u.containers, u.registry, u.cache, u.leases} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	for _, n := range u.sizes {
		u.Garbage += n
	}
	entries, err := readDir(u.store.path(volumesDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			u.Volumes.Total++
			u.Volumes.Size += treeSize(u.store.path(volumesDir, e.Name()))
		}
	}
	if entries, err = readDir(u.store.path(tmpDir)); err != nil {
		return err
	}
	for _, e := range entries {
		u.InFlight += treeSize(u.store.path(tmpDir, e.Name()))
	}
	u.Total = u.Images.Size + u.Containers.Size + u.Volumes.Size + u.Cache.Size + u.Registry.Size + u.InFlight + u.Garbage
	return nil
}

// content measures every blob with what is derived from it.
func (u *usage) content() error {
	for _, dir := range []string{blobsDir, indexDir, treesDir} {
		for _, a := range algorithms {
			entries, err := readDir(u.store.path(dir, a.name))
			if err != nil {
				return err
			}
			for _, e := range entries {
				d := digest.Digest(a.name + ":" + e.Name())
				u.sizes[d] += treeSize(u.store.path(dir, a.name, e.Name()))
			}
		}
	}
	return nil
}

// claim returns the bytes that ds reach and that nothing has claimed before.
func (u *usage) claim(ds ...digest.Digest) (int64, error) {
	reached, err := u.marker.reach(ds...)
	if err != nil {
		return 0, err
	}
	var n int64
	for _, d := range reached {
		n += u.sizes[d]
		delete(u.sizes, d)
		u.marker.live[d] = true
	}
	return n, nil
}

// images counts an image once, however many names it has. Those that
// containers use claim their content first; the rest is reclaimable.
func (u *usage) images(ctx context.Context) error {
	refs, err := u.store.Refs(ctx)
	if err != nil {
		return err
	}
	used, err := u.usedByContainers()
	if err != nil {
		return err
	}
	active := map[digest.Digest]bool{}
	for _, ref := range refs {
		d := ref.Descriptor.Digest
		if active[d], err = u.uses(used, d); err != nil {
			return err
		}
	}
	u.Images.Total = len(active)
	for _, pass := range []bool{true, false} {
		for d, isActive := range active {
			if isActive != pass {
				continue
			}
			n, err := u.claim(d)
			if err != nil {
				return err
			}
			u.Images.Size += n
			if isActive {
				u.Images.Active++
			} else {
				u.Images.Reclaimable += n
			}
		}
	}
	return nil
}

func (u *usage) usedByContainers() (map[digest.Digest]bool, error) {
	ids, err := u.store.Containers()
	if err != nil {
		return nil, err
	}
	used := map[digest.Digest]bool{}
	for _, id := range ids {
		holds, err := u.store.ContainerHolds(id)
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
		for _, d := range holds {
			used[d] = true
		}
	}
	return used, nil
}

// uses reports whether a container holds the image d: its manifest or index,
// or what they name directly other than layers, which images share.
func (u *usage) uses(used map[digest.Digest]bool, d digest.Digest) (bool, error) {
	reached, err := newMarkerOf(u.marker).reach(d)
	if err != nil {
		return false, err
	}
	for _, d := range reached {
		// Documents have children; layers have none.
		if used[d] && len(u.marker.docs[d]) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// newMarkerOf shares what m has read and has nothing live.
func newMarkerOf(m *marker) *marker {
	return &marker{store: m.store, docs: m.docs, live: map[digest.Digest]bool{}}
}

func (u *usage) containers(ctx context.Context) error {
	ids, err := u.store.Containers()
	if err != nil {
		return err
	}
	for _, id := range ids {
		holds, err := u.store.ContainerHolds(id)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return err
		}
		n, err := u.claim(holds...)
		if err != nil {
			return err
		}
		u.Containers.Total++
		u.Containers.Size += n + treeSize(u.store.ContainerDir(id))
	}
	return nil
}

func (u *usage) registry(ctx context.Context) error {
	seen := map[digest.Digest]bool{}
	claim := func(d digest.Digest) error {
		n, err := u.claim(d)
		u.Registry.Size += n
		return err
	}
	err := u.store.walkNames(ctx, refsDir, "", func(n refName, err error) error {
		if err != nil || !n.hidden() {
			return nil
		}
		ref, err := u.store.readRef(n)
		if err != nil || seen[ref.Descriptor.Digest] {
			return nil
		}
		seen[ref.Descriptor.Digest] = true
		return claim(ref.Descriptor.Digest)
	})
	if err != nil {
		return err
	}
	u.Registry.Total = len(seen)
	return u.store.walkLinks(ctx, "", func(path string, d digest.Digest) error { return claim(d) })
}

func (u *usage) cache(ctx context.Context) error {
	caches, err := u.store.caches()
	if err != nil {
		return err
	}
	for _, c := range caches {
		err := c.walk(ctx, recordWindow, func(path string, r *RecordFile, err error) error {
			info, serr := os.Lstat(path)
			if err != nil || serr != nil {
				return nil
			}
			n, err := u.claim(r.Holds...)
			u.Cache.Total++
			u.Cache.Size += n + sys.Blocks(info) + dirSize(path)
			return err
		})
		if err != nil {
			return err
		}
	}
	entries, err := readDir(u.store.path(cacheDir))
	if err != nil {
		return err
	}
	for _, e := range entries { // cache mounts
		if path := u.store.path(cacheDir, e.Name()); path != u.store.path(recordsDir) {
			u.Cache.Size += treeSize(path)
		}
	}
	u.Cache.Reclaimable = u.Cache.Size
	return nil
}

func (u *usage) leases(ctx context.Context) error {
	live, _, err := u.store.leases()
	if err != nil {
		return err
	}
	for _, ds := range live {
		n, err := u.claim(ds...)
		if err != nil {
			return err
		}
		u.InFlight += n
	}
	return nil
}
