package tree

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// StatCache remembers what the content of a file was when its metadata were
// those that key is made of. It is used from several goroutines.
type StatCache interface {
	Get(key []byte) (digest.Digest, bool)
	Put(key []byte, d digest.Digest)
}

// DigestOptions select what a digest covers. The fields that CopyOptions have,
// too, mean the same.
type DigestOptions struct {
	FollowSymlink bool
	Wildcard      bool
	DirContents   bool // leave out the metadata of the directory that path names
	Include       []string
	Exclude       []string
	Required      []string

	// Cache, if not nil, saves reading files of a [Dir] that did not change.
	Cache StatCache
}

// Digest is the digest of all that a step which reads path of fsys can see:
// names, types, modes, owners, sizes, link targets, hard links, extended
// attributes and content, but no times. The name of path itself is not part of
// it, that of each match of a wildcard is. Nothing at path, or at one of the
// required paths, is [errdefs.ErrNotFound].
func Digest(ctx context.Context, fsys FS, path string, o DigestOptions) (digest.Digest, error) {
	return "", fmt.Errorf("digest %s: %w", path, errdefs.ErrNotImplemented)
}
