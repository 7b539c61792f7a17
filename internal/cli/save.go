package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
	"github.com/shaleproject/shale/internal/image"
)

func saveCommand(e *engine.Engine) *cobra.Command {
	var output, platform string
	cmd := &cobra.Command{
		Use:   "save [OPTIONS] IMAGE [IMAGE...]",
		Short: "Save one or more images to a tar archive (streamed to STDOUT by default)",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := e.Images()
			if err != nil {
				return err
			}
			var o image.SaveOptions
			if o.Platform, err = platformFlag(platform); err != nil {
				return err
			}
			return toFile(cmd.OutOrStdout(), output, func(w io.Writer) error {
				return images.Save(cmd.Context(), w, args, o)
			})
		},
		ValidArgsFunction: completeImages(e, -1),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().StringVar(&platform, "platform", "", "Save only the given platform")
	return cmd
}
