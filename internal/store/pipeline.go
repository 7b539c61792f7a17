package store

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
)

// A pipeline's memory: that many buffers of that many bytes.
const (
	pipeBuffers    = 8
	pipeBufferSize = 256 << 10
)

var errPipeStopped = fmt.Errorf("ingest layer: committed or closed already: %w", errdefs.ErrFailedPrecondition)

// pipeline hands one stream to several consumers, each of which runs on a
// goroutine of its own and sees all of it in order. The slowest one sets the
// pace; buffers bound how far the others run ahead.
type pipeline struct {
	free chan *pipeBuffer
	fill *pipeBuffer // being filled, nil if none
	outs []chan *pipeBuffer
	done sync.WaitGroup
	fail atomic.Pointer[error] // the first error of a consumer
}

type pipeBuffer struct {
	data   []byte
	unread atomic.Int32 // consumers that have not had it yet
}

// newPipeline starts a goroutine for each consumer; stop ends them. A consumer
// that fails is fed no more.
func newPipeline(consumers ...func([]byte) error) *pipeline {
	p := &pipeline{free: make(chan *pipeBuffer, pipeBuffers)}
	for range pipeBuffers {
		p.free <- &pipeBuffer{}
	}
	for _, consume := range consumers {
		out := make(chan *pipeBuffer, pipeBuffers)
		p.outs = append(p.outs, out)
		p.done.Go(func() { p.run(out, consume) })
	}
	return p
}

func (p *pipeline) run(in <-chan *pipeBuffer, consume func([]byte) error) {
	var failed bool
	for b := range in {
		if !failed {
			if err := consume(b.data); err != nil {
				failed = true
				p.fail.CompareAndSwap(nil, &err)
			}
		}
		if b.unread.Add(-1) == 0 {
			b.data = b.data[:0]
			p.free <- b
		}
	}
}

func (p *pipeline) err() error {
	if err := p.fail.Load(); err != nil {
		return *err
	}
	return nil
}

// buffer returns the buffer to fill, with room in it.
func (p *pipeline) buffer() *pipeBuffer {
	if p.fill == nil {
		p.fill = <-p.free
		if p.fill.data == nil {
			p.fill.data = make([]byte, 0, pipeBufferSize)
		}
	}
	return p.fill
}

// send gives the buffer that was filled to every consumer.
func (p *pipeline) send() {
	b := p.fill
	p.fill = nil
	b.unread.Store(int32(len(p.outs)))
	for _, out := range p.outs {
		out <- b
	}
}

// Write takes a copy of data. It fails soon, not at once, after a consumer did.
func (p *pipeline) Write(data []byte) (int, error) {
	if p.outs == nil {
		return 0, errPipeStopped
	}
	n := 0
	for n < len(data) {
		if err := p.err(); err != nil {
			return n, err
		}
		b := p.buffer()
		m := min(len(data)-n, cap(b.data)-len(b.data))
		b.data = append(b.data, data[n:n+m]...)
		n += m
		if len(b.data) == cap(b.data) {
			p.send()
		}
	}
	return n, nil
}

// ReadFrom is io.Copy without the copy.
func (p *pipeline) ReadFrom(r io.Reader) (int64, error) {
	if p.outs == nil {
		return 0, errPipeStopped
	}
	var n int64
	for {
		if err := p.err(); err != nil {
			return n, err
		}
		b := p.buffer()
		m, err := r.Read(b.data[len(b.data):cap(b.data)])
		b.data = b.data[:len(b.data)+m]
		n += int64(m)
		if len(b.data) == cap(b.data) {
			p.send()
		}
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// stop lets the consumers see what they have not seen yet, ends them, and
// returns the first error of one. It may be called again.
func (p *pipeline) stop() error {
	if p.fill != nil && len(p.fill.data) > 0 {
		p.send()
	}
	p.fill = nil
	for _, out := range p.outs {
		close(out)
	}
	p.outs = nil
	p.done.Wait()
	return p.err()
}
