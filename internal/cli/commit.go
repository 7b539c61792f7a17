package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/engine"
)

func commitCommand(e *engine.Engine) *cobra.Command {
	var o container.CommitOptions
	var pause bool
	cmd := &cobra.Command{
		Use:   "commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
		Short: "Create a new image from a container's changes",
		Args:  between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				o.Name = args[1]
			}
			o.NoPause = o.NoPause || !pause
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			id, err := containers.Commit(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), id)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.Author, "author", "a", "", `Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")`)
	flags.StringVarP(&o.Message, "message", "m", "", "Commit message")
	flags.BoolVarP(&pause, "pause", "p", true, "Pause container during commit")
	flags.BoolVar(&o.NoPause, "no-pause", false, "Disable pausing container during commit")
	_ = flags.MarkHidden("pause")
	listVarP(flags, &o.Changes, "change", "c", "Apply Dockerfile instruction to the created image")
	return needsNamespace(cmd)
}

func diffCommand(e *engine.Engine) *cobra.Command {
	return needsNamespace(&cobra.Command{
		Use:   "diff CONTAINER",
		Short: "Inspect changes to files or directories on a container's filesystem",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			changes, err := containers.Diff(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			var out strings.Builder
			for _, c := range changes {
				fmt.Fprintf(&out, "%s %s\n", c.Kind, c.Path)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), out.String())
			return err
		},
	})
}
