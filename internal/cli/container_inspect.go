package cli

import (
	"context"
	"fmt"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
)

func containerInspectCommand(e *engine.Engine) *cobra.Command {
	var spec string
	var size bool
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Display detailed information on one or more containers",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return printInspected(cmd.OutOrStdout(), spec, args, func(name string) (any, error) {
				return inspectContainer(cmd.Context(), e, name, size)
			})
		},
	}
	cmd.Flags().StringVarP(&spec, "format", "f", "", "Format output using a custom template: 'json' or a Go template")
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Display total file sizes")
	return cmd
}

func inspectContainer(ctx context.Context, e *engine.Engine, name string, size bool) (any, error) {
	containers, err := e.Containers()
	if err != nil {
		return nil, err
	}
	return containers.Inspect(ctx, name, size)
}

func containerPruneCommand(e *engine.Engine) *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove all stopped containers",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force && !confirm(cmd, "WARNING! This will remove all stopped containers.") {
				return nil
			}
			parsed, err := image.ParseFilters(filters)
			if err != nil {
				return err
			}
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			pruned, freed, err := containers.Prune(cmd.Context(), parsed)
			if len(pruned) > 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "Deleted Containers:")
				for _, id := range pruned {
					fmt.Fprintln(cmd.OutOrStdout(), id)
				}
				fmt.Fprintln(cmd.OutOrStdout())
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "Total reclaimed space:", units.HumanSize(float64(freed)))
			return err
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	listVar(cmd.Flags(), &filters, "filter", `Provide filter values (e.g. "label=<label>")`)
	return needsNamespace(cmd)
}
