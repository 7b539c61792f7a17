// Package engine opens the parts of shale from one [Config] and hands them
// to the faces.
//
// It is the only place where constructors meet. Parts are opened when they
// are first asked for, so that `shale version` touches no file and `shale
// images` no network. An Engine is safe for concurrent use once its Config is
// settled.
package engine

import (
	"github.com/shaleproject/shale/internal/progress"
)

// Engine is shale as a library: one store and what works on it.
type Engine struct {
	// Config may be changed until the first part is opened.
	Config Config

	// Progress takes what long operations say. It may be nil.
	Progress progress.Sink
}

// New returns an engine that will work as c says. Nothing is opened yet; the
// caller closes it.
func New(c Config) *Engine {
	return &Engine{Config: c}
}

// Close gives up what was opened.
func (e *Engine) Close() error { return nil }
