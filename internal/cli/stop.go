package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shaleproject/shale/internal/container"
	"github.com/shaleproject/shale/internal/engine"
)

func stopCommand(e *engine.Engine) *cobra.Command {
	return endCommand(e, "stop", "Stop one or more running containers", (*container.Containers).Stop)
}

func restartCommand(e *engine.Engine) *cobra.Command {
	return endCommand(e, "restart", "Restart one or more containers", (*container.Containers).Restart)
}

// endCommand is a command that ends the processes of containers, with a signal
// first and by force after some seconds.
func endCommand(e *engine.Engine, verb, short string,
	end func(c *container.Containers, ctx context.Context, name, signal string, timeout *int) error,
) *cobra.Command {
	var signal string
	var timeout int
	cmd := &cobra.Command{
		Use:   verb + " [OPTIONS] CONTAINER [CONTAINER...]",
		Short: short,
		Args:  atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			containers, err := e.Containers()
			if err != nil {
				return err
			}
			return eachAtOnce(cmd, args, func(name string) error {
				return end(containers, cmd.Context(), name, signal, seconds(cmd, timeout))
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	flags.IntVarP(&timeout, "timeout", "t", 10, "Seconds to wait before killing the container")
	flags.IntVar(&timeout, "time", 10, "Seconds to wait before killing the container")
	_ = flags.MarkHidden("time")
	return needsNamespace(cmd)
}

// seconds is nil if the flag was not given: then the container's own counts.
func seconds(cmd *cobra.Command, timeout int) *int {
	if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
		return &timeout
	}
	return nil
}
