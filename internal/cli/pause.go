package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/engine"
)

func pauseCommand(e *engine.Engine) *cobra.Command {
	return forEachContainer(e, "pause CONTAINER [CONTAINER...]", "Pause all processes within one or more containers",
		(*container.Containers).Pause)
}

func unpauseCommand(e *engine.Engine) *cobra.Command {
	return forEachContainer(e, "unpause CONTAINER [CONTAINER...]", "Unpause all processes within one or more containers",
		(*container.Containers).Unpause)
}

func forEachContainer(e *engine.Engine, use, short string, f func(*container.Containers, context.Context, string) error) *cobra.Command {
	return needsNamespace(&cobra.Command{
		Use:   use,
		Short: short,
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			return each(cmd, args, func(name string) error { return f(containers, cmd.Context(), name) })
		},
	})
}
