package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/build"
	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
)

// builderCommand is the group `shale builder`; Docker has its commands also
// under `buildx`.
func builderCommand(e *engine.Engine, name string) *cobra.Command {
	return group(name, "Manage builds", buildCommand(e), builderDUCommand(e), builderHistoryCommand(e), builderLogsCommand(e), builderPruneCommand(e))
}

func builderPruneCommand(e *engine.Engine) *cobra.Command {
	var (
		o       build.PruneOptions
		force   bool
		keep    string
		filters []string
	)
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove build cache",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Unused, err = unusedFilter(filters); err != nil {
				return err
			}
			if keep != "" {
				if o.Keep, err = units.RAMInBytes(keep); err != nil {
					return badValue("keep-storage", keep, err.Error())
				}
			}
			warning := "WARNING! This will remove all dangling build cache."
			if o.All {
				warning = "WARNING! This will remove all build cache."
			}
			if !force && !confirm(cmd, warning) {
				return nil
			}
			b, err := e.Builder()
			if err != nil {
				return err
			}
			pruned, err := b.Prune(cmd.Context(), o)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Deleted build cache objects: %d\n\nTotal reclaimed space: %s\n",
				pruned.Records+pruned.Mounts+pruned.Failures, units.HumanSize(float64(pruned.Reclaimed)))
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.All, "all", "a", false, "Remove all unused build cache, not just dangling ones")
	flags.StringArrayVar(&filters, "filter", nil, `Provide filter values (e.g., "until=24h")`)
	flags.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	flags.StringVar(&keep, "keep-storage", "", "Amount of disk space to keep for cache")
	return wantsNamespace(cmd)
}

// unusedFilter reads --filter until=DURATION, or unused-for=DURATION, which is
// the same. As in Docker there can be one.
func unusedFilter(filters []string) (time.Duration, error) {
	parsed, err := image.ParseFilters(filters)
	if err != nil {
		return 0, badValue("filter", strings.Join(filters, ","), err.Error())
	}
	var unused time.Duration
	given := ""
	for key, values := range parsed {
		if key != "until" && key != "unused-for" {
			return 0, badValue("filter", key, "want until=DURATION")
		}
		for _, value := range values {
			if given != "" {
				return 0, badValue("filter", key+"="+value, given+" is given, too")
			}
			given = key + "=" + value
			if unused, err = time.ParseDuration(value); err != nil || unused < 0 {
				return 0, badValue("filter", given, "want a duration, such as 24h")
			}
		}
	}
	return unused, nil
}
