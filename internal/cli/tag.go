package cli

import (
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

func tagCommand(e *engine.Engine) *cobra.Command {
	return &cobra.Command{
		Use:   "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		Args:  exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			images, err := e.Images()
			if err != nil {
				return err
			}
			return images.Tag(cmd.Context(), args[0], args[1])
		},
		ValidArgsFunction: completeImages(e, 2),
	}
}
