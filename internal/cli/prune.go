package cli

import (
	"fmt"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
)

func imagePruneCommand(e *engine.Engine) *cobra.Command {
	var (
		o       image.PruneOptions
		force   bool
		filters []string
	)
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove unused images",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Filters, err = image.ParseFilters(filters); err != nil {
				return err
			}
			warning := "WARNING! This will remove all dangling images."
			if o.All {
				warning = "WARNING! This will remove all images without at least one container associated to them."
			}
			if !force && !confirm(cmd, warning) {
				return nil
			}
			images, err := e.Images()
			if err != nil {
				return err
			}
			pruned, err := images.Prune(cmd.Context(), o)
			out := cmd.OutOrStdout()
			if len(pruned.Removed) > 0 {
				fmt.Fprintln(out, "Deleted Images:")
				printRemoved(out, pruned.Removed, "untagged: ", "deleted: ")
				fmt.Fprintln(out)
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(out, "Total reclaimed space:", units.HumanSize(float64(pruned.Reclaimed)))
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.All, "all", "a", false, "Remove all unused images, not just dangling ones")
	flags.StringArrayVar(&filters, "filter", nil, `Provide filter values (e.g. "until=<timestamp>")`)
	flags.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	return wantsNamespace(cmd) // unpacked layers belong to the ids of a namespace
}
