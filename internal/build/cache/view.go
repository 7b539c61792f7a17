package cache

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"path"
	"reflect"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/build/ref"
	"github.com/shaleproject/shale/internal/tree"
)

// View is the part of an input that a step can see. Nothing but its parts
// goes into the key of the step.
type View struct {
	Parts []Part
}

// Part is one path that a step reads, with all that lies below it.
type Part struct {
	Path   string
	Select tree.DigestOptions // its Cache is not looked at

	// Optional says that the step can do without: then a missing Path is
	// content like any other.
	Optional bool
}

// Add adds a part, unless the view has it already.
func (v *View) Add(p Part) {
	for _, have := range v.Parts {
		if reflect.DeepEqual(have, p) {
			return
		}
	}
	v.Parts = append(v.Parts, p)
}

// whole is the view of everything.
var whole = View{Parts: []Part{{Path: "/"}}}

// content is the digest of what view shows of r. seen, if not nil, hears of
// the files.
func (c *Cache) content(ctx context.Context, r *ref.Ref, view *View, seen *files) (digest.Digest, error) {
	fsys, err := r.FS()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, p := range view.Parts {
		o := p.Select
		o.Cache, o.Temp = c.stats, c.temp
		if seen != nil {
			o.Each = seen.each(p)
		}
		d, err := tree.Digest(ctx, fsys, p.Path, o)
		switch {
		case p.Optional && errdefs.IsNotFound(err):
			d = "none"
		case errdefs.IsNotFound(err) && len(o.Required) == 0:
			return "", fmt.Errorf("compute cache key: %q: %w", path.Join("/", p.Path), errdefs.ErrNotFound)
		case err != nil:
			return "", fmt.Errorf("compute cache key: %w", err)
		}
		field(h, []byte(p.Path))
		field(h, []byte(d))
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

// field writes data to h so that no two lists of fields look the same.
func field(h hash.Hash, data []byte) {
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(data)))
	h.Write(n[:])
	h.Write(data)
}
