package layer

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
)

// UnpackOptions says how the files of a layer become files of the host. The
// zero value is for root.
type UnpackOptions struct {
	// UserXattr marks opaque directories with user.overlay.opaque, for
	// overlayfs mounted with "userxattr", instead of trusted.overlay.opaque.
	UserXattr bool

	// NoOwner leaves every file to the calling user.
	NoOwner bool

	// NoDevices leaves block and character devices out. Whiteouts stay.
	NoDevices bool

	// Warn, if not nil, hears of extended attributes that the file system
	// or the kernel did not take. If it is nil, they are errors.
	Warn func(name string, err error)
}

// Unpack writes the layer tar into dir, which must be empty, in the form that
// overlayfs wants of a lower directory: whiteouts are devices 0/0, opaque
// directories have an attribute. It never leaves dir, and what it makes
// equals what [FS] shows for the same tar.
//
// A tar that is an [io.ReaderAt] is read in place; any other is first copied
// to a file without a name in dir.
func Unpack(ctx context.Context, tar io.Reader, dir string, o UnpackOptions) error {
	return fmt.Errorf("unpack layer: %w", errdefs.ErrNotImplemented)
}
