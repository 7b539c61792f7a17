package rootfs

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

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
