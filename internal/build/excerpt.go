package build

import (
	"io"

	bkerrdefs "github.com/moby/buildkit/solver/errdefs"
)

// Excerpt writes the places in the Dockerfile that err is about, as docker
// build shows them.
func Excerpt(w io.Writer, err error) error {
	for _, source := range bkerrdefs.Sources(err) {
		if err := source.Print(w); err != nil {
			return err
		}
	}
	return nil
}
