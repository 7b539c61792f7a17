package tree

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// requirements are paths that must be seen; true once one is.
type requirements map[string]bool

func required(paths []string) requirements {
	r := requirements{}
	for _, p := range paths {
		r[relative(p)] = false
	}
	return r
}

// seen notes that path is there, and all directories that lead to it.
func (r requirements) seen(path string) {
	for want := range r {
		if path == want || strings.HasPrefix(path, want+"/") || want == "." {
			r[want] = true
		}
	}
}

// missing names a path that was not seen, in the words of BuildKit.
func (r requirements) missing() error {
	first := ""
	for want, seen := range r {
		if !seen && (first == "" || want < first) {
			first = want
		}
	}
	if first == "" {
		return nil
	}
	return fmt.Errorf("%q: %w", absolute(first), errdefs.ErrNotFound)
}
