package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
)

func systemPruneCommand(e *engine.Engine) *cobra.Command {
	var (
		o       engine.PruneOptions
		force   bool
		filters []string
	)
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove unused data",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Filters, err = image.ParseFilters(filters); err != nil {
				return err
			}
			if !force && !confirm(cmd, pruneWarning(o, filters)) {
				return nil
			}
			pruned, err := e.Prune(cmd.Context(), o)
			printPruned(cmd.OutOrStdout(), pruned)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "Total reclaimed space:", units.HumanSize(float64(pruned.Reclaimed)))
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.All, "all", "a", false, "Remove all unused images not just dangling ones")
	flags.BoolVar(&o.Volumes, "volumes", false, "Prune anonymous volumes")
	flags.StringArrayVar(&filters, "filter", nil, `Provide filter values (e.g. "label=<key>=<value>")`)
	flags.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	return cmd
}

// pruneWarning says what will be removed, in Docker's words.
func pruneWarning(o engine.PruneOptions, filters []string) string {
	images, cache := "all dangling images", "unused build cache"
	if o.All {
		images, cache = "all images without at least one container associated to them", "all build cache"
	}
	what := []string{"all stopped containers"}
	if o.Volumes {
		what = append(what, "all anonymous volumes not used by at least one container")
	}
	what = append(what, images)
	if len(filters) == 0 {
		what = append(what, cache)
	}
	text := "WARNING! This will remove:\n  - " + strings.Join(what, "\n  - ") + "\n"
	if len(filters) > 0 {
		text += "\n  Items to be pruned will be filtered with:\n  - " + strings.Join(filters, "\n  - ") + "\n"
	}
	return text
}

func printPruned(w io.Writer, p engine.Pruned) {
	list := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(w, "%s:\n%s\n\n", title, strings.Join(lines, "\n"))
		}
	}
	list("Deleted Containers", p.Containers)
	list("Deleted Volumes", p.Volumes)
	if len(p.Images) > 0 {
		fmt.Fprintln(w, "Deleted Images:")
		printRemoved(w, p.Images, "untagged: ", "deleted: ")
		fmt.Fprintln(w)
	}
	if p.Cache > 0 {
		fmt.Fprintf(w, "Deleted build cache objects: %d\n\n", p.Cache)
	}
}
