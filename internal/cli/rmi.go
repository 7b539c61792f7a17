package cli

import (
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
)

// rmiCommand is `shale rmi` and, as use says, `shale image rm`.
func rmiCommand(e *engine.Engine, use string, aliases ...string) *cobra.Command {
	var (
		o        image.RemoveOptions
		platform string
	)
	cmd := &cobra.Command{
		Use:     use + " [OPTIONS] IMAGE [IMAGE...]",
		Aliases: aliases,
		Short:   "Remove one or more images",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := e.Images()
			if err != nil {
				return err
			}
			if o.Platform, err = platformFlag(platform); err != nil {
				return err
			}
			return forEach(args, func(arg string) error {
				removed, err := images.Remove(cmd.Context(), arg, o)
				printRemoved(cmd.OutOrStdout(), removed, "Untagged: ", "Deleted: ")
				if o.Force && errdefs.IsNotFound(err) {
					fmt.Fprintf(cmd.ErrOrStderr(), "shale: %s\n", err)
					return nil
				}
				return err
			})
		},
		ValidArgsFunction: completeImages(e, -1),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&o.Force, "force", "f", false, "Force removal of the image")
	flags.BoolVar(&o.NoPrune, "no-prune", false, "Do not delete content that nothing refers to any more")
	flags.StringVar(&platform, "platform", "", "Remove only the given platform variant")
	return wantsNamespace(cmd) // unpacked layers belong to the ids of a namespace
}

func printRemoved(w io.Writer, removed []image.Removed, untagged, deleted string) {
	for _, r := range removed {
		if r.Untagged != "" {
			fmt.Fprintln(w, untagged+r.Untagged)
		} else {
			fmt.Fprintln(w, deleted+r.Deleted)
		}
	}
}
