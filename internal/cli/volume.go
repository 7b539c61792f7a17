package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/cli/format"
	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
	"github.com/shaleproject/shale/internal/volume"
)

func volumeCommand(e *engine.Engine) *cobra.Command {
	return group("volume", "Manage volumes",
		volumeCreateCommand(e), volumeInspectCommand(e), volumeListCommand(e), volumePruneCommand(e), volumeRemoveCommand(e))
}

func volumeCreateCommand(e *engine.Engine) *cobra.Command {
	var name, driver string
	var labelled, options []string
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] [VOLUME]",
		Short: "Create a volume",
		Args:  between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if driver != "local" || len(options) > 0 {
				return fmt.Errorf("volume driver %q with options: there is only local, without any: %w", driver, errdefs.ErrNotImplemented)
			}
			if len(args) == 1 {
				name = args[0]
			}
			if name == "" {
				name = container.NewID()
			}
			l, err := labels(nil, labelled)
			if err != nil {
				return err
			}
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			v, _, err := containers.Volumes.Create(name, l, time.Now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), v.Name)
			return err
		},
	}
	cmd.Flags().StringVarP(&driver, "driver", "d", "local", "Specify volume driver name")
	cmd.Flags().StringVar(&name, "name", "", "Specify volume name")
	_ = cmd.Flags().MarkHidden("name")
	listVar(cmd.Flags(), &labelled, "label", "Set metadata for a volume")
	listVarP(cmd.Flags(), &options, "opt", "o", "Set driver specific options")
	return cmd
}

func volumeInspectCommand(e *engine.Engine) *cobra.Command {
	var spec string
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] VOLUME [VOLUME...]",
		Short: "Display detailed information on one or more volumes",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			return printInspected(cmd.OutOrStdout(), spec, args, func(name string) (any, error) { return containers.Volumes.Get(name) })
		},
	}
	cmd.Flags().StringVarP(&spec, "format", "f", "", "Format output using a custom template: 'json' or a Go template")
	return cmd
}

// volumeRow has the placeholders of `docker volume ls --format`.
type volumeRow struct {
	Driver, Name, Labels, Mountpoint, Scope string
}

func volumeListCommand(e *engine.Engine) *cobra.Command {
	var spec string
	var filters []string
	var quiet bool
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List volumes",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if quiet {
				spec = "{{.Name}}"
			}
			f, err := format.Parse(spec, "{{.Driver}}\t{{.Name}}", map[string]string{
				"Driver": "DRIVER", "Name": "VOLUME NAME", "Labels": "LABELS", "Mountpoint": "MOUNTPOINT", "Scope": "SCOPE",
			})
			if err != nil {
				return err
			}
			parsed, err := image.ParseFilters(filters)
			if err != nil {
				return err
			}
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			found, err := containers.ListVolumes(cmd.Context(), parsed)
			if err != nil {
				return err
			}
			rows := make([]volumeRow, 0, len(found))
			for _, v := range found {
				rows = append(rows, newVolumeRow(v))
			}
			return format.Write(cmd.OutOrStdout(), f, rows)
		},
	}
	cmd.Flags().StringVar(&spec, "format", "", "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display volume names")
	listVarP(cmd.Flags(), &filters, "filter", "f", `Provide filter values (e.g. "dangling=true")`)
	return cmd
}

func newVolumeRow(v volume.Volume) volumeRow {
	var all []string
	for k, value := range v.Labels {
		all = append(all, k+"="+value)
	}
	slices.Sort(all)
	return volumeRow{Driver: v.Driver, Name: v.Name, Labels: strings.Join(all, ","), Mountpoint: v.Mountpoint, Scope: v.Scope}
}

func volumeRemoveCommand(e *engine.Engine) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] VOLUME [VOLUME...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more volumes",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			return each(cmd, args, func(name string) error {
				err := containers.RemoveVolume(cmd.Context(), name)
				if force && errors.Is(err, errdefs.ErrNotFound) {
					return nil
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of one or more volumes")
	return needsNamespace(cmd)
}

func volumePruneCommand(e *engine.Engine) *cobra.Command {
	var all, force bool
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove unused local volumes",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			warning := "WARNING! This will remove anonymous local volumes not used by at least one container."
			if all {
				warning = "WARNING! This will remove all local volumes not used by at least one container."
			}
			if !force && !confirm(cmd, warning) {
				return nil
			}
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			removed, err := containers.PruneVolumes(cmd.Context(), all)
			if len(removed) > 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "Deleted Volumes:\n%s\n\n", strings.Join(removed, "\n"))
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	return needsNamespace(cmd)
}

func inspectVolume(e *engine.Engine, name string) (any, error) {
	containers, err := e.Containers()
	if err != nil {
		return nil, err
	}
	return containers.Volumes.Get(name)
}
