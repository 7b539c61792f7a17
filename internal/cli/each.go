package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

// each calls f for every argument, prints those for which it succeeds, as
// Docker does, and returns all errors.
func each(cmd *cobra.Command, args []string, f func(arg string) error) error {
	var errs []error
	for _, arg := range args {
		if err := f(arg); err != nil {
			errs = append(errs, err)
			continue
		}
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), arg); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}
