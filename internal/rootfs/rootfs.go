// Package rootfs shows a stack of layers as one directory tree.
//
// A [Driver] says which mounts do that; [sys.MountAll] makes them, inside a
// mount namespace that ends with the processes in it ([sys.PrivateMounts]).
// So nothing here has to be unmounted, not even after a power cut.
//
//   - erofs mounts each layer's tar through its index. It needs root and Linux
//     6.12, and keeps nothing on disk.
//   - overlay unpacks each layer once, into a tree of the store. It needs
//     Linux 5.11 and a user namespace, or root.
//
// Both stack with overlayfs, show the same files and pass [rootfstest.Run].
// A tree can't tell the host's kernel anything: redirects, metadata-only files
// and indexes of overlayfs are off, whatever attributes an image carries.
package rootfs

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/sys"
)

// Driver stacks layers into one file system.
//
// Every driver passes [rootfstest.Run].
type Driver interface {
	// Name is what `shale info` calls the driver, and what [Choose] takes.
	Name() string

	// Stack returns the mounts, in order, that show layers, lowest first, as
	// one tree at at/rootfs. The directory at must exist and is covered by a
	// tmpfs. Writes go to upper, and overlayfs keeps its own files in work,
	// which lies on the same file system; both are made if they are missing.
	// If upper is empty, the tree is read-only.
	//
	// The caller holds a lease or a container on layers for as long as they
	// are mounted. A layer that the store lacks is an [errdefs.ErrNotFound].
	Stack(ctx context.Context, layers []digest.Digest, at, upper, work string) ([]sys.Mount, error)

	// Forget drops whatever the driver derived from layer. It returns an
	// [errdefs.ErrFailedPrecondition] while layer is being made or used by
	// another process.
	Forget(ctx context.Context, layer digest.Digest) error
}
