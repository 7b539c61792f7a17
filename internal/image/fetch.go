package image

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/progress"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
)

// defaultParallel is how many layers travel at once, as in Docker.
const defaultParallel = 3

// layers fetches what of the layers is not in the store.
func (p *pulling) layers(ctx context.Context, layers []ocispec.Descriptor, diffIDs []digest.Digest) error {
	if err := p.lease.Keep(diffIDs...); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel(p.o.Parallel))
	asked := make(map[digest.Digest]bool, len(layers))
	var todo []int
	for n, l := range layers {
		if asked[diffIDs[n]] {
			continue
		}
		asked[diffIDs[n]] = true
		if _, err := p.images.Store.Stat(diffIDs[n]); err == nil {
			p.images.seen(l.Digest, p.source)
			p.o.Progress.Emit(progress.Event{ID: short(l.Digest), Action: "Already exists"})
			continue
		}
		p.o.Progress.Emit(progress.Event{ID: short(l.Digest), Action: "Pulling fs layer"})
		todo = append(todo, n)
	}
	for _, n := range todo {
		group.Go(func() error {
			if err := p.layer(ctx, layers[n], diffIDs[n]); err != nil {
				return fmt.Errorf("layer %s: %w", short(layers[n].Digest), err)
			}
			return nil
		})
	}
	return group.Wait()
}

func parallel(n int) int {
	if n > 0 {
		return n
	}
	return defaultParallel
}

// layer fetches one layer as one stream: verify, decompress, hash, write,
// index. Of several processes that want the same layer one fetches it, the
// others wait.
func (p *pulling) layer(ctx context.Context, l ocispec.Descriptor, diffID digest.Digest) error {
	lock, err := p.images.lock(ctx, "fetch-"+diffID.Encoded())
	if err != nil {
		return err
	}
	defer lock.Remove()
	id := short(l.Digest)
	if _, err := p.images.Store.Stat(diffID); err == nil {
		p.o.Progress.Emit(progress.Event{ID: id, Action: "Pull complete"})
		return nil
	}
	r, err := p.src.GetBlob(ctx, p.repo, l.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	blob := newVerifier(r, l, func(n int64) {
		p.o.Progress.Emit(progress.Event{ID: id, Action: "Downloading", Current: n, Total: l.Size})
	})
	done := func() { p.o.Progress.Emit(progress.Event{ID: id, Action: "Download complete"}) }
	if err := p.images.ingestLayer(ctx, p.lease, blob, diffID, done); err != nil {
		return err
	}
	p.images.remember(l.Digest, note{DiffID: diffID, MediaType: l.MediaType, Size: l.Size, Sources: []string{p.source}})
	p.o.Progress.Emit(progress.Event{ID: id, Action: "Pull complete"})
	return nil
}

// lock takes the lock that all processes on the store know as name.
func (i *Images) lock(ctx context.Context, name string) (*sys.FileLock, error) {
	return sys.LockContext(ctx, filepath.Join(i.Store.Root(), "tmp", name), sys.Exclusive)
}

// ingestLayer takes in the layer that blob holds in some compression. Nothing
// is visible unless blob is what its descriptor says and the layer in it has
// the DiffID want. done is called when all of blob is there.
func (i *Images) ingestLayer(ctx context.Context, l *store.Lease, blob *verifier, want digest.Digest, done func()) error {
	tar, _, err := layer.Decompress(blob)
	if err != nil {
		return blob.blame(err)
	}
	defer tar.Close()
	in, err := i.Store.IngestLayer(l)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.Copy(in, &expansion{r: tar, blob: blob}); err != nil {
		return blob.blame(err)
	}
	if err := blob.finish(); err != nil {
		return err
	}
	done()
	_, _, err = in.Commit(ctx, want)
	return err
}

// expansion stops a compressed layer that grows beyond all reason: a few
// kilobytes of zstd can stand for terabytes.
type expansion struct {
	r    io.Reader
	blob *verifier
	n    int64
}

const (
	maxRatio = 2000    // gzip can't do more than 1032
	freeSize = 1 << 30 // bytes that any layer may have
)

func (e *expansion) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.n += int64(n)
	if e.n > freeSize && e.n/maxRatio > e.blob.desc.Size {
		return n, errdefs.ErrResourceExhausted.WithMessage(
			fmt.Sprintf("%d bytes expand to more than %d", e.blob.desc.Size, e.n))
	}
	return n, err
}
