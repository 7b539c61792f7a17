package tree

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// LookupUser reads "user", "user:group" or numbers in their place as --chown
// takes them, looking names up in /etc/passwd and /etc/group of fsys.
//
// A name that is not there gives [errdefs.ErrNotFound] together with the owner
// that BuildKit takes then: 0 for the part it does not know.
func LookupUser(fsys FS, spec string) (Owner, error) {
	return Owner{}, fmt.Errorf("look up user %q: %w", spec, errdefs.ErrNotImplemented)
}
