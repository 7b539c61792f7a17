package rootfs

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/store"
	"github.com/shaleproject/shale/internal/sys"
)

// rootName is where the tree appears below the directory that a driver is given.
const rootName = "rootfs"

// scratch is the tmpfs that covers at. Nothing but mount points lies in it;
// nobody but its owner may pass, or setuid files of an image could be
// reached from outside.
func scratch(at string) sys.Mount {
	return sys.Mount{
		Type: "tmpfs", Source: "shale", Target: at,
		Flags: sys.NoDev | sys.NoSuid | sys.NoExec,
		Data:  "mode=0700,size=1m",
	}
}

// stack returns the mounts that join lowers, directories in the order of
// their layers, to one tree at at/rootfs. They come after scratch.
func stack(lowers []string, at, upper, work string, options ...string) []sys.Mount {
	// Redirects and metacopy would let an attribute in an image name a file
	// that is elsewhere. With an index, overlayfs ties the upper to these very
	// lower mounts, which are new ones after each start.
	options = append([]string{"redirect_dir=nofollow", "metacopy=off", "index=off"}, options...)
	flags, least := sys.ReadOnly, 2 // overlayfs.rst: without an upper, two lowers are needed
	if upper != "" {
		options = append(options, sys.Option("upperdir", upper), sys.Option("workdir", work))
		flags, least = 0, 1
	}
	var mounts []sys.Mount
	var empty []string
	for i := range max(0, least-len(lowers)) {
		dir := filepath.Join(at, "empty", strconv.Itoa(i))
		mounts = append(mounts, sys.Mount{
			Type: "tmpfs", Source: "shale", Target: dir,
			Flags: sys.ReadOnly | sys.NoDev | sys.NoSuid | sys.NoExec,
			Data:  "mode=0755,size=4k",
		})
		empty = append(empty, dir)
	}
	return append(mounts, sys.Mount{
		Type: "overlay", Source: "shale", Target: filepath.Join(at, rootName), Flags: flags,
		Data:   strings.Join(options, ","),
		Layers: append(empty, lowers...),
	})
}

// visible returns those of layers that a stack needs, and describes the root
// directory of the highest; nil if there is none. To open each layer makes
// sure that its index is whole before the kernel sees it.
func visible(s *store.Store, layers []digest.Digest) (needed []digest.Digest, root fs.FileInfo, err error) {
	layers = topmost(layers)
	for i := len(layers) - 1; i >= 0; i-- {
		info, err := rootOf(s, layers[i])
		if err != nil {
			return nil, nil, fmt.Errorf("stack layer %s: %w", layers[i], err)
		}
		if root == nil {
			root = info
		}
		if st, ok := info.Sys().(*layer.Stat); ok && st.Opaque {
			return layers[i:], root, nil // overlayfs merges roots, whatever they say
		}
	}
	return layers, root, nil
}

func rootOf(s *store.Store, d digest.Digest) (fs.FileInfo, error) {
	l, err := s.Layer(d)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.Lstat(".")
}

// topmost drops from layers each that occurs again further up: overlayfs
// refuses to stack a directory twice, and the upper occurrence alone shows the
// same tree. Whatever the lower one adds, the upper one adds too, and whatever
// the lower one hides from below, the upper one hides.
func topmost(layers []digest.Digest) []digest.Digest {
	var kept []digest.Digest
	for i, d := range layers {
		if !slices.Contains(layers[i+1:], d) {
			kept = append(kept, d)
		}
	}
	return kept
}

// Volatile returns mounts, which a [Driver] made, so that overlayfs leaves out every
// sync of the upper directory. It is for an upper that is thrown away if the
// machine stops: that of a build step. overlayfs refuses to use such an upper again.
func Volatile(mounts []sys.Mount) []sys.Mount {
	mounts = slices.Clone(mounts)
	for i, m := range mounts {
		if m.Type == "overlay" && strings.Contains(m.Data, "upperdir=") {
			mounts[i].Data += ",volatile"
		}
	}
	return mounts
}
