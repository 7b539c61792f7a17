package cli

import (
	"fmt"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/store"
)

func gcCommand(e *engine.Engine) *cobra.Command {
	var (
		o      store.CollectOptions
		budget string
	)
	cmd := &cobra.Command{
		Use:   "gc [OPTIONS]",
		Short: "Remove content that nothing refers to, and what killed processes left",
		Long: `Remove content that nothing refers to, and what killed processes left.

Images, containers and volumes stay. The least recently used build cache goes
where it takes more than its budget.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := parseBudget(budget, &o); err != nil {
				return err
			}
			s, err := e.Store()
			if err != nil {
				return err
			}
			report, err := s.Collect(cmd.Context(), o)
			if err != nil {
				return err
			}
			verb, total := "Removed", "Total reclaimed space:"
			if o.DryRun {
				verb, total = "Would remove", "Space that would be reclaimed:"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %d blobs, %d cache records, %d indexes and trees, %d leftovers\n%s %s\n", verb,
				report.Blobs, report.Records, report.Derived, report.Stale, total, units.HumanSize(float64(report.Bytes)))
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&budget, "keep-storage", "", `Bytes of build cache to keep, such as 10GB (default: a quarter of the disk, at most 20GiB; "0" keeps none)`)
	flags.DurationVar(&o.CacheUnused, "unused", 0, "Drop build cache that was not used for this long, such as 72h")
	flags.DurationVar(&o.Grace, "grace", 24*time.Hour, "Keep blobs and uploads of pushes to `shale registry serve` that are younger, though no manifest needs them yet")
	flags.BoolVar(&o.DryRun, "dry-run", false, "Remove nothing, say what would be removed")
	wantsNamespace(cmd) // unpacked layers have files of other owners
	return cmd
}

// parseBudget reads a size in Docker's form. For the store zero is the default
// and a negative budget none; for a person 0 is none.
func parseBudget(size string, o *store.CollectOptions) error {
	if o.Grace == 0 {
		o.Grace = -1
	}
	if size == "" {
		return nil
	}
	n, err := units.RAMInBytes(size)
	if err != nil {
		return fmt.Errorf("invalid size '%s' for --keep-storage", size)
	}
	if o.CacheBudget = n; n == 0 {
		o.CacheBudget = -1
	}
	return nil
}
