package tree

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/shaleproject/shale/internal/layer"
	"golang.org/x/sync/errgroup"
)

// Sum is a SHA-256.
type Sum = [sha256.Size]byte

// StatKey is what lstat says about a file that is looked at again: where it is
// and its size and times.
type StatKey [5 * 8]byte

// StatCache remembers what the content of a file was when its metadata were
// those of the key. It is used from several goroutines. Keys and sums are no
// slices and strings, of which a large context would make a million.
type StatCache interface {
	Get(key StatKey) (Sum, bool)
	Put(key StatKey, sum Sum)
}

// quickStat is statOf that reads nothing from the host.
func quickStat(info fs.FileInfo) *layer.Stat {
	if f, ok := info.(*hostFile); ok {
		return f.plain()
	}
	return statOf(info)
}

// inFlight bounds how many files the walk is ahead of the digest.
const inFlight = 256

// runDigest hashes the entries that walk sends, in their order, while workers
// read the contents.
func runDigest(ctx context.Context, o DigestOptions, walk func(context.Context, chan<- *digestEntry) error) (digest.Digest, error) {
	walked := make(chan *digestEntry, inFlight)
	ordered := make(chan *digestEntry, inFlight)
	unread := make(chan *digestEntry, inFlight)
	running, stop := context.WithCancel(ctx)
	defer stop()
	g, running := errgroup.WithContext(running)
	g.Go(func() error {
		defer close(walked)
		return walk(running, walked)
	})
	g.Go(func() error {
		defer close(ordered)
		defer close(unread)
		for e := range walked {
			if e.from != nil && !e.cached(o.Cache) {
				e.done = make(chan struct{})
				unread <- e
			}
			ordered <- e
		}
		return nil
	})
	for range max(2, runtime.GOMAXPROCS(0)) {
		g.Go(func() error {
			readAll(running, o.Cache, unread)
			return nil
		})
	}
	sum := encoder{Hash: sha256.New()}
	sum.Write([]byte(digestVersion))
	var failed error
	g.Go(func() error {
		if failed = sum.all(ordered, o.Each); failed != nil {
			stop()
			for range ordered { // or the others would wait
			}
		}
		return nil
	})
	switch err := g.Wait(); {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case failed != nil:
		return "", failed
	case err != nil:
		return "", err
	}
	return digest.NewDigest(digest.SHA256, sum), nil
}

// all adds the entries, each as soon as its content is known.
func (w *encoder) all(entries <-chan *digestEntry, each func(string, Sum)) error {
	for e := range entries {
		if e.done != nil {
			<-e.done
		}
		if e.err != nil {
			return e.err
		}
		w.entry(e)
		if each != nil {
			each(strings.TrimPrefix(e.rel, "/"), sha256.Sum256(w.buf))
		}
	}
	return nil
}

// readAll finds out the contents of entries.
func readAll(ctx context.Context, cache StatCache, entries <-chan *digestEntry) {
	r := reader{cache: cache, buf: make([]byte, 64<<10)}
	for e := range entries {
		if e.err = ctx.Err(); e.err == nil {
			e.err = r.read(e)
		}
		close(e.done)
	}
}

// cached takes the content from the cache, if it is there.
func (e *digestEntry) cached(cache StatCache) bool {
	f, ok := e.info.(*hostFile)
	if !ok || cache == nil {
		return false
	}
	e.content, ok = cache.Get(f.key())
	return ok
}

// reader reads the contents of files, one after the other.
type reader struct {
	cache StatCache
	buf   []byte
}

// read hashes the extended attributes and the content of e.
func (r *reader) read(e *digestEntry) error {
	w := encoder{Hash: sha256.New()}
	w.xattrs(statOf(e.info).Xattrs)
	w.Write(w.buf)
	if e.info.Size() > 0 {
		f, err := e.from.Open(e.at)
		if err != nil {
			return fmt.Errorf("read %s: %w", absolute(e.path), classed(err))
		}
		// A file that has grown meanwhile says so when it is closed: nothing
		// has to be read beyond its end.
		n, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(f, e.info.Size()), r.buf)
		if err != nil {
			f.Close()
			return fmt.Errorf("read %s: %w", absolute(e.path), err)
		}
		if err := f.Close(); err != nil {
			return err
		}
		if n != e.info.Size() {
			return fmt.Errorf("read %s: %d of %d bytes: %w", absolute(e.path), n, e.info.Size(), errdefs.ErrAborted)
		}
	}
	w.Sum(e.content[:0])
	if f, ok := e.info.(*hostFile); ok && r.cache != nil && f.settled() {
		r.cache.Put(f.key(), e.content)
	}
	return nil
}

// settled reports whether any later change of the file would show in its
// times: it must be older than the tick of the clock that gives them, which is
// 10 ms at most, and 2 s on file systems that keep whole seconds only.
func (f *hostFile) settled() bool {
	tick := 20 * time.Millisecond
	if f.Ctime%int64(time.Second) == 0 {
		tick = 2 * time.Second
	}
	return f.in.listed-f.Ctime > int64(tick)
}
