package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/engine"
)

func logoutCommand(e *engine.Engine) *cobra.Command {
	return &cobra.Command{
		Use:   "logout [SERVER]",
		Short: "Log out from a registry",
		Long:  "Log out from a registry.\nIf no server is specified, the default is Docker Hub.",
		Args:  between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			host := serverName(args)
			found, err := e.Registries().Erase(cmd.Context(), host)
			if err != nil {
				return err
			}
			if !found {
				fmt.Fprintf(cmd.OutOrStdout(), "Not logged in to %s\n", host)
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Removing login credentials for %s\n", host)
			return nil
		},
	}
}
