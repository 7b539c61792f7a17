package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

func waitCommand(e *engine.Engine) *cobra.Command {
	return &cobra.Command{
		Use:   "wait CONTAINER [CONTAINER...]",
		Short: "Block until one or more containers stop, then print their exit codes",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			return forEach(args, func(name string) error {
				code, err := containers.Wait(cmd.Context(), name)
				if err == nil {
					_, err = fmt.Fprintln(cmd.OutOrStdout(), code)
				}
				return err
			})
		},
	}
}
