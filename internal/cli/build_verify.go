package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/shaleproject/shale/internal/build"
)

// verified tells of a build with --verify that both times were the same.
func (f *buildFlags) verified(w io.Writer, res build.Result) {
	switch {
	case !f.verify:
	case res.Target.Digest != "":
		fmt.Fprintf(w, "verified %s: built twice, the same\n", res.Target.Digest)
	default:
		fmt.Fprintln(w, "verified: built twice, the same files")
	}
}

// differs makes of an error that two builds differ an exit code of its own, and
// lists on w what the error does not say. Other errors stay what they are.
func differs(w io.Writer, err error) error {
	var d *build.DifferenceError
	if !errors.As(err, &d) {
		return err
	}
	if len(d.Differences) > 1 {
		fmt.Fprintln(w, "These differ, too:")
		for _, other := range d.Differences[1:] {
			fmt.Fprintln(w, "  "+other.String())
		}
	}
	if d.More > 0 {
		fmt.Fprintf(w, "  and %d more\n", d.More)
	}
	return &ExitError{Code: exitDiffers, Err: err}
}
