package cli

import (
	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

func killCommand(e *engine.Engine) *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use:   "kill [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Kill one or more running containers",
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			return each(cmd, args, func(name string) error {
				return containers.Kill(cmd.Context(), name, signal)
			})
		},
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	return needsNamespace(cmd)
}
