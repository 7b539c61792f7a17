package rootfs

import (
	"fmt"
	"io/fs"

	"github.com/opencontainers/go-digest"

	"github.com/shaleproject/shale/internal/layer"
	"github.com/shaleproject/shale/internal/store"
)

// shown is what the indexes of a stack's layers say, all lowest first.
type shown struct {
	layers  []digest.Digest // each once
	visible []digest.Digest // the upper part of layers that overlayfs needs

	// root describes the root directory, of the highest layer that really has
	// it; nil if there is no layer. implied says that higher ones imply it.
	root    fs.FileInfo
	implied bool

	// implies counts layers up to the highest that implies other directories.
	implies int
}

// look reads the indexes of layers. To open each makes sure that its index is
// whole before the kernel sees it.
func look(s *store.Store, layers []digest.Digest) (*shown, error) {
	layers = topmost(layers)
	at := &shown{layers: layers, visible: layers}
	found, opaque := false, false
	for i := len(layers) - 1; i >= 0 && !(opaque && found); i-- {
		info, implies, err := rootOf(s, layers[i])
		if err != nil {
			return nil, fmt.Errorf("stack layer %s: %w", layers[i], err)
		}
		st := info.Sys().(*layer.Stat)
		if at.root == nil {
			at.root, at.implied = info, st.Implied
		}
		if !found && !st.Implied {
			at.root, found = info, true
		}
		if opaque { // it hides files, and no attributes
			continue
		}
		if implies {
			at.implies = max(at.implies, i+1)
		}
		if st.Opaque { // overlayfs merges roots, whatever they say
			at.visible, opaque = layers[i:], true
		}
	}
	return at, nil
}

func rootOf(s *store.Store, d digest.Digest) (root fs.FileInfo, implies bool, err error) {
	l, err := s.Layer(d)
	if err != nil {
		return nil, false, err
	}
	defer l.Close()
	root, err = l.Lstat(".")
	return root, l.Implies(), err
}
