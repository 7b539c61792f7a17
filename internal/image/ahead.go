package image

import (
	"context"
	"io"
	"os"
	"sync"

	"cuelabs.dev/go/oci/ociregistry"
	"github.com/opencontainers/go-digest"
)

// aheadFrom is the size of a layer's tar from which it is sent while it is
// being compressed. Below it a single request with everything is as quick.
const aheadFrom = 16 << 20

// ahead sends a file to a registry while the file still grows. It is a hope,
// not a promise: where it fails, the whole file is there to be sent in a
// request that can be repeated, and the error comes from that.
//
// A slow registry does not hold up whoever writes the file.
type ahead struct {
	upload ociregistry.BlobWriter
	cancel context.CancelFunc
	done   chan error

	mu    sync.Mutex
	grown sync.Cond
	size  int64 // of what can be read from the file
	ended bool  // no more will come
}

// sendAhead begins to send file to the repository of p. It returns nil if the
// registry does not want to begin. The caller calls commit or abandon.
func (p *pushing) sendAhead(ctx context.Context, file *os.File) *ahead {
	ctx, cancel := context.WithCancel(ctx)
	upload, err := p.dst.PushBlobChunked(ctx, p.repo, 0)
	if err != nil {
		cancel()
		return nil
	}
	a := &ahead{upload: upload, cancel: cancel, done: make(chan error, 1)}
	a.grown.L = &a.mu
	go func() { a.done <- a.follow(file) }()
	return a
}

// Write takes notice of p, which has been written to the file.
func (a *ahead) Write(p []byte) (int, error) {
	a.mu.Lock()
	a.size += int64(len(p))
	a.mu.Unlock()
	a.grown.Signal()
	return len(p), nil
}

// follow sends what the file has until it has ended.
func (a *ahead) follow(file io.ReaderAt) error {
	buffer := make([]byte, 256<<10)
	for sent := int64(0); ; {
		n := min(a.more(sent), int64(len(buffer)))
		if n == 0 {
			return nil
		}
		if _, err := file.ReadAt(buffer[:n], sent); err != nil {
			return err
		}
		if _, err := a.upload.Write(buffer[:n]); err != nil {
			return err
		}
		sent += n
	}
}

// more waits until the file has more than sent bytes, and returns how many
// more; 0 means that it has ended.
func (a *ahead) more(sent int64) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.size == sent && !a.ended {
		a.grown.Wait()
	}
	return a.size - sent
}

func (a *ahead) end() {
	a.mu.Lock()
	a.ended = true
	a.mu.Unlock()
	a.grown.Signal()
}

// commit sends the rest and names the whole. An error means that the registry
// does not have the blob.
func (a *ahead) commit(d digest.Digest) error {
	defer a.cancel()
	a.end()
	if err := <-a.done; err != nil {
		_ = a.upload.Cancel()
		return err
	}
	if _, err := a.upload.Commit(d); err != nil {
		_ = a.upload.Cancel()
		return err
	}
	return nil
}

// abandon drops what was sent.
func (a *ahead) abandon() {
	a.cancel()
	a.end()
	<-a.done
	_ = a.upload.Cancel()
}
