package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/cli/format"
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
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			var found []any
			var errs []error
			for _, name := range args {
				info, err := containers.Inspect(cmd.Context(), name, size)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				found = append(found, info)
			}
			return errors.Join(append([]error{printInspect(cmd, spec, found)}, errs...)...)
		},
	}
	cmd.Flags().StringVarP(&spec, "format", "f", "", "Format output using a custom template: 'json' or a Go template")
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Display total file sizes")
	return cmd
}

// printInspect prints what an inspect command has found: one JSON list, or
// each value with a template.
func printInspect(cmd *cobra.Command, spec string, found []any) error {
	if spec == "" {
		if found == nil {
			found = []any{}
		}
		out := json.NewEncoder(cmd.OutOrStdout())
		out.SetEscapeHTML(false)
		out.SetIndent("", "    ")
		return out.Encode(found)
	}
	for _, v := range found {
		if err := format.One(cmd.OutOrStdout(), spec, v); err != nil {
			return err
		}
	}
	return nil
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
	cmd.Flags().StringArrayVar(&filters, "filter", nil, `Provide filter values (e.g. "label=<label>")`)
	return cmd
}
