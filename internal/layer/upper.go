package layer

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
)

// UpperOptions says how an upper directory becomes a layer.
type UpperOptions struct {
	// Epoch, if not nil, is the latest modification time that a member may
	// have; later ones are set to it (SOURCE_DATE_EPOCH).
	Epoch *time.Time

	// Skip, if not nil, says of a name whether to leave it out, together
	// with what lies below it: mount points that the run made, say.
	Skip func(name string) bool

	// Warn, if not nil, hears of files that a layer cannot hold: sockets.
	Warn func(name string, err error)
}

// FromUpper writes what the upper directory of an overlayfs holds as a layer,
// sorted by name: its whiteouts and opaque directories become those of the
// layer, its own attributes are dropped. The upper must not be mounted for
// writing meanwhile.
func FromUpper(ctx context.Context, w *Writer, upper string, o UpperOptions) error {
	return fmt.Errorf("read upper directory %s: %w", upper, errdefs.ErrNotImplemented)
}
